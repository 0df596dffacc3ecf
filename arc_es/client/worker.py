"""`Worker`: handlers for commands, and the loop that brings commands to them."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar, get_args

import anyio
from httpx2 import AsyncBaseTransport

from arc_es import __version__
from arc_es.client.agent import RELEASE_SECONDS_MAX, Agent, Settings
from arc_es.client.client import ArcClient
from arc_es.client.errors import ArcError
from arc_es.client.handlers import Handler, handler_of
from arc_es.client.notes import FolderNotes, MemoryNotes, Notes
from arc_es.client.watching import Outcome, Watch, unwatched
from arc_es.domain.ids import ResourceType, Target

LEASE_SECONDS_MAX: Final = 43_200
CONCURRENCY_MAX: Final = 1_000
HANDLER_SECONDS: Final = 300.0
"""How long a handler may take if nothing else is said: one that waits for ever must not hold its command for ever."""
FLUSH_SECONDS_MAX: Final = 300.0
"""How long the last answers are offered to a service that does not take them."""

F = TypeVar("F", bound=Callable[..., Any])
TargetLike: TypeAlias = str | tuple[str, ResourceType] | Target

log = logging.getLogger("arc_es.client")


class Worker:
    """An agent: takes commands of one target under leases, runs a handler for each, answers.

    A command is delivered at least once. It comes again when its lease ended before the answer came: see
    `Context.attempt`. The same code runs on trio and on asyncio.
    """

    def __init__(  # noqa: PLR0913 - one parameter a setting
        self,
        url: str,
        token: str | None = None,
        *,
        deployment: str,
        target: TargetLike,
        concurrency: int = 1,
        lease_seconds: int = 60,
        timeout: float | None = HANDLER_SECONDS,
        drain_seconds: float = 30.0,
        wait_seconds: int = 30,
        notes: Notes | Path | str | None = None,
        agent: Mapping[str, Any] | None = None,
        on_outcome: Callable[[Outcome], None] | None = None,
        on_trouble: Callable[[ArcError | None], None] | None = None,
        watch: Watch = unwatched,
        user_agent: str = f"arc-es-worker/{__version__}",
        transport: AsyncBaseTransport | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: of the service.
            token: bearer token with the scope receiver.
            deployment: whose commands.
            target: who we are in it: `"indexer"` for a daemon, or `("indexer", "container")`.
            concurrency: handlers at the same time, 1 to 1000.
            lease_seconds: how long the service waits for a sign of us before others get our commands, 1 to 43200.
                Leases are renewed while handlers run; short ones are missed sooner when we die.
            timeout: seconds a handler may take, unless its own `timeout` says else; None: until the deadline.
            drain_seconds: how long running handlers may go on after `stop`.
            wait_seconds: how long one call waits for a command.
            notes: folder for scratch notes; default: they die with the process.
            agent: recorded in the history of every command: `id` (default: host and process), `version`, `labels`.
            on_outcome: told what became of each lease.
            on_trouble: told when the service cannot be reached, and (None) when it can again; default: the log.
            watch: shows transfers of large bodies.
            user_agent: recorded in the history.
            transport: instead of the network; see `arc_es.testing`.

        Raises:
            ValueError: a setting is out of its bounds, or the URL is none.
            OSError: the folder for notes cannot be made.
        """
        if not 1 <= concurrency <= CONCURRENCY_MAX or not 1 <= lease_seconds <= LEASE_SECONDS_MAX:
            raise ValueError(f"concurrency goes from 1 to {CONCURRENCY_MAX}, lease_seconds to {LEASE_SECONDS_MAX}")
        self._connect: Callable[[], ArcClient] = partial(
            ArcClient, url, token, user_agent=user_agent, transport=transport
        )
        self._connect()  # a wrong URL is noticed here
        self._settings: dict[str, Any] = {
            "deployment": deployment,
            "target": target_of(target),
            "concurrency": concurrency,
            "lease_seconds": lease_seconds,
            "wait_seconds": wait_seconds,
            "agent": {"id": f"{socket.gethostname()}-{os.getpid()}", **(agent or {})},
            "on_outcome": on_outcome or _log_outcome,
            "on_trouble": on_trouble or _log_trouble,
            "watch": watch,
        }
        self._timeout = timeout
        self._drain_seconds = drain_seconds
        self._notes = FolderNotes(notes) if isinstance(notes, str | Path) else notes or MemoryNotes()
        self._handlers: dict[str, Handler] = {}
        self._any: Handler | None = None
        self._agent: Agent | None = None
        self._draining: anyio.CancelScope | None = None

    # --- handlers

    def command(self, name: str, *, timeout: float | str | None = "worker") -> Callable[[F], F]:
        """Register a handler: a function `(params, ctx)`, `(params)` or `()`, async or plain.

        The annotation of `params` says what they are read as: a dataclass, a pydantic model, a msgspec struct, any
        JSON type, `bytes`, or `BinaryIO` for a file. What it returns is written as JSON, bytes as they are, a
        `FileBody` as a stream. A plain function runs in a thread of its own.

        Args:
            name: of the command.
            timeout: seconds it may take, None for until the deadline; default: the worker's.

        Raises:
            ValueError: the name is taken.
            TypeError: it is no such function.
        """
        if name in self._handlers:
            raise ValueError(f"there is a handler for {name} already")

        def register(function: F) -> F:
            self._handlers[name] = self._handler(function, timeout)
            return function

        return register

    def any_command(self, *, timeout: float | str | None = "worker") -> Callable[[F], F]:
        """Register the handler of all commands that have none of their own; else they are answered UNKNOWN_COMMAND."""

        def register(function: F) -> F:
            self._any = self._handler(function, timeout)
            return function

        return register

    def _handler(self, function: Callable[..., Any], timeout: float | str | None) -> Handler:
        return handler_of(function, self._timeout if isinstance(timeout, str) else timeout)

    # --- running

    async def run(self, *, commands_max: float = float("inf"), signals: bool = False) -> None:
        """Work until `stop`, a signal, or `commands_max` commands; trouble with the service is waited out.

        When it is cancelled, handlers are stopped at once and their commands given back.

        Args:
            commands_max: how many commands to take.
            signals: let SIGTERM and Ctrl-C call `stop`, and a second one stop at once. In the main thread only.

        Raises:
            ArcError: the service refuses us: a wrong token, say.
        """
        draining = self._draining = anyio.CancelScope()
        async with self._connect() as client:
            settings = Settings(commands_max=commands_max, **self._settings)
            agent = self._agent = Agent(client, settings, self._handler_of, self._notes)
            try:
                async with anyio.create_task_group() as everything:
                    if signals:
                        everything.start_soon(self._obey_signals, everything.cancel_scope)
                    agent.begin(everything)
                    await self._wind_down(agent, draining)
                    everything.cancel_scope.cancel()
            finally:
                self._agent = None
                with anyio.move_on_after(RELEASE_SECONDS_MAX, shield=True):
                    await agent.last_report()
        if agent.refusal is not None:
            raise agent.refusal

    async def _wind_down(self, agent: Agent, draining: anyio.CancelScope) -> None:
        """From the end of taking commands to the last answer."""
        await agent.stopped()
        if agent.refusal is not None:
            draining.deadline = anyio.current_time() + self._drain_seconds
        with draining:
            await agent.drained()
        agent.end_all()
        with anyio.move_on_after(FLUSH_SECONDS_MAX):
            await agent.answered()

    def stop(self) -> None:
        """Take no more commands; running handlers get `drain_seconds`, then their commands are given back.

        To be called in the event loop that `run` runs in.
        """
        if self._agent is not None and self._draining is not None:
            self._draining.deadline = anyio.current_time() + self._drain_seconds
            self._agent.stop()

    @property
    def running(self) -> int:
        """How many commands are being worked on."""
        return self._agent.running if self._agent else 0

    def main(self, *, backend: str = "asyncio") -> None:
        """`run` with signals, from a plain script. backend: asyncio or trio."""

        async def main() -> None:
            await self.run(signals=True)

        anyio.run(main, backend=backend)

    async def _obey_signals(self, scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
            await self._obey(received, scope)

    async def _obey(self, received: AsyncIterator[signal.Signals], scope: anyio.CancelScope) -> None:
        told = False
        async for _ in received:
            if told:
                scope.cancel()
            told = True
            self.stop()

    def _handler_of(self, command: str) -> Handler | None:
        return self._handlers.get(command, self._any)


def target_of(target: TargetLike) -> Target:
    """A target from what people write. Raises ValueError."""
    if isinstance(target, str):
        return Target(target, "daemon")
    found = Target(*target) if isinstance(target, tuple) else target
    if found.resource_type not in get_args(ResourceType):
        raise ValueError(f"the type of a target is one of {', '.join(get_args(ResourceType))}")
    return found


def _log_outcome(outcome: Outcome) -> None:
    log.info("%s %s, attempt %d: %s", outcome.command_id, outcome.command, outcome.attempt, outcome.result)


def _log_trouble(trouble: ArcError | None) -> None:
    if trouble is None:
        log.warning("The service answers again")
    else:
        log.warning("%s; trying again until it works", trouble)
