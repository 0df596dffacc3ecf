"""What a handler is told about its command, and what it may do beside returning a result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime
from typing import Any, ParamSpec, Protocol, TypeVar

import anyio.from_thread
import anyio.to_thread
from anyio.lowlevel import EventLoopToken

from arc_es.client.lease import Lease
from arc_es.client.notes import Notes

P = ParamSpec("P")
T = TypeVar("T")


class CommandError(Exception):
    """Raised by a handler: the answer is this error, and the command is not tried again.

    code: for programs, such as DB_DOWN. message, details: for people.
    """

    def __init__(self, code: str, message: str, details: str | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.details = details


class GiveBack(Exception):
    """Raised by a handler: not now, or not here. The command goes back to its queue, and counts one attempt more."""

    def __init__(self, delay_seconds: int = 0) -> None:
        """delay_seconds: how long nobody gets it."""
        super().__init__(f"given back for {delay_seconds} s")
        self.delay_seconds = delay_seconds


class Stopped(Exception):
    """Raised by `SyncContext` in a handler that runs in a thread: nobody waits for its result any more.

    Clean up, and let it pass.
    """


class Running(Protocol):
    """What a context needs of the run that it belongs to; used in the event loop only."""

    lease: Lease
    until_answered: ExitStack

    def remaining_seconds(self) -> float:
        """Seconds until the handler is stopped."""

    def alive(self) -> bool:
        """Note a sign of life; whether the result is still wanted."""


class _Facts:
    """What is known of the command. The same in every attempt but for `attempt`."""

    def __init__(self, running: Running, notes: Notes) -> None:
        self._running = running
        self._notes = notes

    @property
    def command_id(self) -> str:
        """Id of the command; a good key for what must be done once."""
        return self._running.lease.command_id

    @property
    def command(self) -> str:
        """Name of the command."""
        return self._running.lease.command

    @property
    def deployment(self) -> str:
        """The deployment that it belongs to."""
        return self._running.lease.deployment_id

    @property
    def attempt(self) -> int:
        """1 for the first delivery. Above 1 an earlier attempt may have done some or all of the work."""
        return self._running.lease.attempt

    @property
    def deadline(self) -> datetime | None:
        """When the caller loses interest, by the clock of the service."""
        return self._running.lease.deadline

    @property
    def trace(self) -> Mapping[str, str]:
        """W3C `traceparent` and `tracestate` of the caller, if it sent them."""
        trace: Mapping[str, str] = self._running.lease.envelope.get("traceContext") or {}
        return trace

    @property
    def envelope(self) -> Mapping[str, Any]:
        """All that the service said (`arc.v1` 3.9)."""
        return self._running.lease.envelope

    @property
    def until_answered(self) -> ExitStack:
        """What is entered here is closed once the answer has been sent, uploads included."""
        return self._running.until_answered


class Context(_Facts):
    """The command that an `async` handler works on. Cancellation arrives where it awaits."""

    @property
    def remaining_seconds(self) -> float:
        """Until the handler is stopped: its time limit, the deadline, or the end of a lease that cannot be renewed."""
        return self._running.remaining_seconds()

    async def read_note(self) -> bytes | None:
        """What an earlier attempt on this machine wrote down, None if nothing. Raises OSError."""
        return await anyio.to_thread.run_sync(self._notes.read, self.command_id)

    async def write_note(self, note: bytes) -> None:
        """Keep a note (to 64 KiB) for later attempts on this machine; it replaces the one before.

        Raises:
            OSError: the disk does not take it.
            ValueError: it is too long.
        """
        await anyio.to_thread.run_sync(self._notes.write, self.command_id, note)


class SyncContext(_Facts):
    """The command that a plain handler works on, in a thread of its own.

    A thread cannot be cancelled from outside, and one that hangs looks like one that works. So its lease is renewed
    only when it says that it is alive.
    """

    def __init__(self, running: Running, notes: Notes, token: EventLoopToken) -> None:
        super().__init__(running, notes)
        self._token = token

    @property
    def remaining_seconds(self) -> float:
        """Until the answer is HANDLER_TIMEOUT, if there is no `alive` before."""
        return self._ask(self._running.remaining_seconds)

    def alive(self) -> None:
        """Say that the work goes on; call it more often than a third of the lease.

        Raises:
            Stopped: the command was cancelled, or its time is up.
        """
        if not self._ask(self._running.alive):
            raise Stopped("The result is not wanted any more")

    def read_note(self) -> bytes | None:
        """What an earlier attempt on this machine wrote down, None if nothing. Raises OSError."""
        return self._notes.read(self.command_id)

    def write_note(self, note: bytes) -> None:
        """Keep a note (to 64 KiB) for later attempts on this machine; it replaces the one before.

        Raises:
            OSError: the disk does not take it.
            ValueError: it is too long.
        """
        self._notes.write(self.command_id, note)

    def _ask(self, question: Callable[[], T]) -> T:
        """Asked in the event loop, which owns the answers."""
        try:
            return anyio.from_thread.run_sync(question, token=self._token)
        except anyio.RunFinishedError as error:
            raise Stopped("The worker has ended") from error
