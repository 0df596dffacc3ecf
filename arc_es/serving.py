"""The life of one serving process: what it opens, in which order, and how it drains and ends.

stores > projections, loops > HTTP. What starts first stops last. One process is the whole service, or one of several
workers: then `Place` says what it was given by the one that supervises it (`arc_es.workers`).
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio
from hypercorn.config import Config as HypercornConfig

from arc_es.archive.archiver import archive_for_ever
from arc_es.archive.journal import ArchivedJournal
from arc_es.bootstrap import Node, assemble, build_app
from arc_es.config import Config
from arc_es.dispatch.http import open_http_pusher
from arc_es.dispatch.null import NullPusher
from arc_es.domain import limits
from arc_es.http.accepting import ALONE, Neighbours
from arc_es.http.app import ArcApp
from arc_es.http.server import allow_open_files, serve_http
from arc_es.index import schema as index_schema
from arc_es.index.seed import seed
from arc_es.journal.server import ServerError
from arc_es.journal.subjects import event_subject
from arc_es.keyring import KeyFileError, open_ring
from arc_es.ports import (
    BodyStoreError,
    BodyStoreMismatch,
    JournalMismatch,
    JournalUnavailable,
    Pusher,
    SystemClock,
)
from arc_es.proof.proving import Proving
from arc_es.sharing import TROUBLES, adopt, withdraw
from arc_es.snapshots.child import aside_of
from arc_es.snapshots.folder import FOLDER, Snapshots
from arc_es.storage.shelf import open_shelf
from arc_es.stores import CannotStart, Stores, open_stores

EXIT_OK: Final = 0
EXIT_CANNOT_START: Final = 1
EXIT_BUG: Final = 70
BACKLOG: Final = 1024
"""Connections that may wait to be accepted."""

log = logging.getLogger("arc_es")


@dataclass(frozen=True, slots=True)
class Place:
    """What one process has of the service. number: 1 is the one that does what only one of them may do.

    stores: opens journal and body store. opened, ready: called when they are open, and when requests are served.
    """

    listener: socket.socket
    stores: Callable[[], AbstractAsyncContextManager[Stores]]
    number: int = 1
    neighbours: Neighbours = ALONE
    opened: Callable[[], None] = field(default=lambda: None)
    ready: Callable[[], None] = field(default=lambda: None)

    def folder(self, base: Path) -> Path:
        """The part of a folder of the data dir that is this process's own."""
        return base if self.number == 1 else base / f"worker-{self.number}"


def run(config: Config) -> int:
    """Run the service in this process until SIGTERM or Ctrl-C; returns the exit status."""
    return run_logged(config, lambda: trio.run(_run_alone, config))


def run_logged(config: Config, main: Callable[[], object], who: str = "") -> int:
    """Run something that serves to its end, with its log and its last words on stderr; returns the exit status."""
    form = f"%(asctime)s %(levelname)s {who}%(name)s: %(message)s"
    logging.basicConfig(level=config.log_level.upper(), stream=sys.stderr, format=form)
    failures: list[BaseException] = []
    bugs = False
    try:
        main()
    except* (
        CannotStart,
        KeyFileError,
        ServerError,
        BodyStoreMismatch,
        JournalMismatch,
        JournalUnavailable,
        OSError,
    ) as group:
        failures.extend(_leaves(group))
    except* Exception as group:
        log.critical("The service ends because of a bug or a damaged journal", exc_info=group)
        bugs = True
    for failure in failures:
        print(f"arc-es: {failure}", file=sys.stderr)  # noqa: T201 - the console of a command line program
    if bugs:
        return EXIT_BUG
    return EXIT_CANNOT_START if failures else EXIT_OK


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def _run_alone(config: Config) -> None:
    listener = listen(config)
    await serve(config, Place(listener, partial(open_stores, config), ready=partial(say_ready, listener)))


