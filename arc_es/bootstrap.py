"""The composition root: the only place that knows every part. Lifetimes nest; what starts first stops last.

data dir and nats-server > bridge > journal > follower, ticker > HTTP
"""

from __future__ import annotations

import logging
import secrets
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio
from hypercorn.config import Config as HypercornConfig

from arc_es import __version__
from arc_es.actors.follower import Follower
from arc_es.actors.messages import Messages
from arc_es.actors.ticker import Ticker
from arc_es.actors.turns import Turns
from arc_es.actors.waiters import Waiters
from arc_es.archive.archiver import archive_for_ever
from arc_es.archive.segment import ArchiveDamaged
from arc_es.asof import AsOf, QueuesThen, in_child, queues_of
from arc_es.bodies import Bodies
from arc_es.config import Config
from arc_es.dispatch.http import open_http_pusher
from arc_es.dispatch.null import NullPusher
from arc_es.domain import limits
from arc_es.domain.state import PUBLIC_STATE, TERMINAL
from arc_es.envelopes import Envelopes
from arc_es.garbage import no_garbage_collection
from arc_es.http.api import Api
from arc_es.http.app import ArcApp
from arc_es.http.server import allow_open_files, serve_http
from arc_es.index import Index
from arc_es.journal.server import ServerError
from arc_es.journal.subjects import event_subject
from arc_es.keyring import KEY_BYTES, KeyFileError, KeyRing, open_ring
from arc_es.links import Links
from arc_es.lookup import Lookup
from arc_es.payloads import Payloads
from arc_es.ports import (
    BodyStore,
    BodyStoreMismatch,
    Clock,
    Journal,
    JournalError,
    JournalMismatch,
    JournalUnavailable,
    Overloaded,
    Pusher,
    SystemClock,
)
from arc_es.proof.checkpoints import Checkpoints
from arc_es.proof.proving import Proving
from arc_es.pushing import Pushing, Sending
from arc_es.service import Service
from arc_es.snapshots.child import Aside, aside_of
from arc_es.snapshots.fold import Moment, models_at
from arc_es.snapshots.folder import FOLDER, Snapshots
from arc_es.snapshots.writer import SnapshotWriter
from arc_es.storage.memory import MemoryBodyStore
from arc_es.stores import CONNECT_RETRY_SECONDS, CannotStart, open_stores
from arc_es.sweep import Sweep
from arc_es.views import ReadModels
from projections import Projections

EXIT_OK: Final = 0
EXIT_CANNOT_START: Final = 1
EXIT_BUG: Final = 70
RESEAL_RETRY_SECONDS: Final = 5.0

log = logging.getLogger("arc_es")


