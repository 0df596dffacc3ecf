"""The composition root: the only place that knows every part. Lifetimes nest; what starts first stops last.

data dir and nats-server > bridge > journal > follower, ticker > HTTP
"""

from __future__ import annotations

import gc
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
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
from arc_es.config import Config
from arc_es.http.api import Api
from arc_es.http.app import ArcApp
from arc_es.http.server import serve_http
from arc_es.journal.jetstream import open_journal
from arc_es.journal.server import ServerError, run_server
from arc_es.journal.stream import StreamSettings, ensure_stream
from arc_es.nats_access import Access
from arc_es.nats_bridge import Bridge, open_bridge
from arc_es.ports import Clock, Journal, JournalMismatch, JournalUnavailable, ReadModels, SystemClock
from arc_es.service import Service
from arc_es.signing import Signer, key_from_admin_token
from projections import Projections

CONNECT_SECONDS_MAX: Final = 30
CONNECT_RETRY_SECONDS: Final = 0.5
EXIT_OK: Final = 0
EXIT_CANNOT_START: Final = 1
EXIT_BUG: Final = 70
SIGNING_KEY_BYTES: Final = 32
COLLECT_AFTER: Final = (10_000, 2, 2)
"""Young objects between two collections, and how many of those make an older one. Python's own 700 is less than two
requests make; and the fewer objects a full collection finds that are not frozen yet, the shorter it is."""

log = logging.getLogger("arc_es")


class CannotStart(Exception):
    """The service cannot start; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Node:
    """One assembled service with its loops, not running yet."""

    service: Service
    follower: Follower
    ticker: Ticker
    models: ReadModels

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Replay the journal, then follow it and tick, for ever; started when the replay is done."""
        async with trio.open_nursery() as nursery:
            with no_garbage_collection():
                nursery.start_soon(self.follower.run)
                await self.follower.wait_ready()
            nursery.start_soon(self.ticker.run)
            task_status.started()


def assemble(journal: Journal, config: Config, *, models: ReadModels | None = None, clock: Clock | None = None) -> Node:
    """All parts of a service on a journal, wired together."""
    models = models or Projections()
    clock = clock or SystemClock()
    messages = Messages(journal, config.cache_bytes_max)
    follower = Follower(journal, models, messages)
    turns = Turns(
        journal,
        models,
        follower,
        messages,
        clock,
        actors_max=config.actors_max,
        append_seconds_max=config.append_seconds_max,
    )
    waiters = Waiters(models.pending, models.status, clock, config.waiters_max)
    ticker = Ticker(turns, models, clock, waiters.offer)
    follower.on_leasable = waiters.offer
    follower.on_applied = ticker.nudge
    service = Service(
        journal=journal,
        models=models,
        follower=follower,
        messages=messages,
        turns=turns,
        waiters=waiters,
        ticker=ticker,
        clock=clock,
    )
    return Node(service, follower, ticker, models)


def build_app(service: Service, config: Config, signing_key: bytes) -> ArcApp:
    """The web application of a service."""
    public_url = config.public_url.rstrip("/") if config.public_url else None
    api = Api(service, Signer(signing_key), config.admin_token, public_url, __version__)
    return ArcApp(
        api,
        body_bytes_max=config.request_body_bytes_max,
        slow_seconds_max=config.slow_request_seconds_max,
        bodies_bytes_max=config.request_bodies_bytes_max,
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
    except* (CannotStart, ServerError, JournalMismatch, JournalUnavailable, OSError) as group:
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
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with _journal(config) as journal, trio.open_nursery() as nursery:
            node = assemble(journal, config)
            app = build_app(node.service, config, signing_key(config))

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
            await nursery.start(_run_http, app, listener, config, stop.wait, nursery.cancel_scope)
            await nursery.start(node.run)
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"arc-es ready on http://{shown}:{port}", flush=True)  # noqa: T201 - the one line on stdout


async def _run_http(  # noqa: ASYNC128 - hypercorn says that it has started
    app: ArcApp,
    listener: socket.socket,
    config: Config,
    stop: Any,
    everything: trio.CancelScope,
    task_status: trio.TaskStatus[Any],
) -> None:
    """Serve until `stop` returns and the requests under way are answered; then end everything else."""
    limit = config.connections_max
    await serve_http(app, _hypercorn(config), listener, connections_max=limit, until=stop, task_status=task_status)
    everything.cancel()


def _hypercorn(config: Config) -> HypercornConfig:
    settings = HypercornConfig()
    settings.graceful_timeout = config.drain_seconds_max
    settings.keep_alive_max_requests = sys.maxsize
    settings.keep_alive_timeout = 75
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
async def _journal(config: Config) -> AsyncGenerator[Journal, None]:
    """The journal of the configuration: an own nats-server, or the one that was named."""
    if config.nats_url is None:
        async with run_server(config.data_dir) as server:
            endpoint = server.endpoint
            access = Access([endpoint.url], endpoint.user, endpoint.password)
            async with _open(access, config) as journal:
                yield journal
    else:
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with _open(Access([config.nats_url]), config) as journal:
            yield journal


@asynccontextmanager
async def _open(access: Access, config: Config) -> AsyncGenerator[Journal, None]:
    async with open_bridge(access) as bridge:
        await _stream_ready(bridge, StreamSettings(config.replicas, config.stream_bytes_max), access, config)
        async with open_journal(bridge) as journal:
            yield journal


async def _stream_ready(bridge: Bridge, settings: StreamSettings, access: Access, config: Config) -> None:
    """Connect and see to the stream; a cluster that has not elected its leaders yet gets the time to do so."""
    trouble = "it does not answer"
    with trio.move_on_after(CONNECT_SECONDS_MAX):
        while True:
            await bridge.wait_available()
            try:
                await ensure_stream(bridge, settings)
            except JournalUnavailable as error:
                trouble = str(error)
                await trio.sleep(CONNECT_RETRY_SECONDS)
            else:
                return
    where = access.scrub(config.nats_url or "its own nats-server")
    raise CannotStart(
        f"cannot use {where} within {CONNECT_SECONDS_MAX} s: {access.scrub(trouble)}. Is it running?"
        " See `arc-es doctor`."
    )


def signing_key(config: Config) -> bytes:
    """The key that signs URLs: the configured one, else made from the admin token, else one kept in the data dir.

    Source: `arc.v1` 2.6.
    """
    if config.signing_key is not None:
        return config.signing_key.encode()
    if config.admin_token is not None:
        return key_from_admin_token(config.admin_token)
    path = config.data_dir / "signing.key"
    if not path.exists():
        _write_secret(path, secrets.token_bytes(SIGNING_KEY_BYTES))
    return path.read_bytes()


def _write_secret(path: Path, secret: bytes) -> None:
    """Write a file that only we can read, whole or not at all."""
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, secret)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    draft.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name, too, must survive a power loss
    finally:
        os.close(folder)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Replay without the cyclic collector; afterwards it never looks at what was loaded, nor twice at what stays.

    Projections hold millions of objects without a single cycle. Scanning them would stop every request for a second.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)
        gc.enable()
        if freeze_survivors not in gc.callbacks:
            gc.callbacks.append(freeze_survivors)


def freeze_survivors(phase: str, info: dict[str, int]) -> None:
    """After a full collection what is left stays: never look at it again."""
    oldest_generation = 2
    if phase == "stop" and info["generation"] == oldest_generation:
        gc.freeze()