def say_ready(listener: socket.socket) -> None:
    """Print the one line on stdout."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"arc-es ready on http://{shown}:{port}", flush=True)  # noqa: T201 - the one line on stdout


async def serve(config: Config, place: Place) -> None:
    """Serve until a signal: the first one drains, the second one stops at once."""
    allow_open_files(config.connections_max)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with (
            _snapshots(config) as snapshots,
            place.stores() as (journal, store, talk),
            open_pusher(config) as pusher,
            trio.open_nursery() as nursery,
        ):
            first = config.data_dir / "index"
            index_dir = place.folder(first)
            if place.number == 1:
                await _adopt_shared(config, journal, snapshots, index_dir)
            else:
                await trio.to_thread.run_sync(seed, index_dir, first)
            keys = open_ring(config, SystemClock().now())
            node = assemble(
                journal,
                config,
                store=store,
                keys=keys,
                pusher=pusher,
                index_dir=index_dir,
                erased_file=config.data_dir / "erased",
                proving=Proving.of_data_dir(config.data_dir, event_subject, place.folder),
                snapshots=snapshots,
                aside=aside_of(config),
                leads=place.number == 1,
                neighbours=place.neighbours,
            )
            if config.nats_url is not None and config.snapshot_shared:
                node.eraser.forget_shared = partial(_withdraw_shared, config)
            app = build_app(node.service, config, keys)
            place.opened()
            stop = trio.Event()

            async def watch_signals() -> None:
                async for number in signals:
                    if stop.is_set():
                        log.warning("%s again: stopping at once", signal.Signals(number).name)
                        nursery.cancel_scope.cancel()
                    log.info("%s: draining, up to %g s", signal.Signals(number).name, config.drain_seconds_max)
                    node.service.drain()
                    stop.set()

            nursery.start_soon(watch_signals)
            nursery.start_soon(talk, node.peers)
            await nursery.start(_run_http, app, place, config, stop.wait, node, nursery.cancel_scope)
            await nursery.start(node.run)
            if node.leads:
                nursery.start_soon(archive_for_ever, journal, node.index, config)
            place.ready()


async def _adopt_shared(config: Config, journal: ArchivedJournal, snapshots: Snapshots, index_dir: Path) -> None:
    """Begin a node that has no index with what another one has shared, if there is something that fits."""
    if config.nats_url is None or not config.snapshot_shared or (index_dir / index_schema.FILE).exists():
        return
    try:
        async with open_shelf(config) as shelf:
            if await adopt(shelf, await journal.identity(), config.data_dir / FOLDER, index_dir) is None:
                log.info("No shared snapshot fits")
                return
    except* TROUBLES as group:
        log.warning("Shared snapshots cannot be used now: %s", next(_leaves(group)))
    else:
        await snapshots.look_again()


async def _withdraw_shared(config: Config, position: int) -> None:
    """Remove the shared snapshots that were made before a position. Raises BodyStoreError: not now."""
    try:
        async with open_shelf(config) as shelf:
            await withdraw(shelf, position)
    except* TROUBLES as group:
        raise BodyStoreError(f"Shared snapshots cannot be removed now: {next(_leaves(group))}") from None


async def _run_http(  # noqa: ASYNC128 - hypercorn says that it has started
    app: ArcApp,
    place: Place,
    config: Config,
    stop: Any,
    node: Node,
    everything: trio.CancelScope,
    task_status: trio.TaskStatus[Any],
) -> None:
    """Serve until `stop` returns, the requests under way are answered and pushes ended; then end everything else."""
    await serve_http(
        app,
        hypercorn_settings(config),
        place.listener,
        connections_max=config.connections_max,
        until=stop,
        neighbours=place.neighbours,
        task_status=task_status,
    )
    with trio.move_on_after(config.drain_seconds_max):
        await node.pushing.drained()
        if node.leads and node.checkpoints is not None:
            await node.checkpoints.last()
    if node.leads and node.writer is not None:
        await node.writer.last()
    log.info("Applied up to %d; lost %d races to other nodes", node.follower.applied, node.turns.conflicts)
    everything.cancel()


def hypercorn_settings(config: Config) -> HypercornConfig:
    """Hypercorn as we use it."""
    settings = HypercornConfig()
    settings.graceful_timeout = config.drain_seconds_max
    settings.keep_alive_max_requests = sys.maxsize
    settings.h11_max_incomplete_size = limits.HEAD_BYTES_MAX
    settings.include_server_header = False
    settings.errorlog = logging.getLogger("arc_es.hypercorn")
    return settings


def listen(config: Config) -> socket.socket:
    """The socket of `bind`. Raises CannotStart."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        listener = socket.create_server((config.host, config.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise CannotStart(
            f"cannot listen on {config.bind}: {error.strerror}. Is another arc-es running?"
            " Choose another address with --bind HOST:PORT."
        ) from error
    listener.setblocking(False)  # noqa: FBT003 - a positional-only parameter
    return listener


@asynccontextmanager
async def _snapshots(config: Config) -> AsyncGenerator[Snapshots, None]:
    """What to start from; it is read while nats-server reads its own store."""
    snapshots = Snapshots(config.data_dir / FOLDER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(snapshots.prepare)
        yield snapshots


@asynccontextmanager
async def open_pusher(config: Config) -> AsyncGenerator[Pusher, None]:
    """What pushes: over HTTP, or nothing."""
    if config.push == "null":
        yield NullPusher()
    else:
        async with open_http_pusher(config.pushes_max) as pusher:
            yield pusher
