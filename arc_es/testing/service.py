"""A service in this process, and the clients that talk to it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import anyio.to_thread
import trio
from anyio.from_thread import start_blocking_portal
from sniffio import current_async_library

from arc_es.bootstrap import Node, assemble, build_app
from arc_es.client import ArcClient, Caller, SyncCaller, Worker
from arc_es.config import Config
from arc_es.domain.ids import Micros
from arc_es.domain.limits import SECOND
from arc_es.http.app import ArcApp
from arc_es.journal.memory import MemoryJournal
from arc_es.keyring import KeyRing, signing_key
from arc_es.ports import SystemClock
from arc_es.testing.line import Across, Line, over

URL: Final = "http://arc.test"
TOKEN: Final = "the-admin-token-of-a-test"  # noqa: S105 - of a service that nobody can reach


class JumpingClock:
    """The wall clock of a service: goes on with trio's clock, and jumps when told."""

    def __init__(self) -> None:
        self._began_at = SystemClock().now()
        self._began = trio.current_time()
        self._jumped: Micros = 0

    def now(self) -> Micros:
        return self._began_at + round((trio.current_time() - self._began) * SECOND) + self._jumped

    def jump(self, seconds: float) -> None:
        """Set the clock forward, or back."""
        self._jumped += round(seconds * SECOND)


class _Running:
    """A service that runs in the current trio loop."""

    def __init__(self, settings: dict[str, Any]) -> None:
        config = Config(**({"admin_token": TOKEN} | settings))
        self.clock = JumpingClock()
        self.journal = MemoryJournal()
        keys = KeyRing(signing_key(config))
        self.node: Node = assemble(self.journal, config, clock=self.clock, keys=keys)
        self.app: ArcApp = build_app(self.node.service, config, keys)
        self.across: Across | None = None

    async def jump(self, seconds: float) -> None:
        self.clock.jump(seconds)
        await self.node.ticker.tick_due(self.clock.now())


class LocalService:
    """A service in this process. url, token: for clients of your own, which cannot reach it but through `line`.

    line: what clients talk through. `line.cut = True` makes the service unreachable, `line.dropped = True` loses what
    it answers.
    """

    def __init__(self, running: _Running) -> None:
        assert running.across is not None, "it runs"
        self._running = running
        self.line = Line(running.app, running.clock, running.across)
        self.url = URL
        self.token = TOKEN

    def caller(self, **options: Any) -> Caller:
        """A `Caller` of this service."""
        return Caller(self.url, self.token, transport=self.line, **options)

    def sync_caller(self, **options: Any) -> SyncCaller:
        """A `SyncCaller` of this service, for a thread: the loop that this was opened in must go on meanwhile."""
        return SyncCaller(self.url, self.token, transport=self.line, **options)

    def worker(self, **options: Any) -> Worker:
        """A `Worker` of this service."""
        return Worker(self.url, self.token, transport=self.line, **options)

    def client(self) -> ArcClient:
        """The low-level client, for the rest."""
        return ArcClient(self.url, self.token, transport=self.line)

    @asynccontextmanager
    async def working(self, *workers: Worker) -> AsyncGenerator[None, None]:
        """Workers run inside the block; they are stopped, and drained, at its end."""
        async with anyio.create_task_group() as group:
            for worker in workers:
                group.start_soon(worker.run)
            yield
            for worker in workers:
                worker.stop()

    async def jump(self, seconds: float) -> None:
        """Set the clock of the service, and let lease ends and deadlines that are due then take effect."""
        await self.line.across(self._running.jump, seconds)

    async def events(self, command_id: str) -> list[dict[str, Any]]:
        """The history of a command."""
        async with self.client() as client:
            found: list[dict[str, Any]] = (await client.events(command_id))["events"]
            return found

    async def history(self, command_id: str) -> list[str]:
        """The names of the events of a command."""
        return [event["type"] for event in await self.events(command_id)]


@asynccontextmanager
async def open_service(**settings: Any) -> AsyncGenerator[LocalService, None]:
    """A service that runs inside the block; `settings` are those of `arc_es.config.Config`."""
    if current_async_library() == "trio":
        async with _node(settings) as running:
            yield LocalService(running)
        return
    opened = _OtherThread(settings)
    running = await anyio.to_thread.run_sync(opened.start)
    try:
        yield LocalService(running)
    finally:
        with anyio.CancelScope(shield=True):  # bounded: the loop of the service is cancelled
            await anyio.to_thread.run_sync(opened.stop)


@asynccontextmanager
async def _node(settings: dict[str, Any]) -> AsyncGenerator[_Running, None]:
    running = _Running(settings)
    async with trio.open_nursery() as nursery:
        await nursery.start(running.node.run)
        running.across = over(nursery, trio.lowlevel.current_trio_token())
        yield running
        nursery.cancel_scope.cancel()


class _OtherThread:
    """A service in a trio loop of its own, started and stopped from a third thread."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._opening = start_blocking_portal("trio", name="arc-es service")

    def start(self) -> _Running:
        portal = self._opening.__enter__()
        self._within = portal.wrap_async_context_manager(_node(self._settings))
        return self._within.__enter__()

    def stop(self) -> None:
        self._within.__exit__(None, None, None)
        self._opening.__exit__(None, None, None)
