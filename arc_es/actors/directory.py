"""Mailboxes of commands: whoever wants something of a command takes turns, in order of arrival.

A mailbox exists only while somebody has its turn or waits for it. An uncontended turn costs two dict operations and
runs in the caller's own task: no actor task is started that nothing waits for.
"""

from __future__ import annotations

from collections import deque
from types import TracebackType

import trio

from arc_es.domain.limits import REQUESTS_PER_COMMAND_MAX
from arc_es.domain.recorded import Key
from arc_es.ports import Overloaded


class Directory:
    """All live mailboxes, bounded in number."""

    def __init__(self, actors_max: int) -> None:
        self._actors_max = actors_max
        self._mailboxes: dict[Key, deque[trio.Event] | None] = {}

    def __len__(self) -> int:
        return len(self._mailboxes)

    def __contains__(self, key: Key) -> bool:
        """Whether somebody has a turn of this history."""
        return key in self._mailboxes

    def turn(self, key: Key) -> Turn:
        """An async context manager: inside it, nobody else has a turn of this history."""
        return Turn(self, key)

    def try_acquire(self, key: Key) -> bool:
        """Take the turn if it is free now; the caller must `release` it.

        Raises:
            Overloaded: too many turns are under way.
        """
        if key in self._mailboxes:
            return False
        if len(self._mailboxes) >= self._actors_max:
            raise Overloaded("Too many commands are being changed at once")
        self._mailboxes[key] = None
        return True

    async def acquire(self, key: Key) -> None:
        """Wait for the turn. Raises Overloaded if too many are under way, or waiting for this one."""
        if self.try_acquire(key):
            return
        waiting = self._mailboxes[key]
        if waiting is None:
            waiting = self._mailboxes[key] = deque()
        if len(waiting) >= REQUESTS_PER_COMMAND_MAX:
            raise Overloaded("Too many requests for one command at once")
        my_turn = trio.Event()
        waiting.append(my_turn)
        try:
            await my_turn.wait()
        except trio.Cancelled:
            if my_turn.is_set():
                self.release(key)  # the turn was handed over while this task was being cancelled
            else:
                waiting.remove(my_turn)
            raise

    def release(self, key: Key) -> None:
        """End the turn: the next in line has it, or the mailbox retires."""
        waiting = self._mailboxes[key]
        if waiting:
            waiting.popleft().set()
        else:
            del self._mailboxes[key]


class Turn:
    """One turn at one history."""

    __slots__ = ("_directory", "_key")

    def __init__(self, directory: Directory, key: Key) -> None:
        self._directory = directory
        self._key = key

    async def __aenter__(self) -> None:
        await self._directory.acquire(self._key)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._directory.release(self._key)
