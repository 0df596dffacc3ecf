"""`SyncCaller`: a `Caller` for scripts without an event loop; it runs one in a thread."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self

from anyio.from_thread import BlockingPortal, start_blocking_portal

from arc_es.client.caller import CALL_SECONDS, Caller, Command
from arc_es.client.lease import JsonObject


class SyncCaller:
    """Creates commands and waits for their results; a context manager that may be used from many threads."""

    def __init__(self, url: str, token: str | None = None, *, backend: str = "asyncio", **options: Any) -> None:
        """Arguments are those of `Caller`. backend: what runs in the thread, asyncio or trio."""
        self._caller = Caller(url, token, **options)
        self._backend = backend
        self._closing = ExitStack()
        self._portal: BlockingPortal | None = None

    def __enter__(self) -> Self:
        """Start the thread."""
        self._portal = self._closing.enter_context(start_blocking_portal(self._backend, name="arc-es caller"))
        self._closing.enter_context(self._portal.wrap_async_context_manager(self._caller))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections and end the thread."""
        self._closing.__exit__(kind, error, trace)

    def call(self, deployment: str, command: str, params: Any = None, **options: Any) -> Any:
        """Run a command somewhere else and return its result; see `Caller.call`."""
        return self._do(partial(self._caller.call, deployment, command, params, **options))

    def create(self, deployment: str, command: str, params: Any = None, **options: Any) -> SyncCommand:
        """Create a command and do not wait for its result; see `Caller.create`."""
        return SyncCommand(self._do, self._do(partial(self._caller.create, deployment, command, params, **options)))

    def command(self, command_id: str) -> SyncCommand:
        """A command that was created earlier, or by somebody else."""
        return SyncCommand(self._do, self._caller.command(command_id))

    def _do(self, what: Callable[..., Any]) -> Any:
        if self._portal is None:
            raise RuntimeError("use it as `with SyncCaller(…) as arc:`")
        return self._portal.call(what)


class SyncCommand:
    """A command that was created; the methods of `Command`, blocking."""

    def __init__(self, do: Callable[[Callable[..., Any]], Any], command: Command) -> None:
        self._do = do
        self._command = command

    @property
    def id(self) -> str:
        """Its id."""
        return self._command.id

    @property
    def state(self) -> str:
        """As of the last status."""
        return self._command.state

    def refresh(self) -> JsonObject:
        """Ask for the status now."""
        found: JsonObject = self._do(self._command.refresh)
        return found

    def result(self, returns: Any = Any, *, timeout: float | None = CALL_SECONDS) -> Any:
        """Wait for the result."""
        return self._do(partial(self._command.result, returns, timeout=timeout))

    def cancel(self, reason: str | None = None) -> JsonObject:
        """Ask that nobody work on it any more; its status."""
        found: JsonObject = self._do(partial(self._command.cancel, reason))
        return found