@dataclass(frozen=True, slots=True)
class Node:
    """One assembled service with its loops, not running yet."""

    service: Service
    follower: Follower
    ticker: Ticker
    pushing: Pushing
    sweep: Sweep
    models: ReadModels
    keys: KeyRing
    index: Index
    journal: Journal
    checkpoints: Checkpoints | None = None
    snapshots: Snapshots | None = None
    writer: SnapshotWriter | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Replay the journal, then follow it, tick and push, for ever; started when the replay is done."""
        async with trio.open_nursery() as nursery:
            with no_garbage_collection():
                await self._until_available(self.index.prepare)
                await self._until_available(self._restore)
                nursery.start_soon(self.index.run)
                nursery.start_soon(self.follower.run)
                await self.follower.wait_ready()
            nursery.start_soon(self.ticker.run)
            nursery.start_soon(self.sweep.run)
            nursery.start_soon(self.pushing.run)
            nursery.start_soon(self._reseal)
            if self.checkpoints is not None:
                nursery.start_soon(self.checkpoints.run)
            if self.writer is not None:
                nursery.start_soon(self.writer.run)
            task_status.started()

    async def _restore(self, journal: Journal) -> None:
        """Begin with the newest snapshot that can be used."""
        if self.snapshots is None:
            return
        header = await self.snapshots.restore(journal, self.models, self.index.position)
        if header is not None:
            self.follower.resume(header.position)
            if self.writer is not None:
                self.writer.started_from(header.events)

    async def _until_available(self, step: Callable[[Journal], Awaitable[None]]) -> None:
        """Take a step of the start; a journal that is away now gets the time to come back."""
        while True:
            try:
                await step(self.journal)
            except ArchiveDamaged:
                raise
            except JournalUnavailable:
                await trio.sleep(CONNECT_RETRY_SECONDS)
            else:
                return

    async def _reseal(self) -> None:
        """See to it that the push tokens are sealed under the current key."""
        while True:
            try:
                await self.service.reseal(self.keys.sealer())
            except (JournalError, Overloaded) as error:
                log.warning("Push tokens are not sealed under the current key yet: %s", error)
                await trio.sleep(RESEAL_RETRY_SECONDS)
            else:
                return


def empty_models(finished_max: int | None) -> Projections:
    """Projections of nothing, for a fold beside the service: all but so many ended commands leave them at once."""
    models = Projections(finished_max)
    models.findable(sys.maxsize)
    return models


def assemble(  # noqa: PLR0913 - whatever a test replaces
    journal: Journal,
    config: Config,
    *,
    store: BodyStore | None = None,
    models: Projections | None = None,
    clock: Clock | None = None,
    keys: KeyRing | None = None,
    pusher: Pusher | None = None,
    index_dir: Path | None = None,
    proving: Proving | None = None,
    snapshots: Snapshots | None = None,
    aside: Aside | None = None,
) -> Node:
    """All parts of a service on a journal, wired together.

    keys: without them, one that is forgotten at the end. index_dir: without it, the index is in memory.
    proving: without it nothing is signed. snapshots: what to start from. aside: runs `arc-es` in a process of its own;
    without it no snapshots are written, and the past is folded here.
    """
    models = models or Projections(config.finished_in_memory_max)
    keys = keys or KeyRing(secrets.token_bytes(KEY_BYTES))
    clock = clock or SystemClock()
    messages = Messages(journal, config.cache_bytes_max)
    follower = Follower(journal, models, messages)
    index = _index(index_dir, follower, models)
    turns = Turns(
        journal,
        models,
        follower,
        messages,
        clock,
        actors_max=config.actors_max,
        append_seconds_max=config.append_seconds_max,
    )
    journal.reserve_for(partial(_live, models))
    waiters = Waiters(models.pending, models.status, clock, config.waiters_max, config.waiters_per_target_max)
    bodies = Bodies(messages, store or MemoryBodyStore())
    lookup = Lookup(journal, models, follower, turns, clock, index)
    pushing = _pushing(config, models, turns, bodies, clock, keys, pusher or NullPusher())
    checkpoints = exports = None
    if proving is not None:
        every_seconds = config.checkpoint_seconds
        checkpoints, exports = proving.parts(journal, models.checkpoints, turns, clock, bodies.store, every_seconds)
    offer = partial(_offer, models, waiters, pushing)
    ticker = Ticker(turns, models, clock, offer)
    follower.on_leasable = offer
    follower.on_applied = ticker.nudge
    service = Service(
        journal=journal,
        models=models,
        follower=follower,
        turns=turns,
        waiters=waiters,
        ticker=ticker,
        clock=clock,
        bodies=bodies,
        pushing=pushing,
        lookup=lookup,
        index=index,
        exports=exports,
        as_of=_as_of(aside, journal, lookup, follower, clock, config),
    )
    sweep = _sweep(config, models, follower, bodies, turns, lookup, clock)
    writer = None if aside is None else SnapshotWriter(models, aside, config)
    return Node(service, follower, ticker, pushing, sweep, models, keys, index, journal, checkpoints, snapshots, writer)


def _as_of(
    aside: Aside | None, journal: Journal, lookup: Lookup, follower: Follower, clock: Clock, config: Config
) -> AsOf:
    """What answers about the past."""

    async def fold_here(moment: Moment) -> QueuesThen:
        make = partial(empty_models, config.finished_in_memory_max)
        folded = await models_at(journal, None, make, moment, messages_max=config.as_of_messages_max)
        return queues_of(folded, moment)

    fold = fold_here if aside is None else in_child(aside, config.as_of_messages_max)
    return AsOf(journal=journal, lookup=lookup, follower=follower, clock=clock, fold_queues=fold)


def _index(folder: Path | None, follower: Follower, models: Projections) -> Index:
    """The index of all commands, told of what is applied and telling what need not stay in memory."""
    index = Index(folder)
    index.tip = lambda: (follower.applied, follower.tip)
    index.on_committed = models.findable
    models.on_change = index.note
    models.on_late = index.note_late
    follower.on_stored = index.applied
    return index


def _pushing(
    config: Config, models: ReadModels, turns: Turns, bodies: Bodies, clock: Clock, keys: KeyRing, pusher: Pusher
) -> Pushing:
    return Pushing(
        models=models,
        turns=turns,
        bodies=bodies,
        sending=_sending(config, keys, bodies.store, clock, pusher),
        clock=clock,
        per_target_max=config.pushes_per_target_max,
        pushes_max=config.pushes_max,
    )


def _sweep(
    config: Config,
    models: ReadModels,
    follower: Follower,
    bodies: Bodies,
    turns: Turns,
    lookup: Lookup,
    clock: Clock,
) -> Sweep:
    return Sweep(
        models,
        follower,
        bodies,
        Payloads(models, turns, bodies, lookup),
        lookup,
        clock,
        every_seconds=config.sweep_seconds,
        orphan_seconds_min=config.orphan_seconds_min,
    )


def _sending(config: Config, keys: KeyRing, store: BodyStore, clock: Clock, pusher: Pusher) -> Sending | None:
    """How commands are pushed; not at all without a public base URL, which their envelopes need (`arc.v1` 1.8)."""
    base, signer = public_base(config), keys.signer()
    if base is None:
        return None

    def envelopes(lease_seconds: int) -> Envelopes:
        return Envelopes(Links(signer, store, base, clock.now()), lease_seconds)

    return Sending(pusher, envelopes, keys.sealer().token_of)


def public_base(config: Config) -> str | None:
    """The configured `{base}` of all own URLs."""
    return config.public_url.rstrip("/") if config.public_url else None


def _offer(models: ReadModels, waiters: Waiters, pushing: Pushing, command_id: str) -> None:
    """A command may be delivered from now on: to an agent that waits, or by push."""
    row = models.status.get(command_id)
    if row is not None and row.state.facts.route.delivery == "push":
        pushing.offer(command_id)
    else:
        waiters.offer(command_id)


def _live(models: ReadModels) -> int:
    """How many commands have not come to an end."""
    ended = {PUBLIC_STATE[state] for state in TERMINAL}
    return sum(count for name, count in models.stats.by_state().items() if name not in ended)


def build_app(service: Service, config: Config, keys: KeyRing) -> ArcApp:
    """The web application of a service."""
    api = Api(
        service,
        keys.signer(),
        keys.sealer(),
        config.admin_token,
        public_base(config),
        __version__,
        trust_forwarded=config.trust_forwarded,
    )
    return ArcApp(
        api,
        body_bytes_max=config.request_body_bytes_max,
        slow_seconds_max=config.slow_request_seconds_max,
        bodies_bytes_max=config.request_bodies_bytes_max,
        storage_bytes_max=config.storage_bytes_max,
    )


def run(config: Config) -> int:
    """Run the service until SIGTERM or Ctrl-C; returns the exit status."""
    logging.basicConfig(
        level=config.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    failures: list[BaseException] = []
    bugs = False
    try:
        trio.run(_serve, config)
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


async def _serve(config: Config) -> None:
    listener = _listen(config)
    allow_open_files(config.connections_max)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with (
            _snapshots(config) as snapshots,
            open_stores(config) as (journal, store),
            _pusher(config) as pusher,
            trio.open_nursery() as nursery,
        ):
            keys = open_ring(config, SystemClock().now())
            proving = Proving.of_data_dir(config.data_dir, event_subject)
            node = assemble(
                journal,
                config,
                store=store,
                keys=keys,
                pusher=pusher,
                index_dir=config.data_dir / "index",
                proving=proving,
                snapshots=snapshots,
                aside=aside_of(config),
            )
            app = build_app(node.service, config, keys)

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
            await nursery.start(_run_http, app, listener, config, stop.wait, node, nursery.cancel_scope)
            await nursery.start(node.run)
            nursery.start_soon(archive_for_ever, journal, node.index, config)
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"arc-es ready on http://{shown}:{port}", flush=True)  # noqa: T201 - the one line on stdout


async def _run_http(  # noqa: ASYNC128 - hypercorn says that it has started
    app: ArcApp,
    listener: socket.socket,
    config: Config,
    stop: Any,
    node: Node,
    everything: trio.CancelScope,
    task_status: trio.TaskStatus[Any],
) -> None:
    """Serve until `stop` returns, the requests under way are answered and pushes ended; then end everything else."""
    limit = config.connections_max
    await serve_http(app, _hypercorn(config), listener, connections_max=limit, until=stop, task_status=task_status)
    with trio.move_on_after(config.drain_seconds_max):
        await node.pushing.drained()
        if node.checkpoints is not None:
            await node.checkpoints.last()
    if node.writer is not None:
        await node.writer.last()
    everything.cancel()


def _hypercorn(config: Config) -> HypercornConfig:
    settings = HypercornConfig()
    settings.graceful_timeout = config.drain_seconds_max
    settings.keep_alive_max_requests = sys.maxsize
    settings.h11_max_incomplete_size = limits.HEAD_BYTES_MAX
    settings.include_server_header = False
    settings.errorlog = logging.getLogger("arc_es.hypercorn")
    return settings


def _listen(config: Config) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        listener = socket.create_server((config.host, config.port), family=family, backlog=1024)
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
async def _pusher(config: Config) -> AsyncGenerator[Pusher, None]:
    """What pushes: over HTTP, or nothing."""
    if config.push == "null":
        yield NullPusher()
    else:
        async with open_http_pusher(config.pushes_max) as pusher:
            yield pusher
