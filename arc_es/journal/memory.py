"""The journal in memory: the verified twin of the JetStream one, for tests and for trying things out.

It passes the same contract suite (`tests/contract/`). Nothing survives the process. Faults are switched on by setting
`MemoryJournal.fault`.
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import Callable, Sequence

import trio

from arc_es.domain.recorded import CommandKey, Key
from arc_es.journal.room import Bound, Room
from arc_es.ports import (
    Append,
    AppendOutcome,
    Conflict,
    Handle,
    JournalClosed,
    JournalFull,
    JournalUnavailable,
    Message,
    OutcomeUnknown,
)

RECORD_BYTES = 256
"""What a message takes beside what it says, about as in JetStream."""
_FOLLOW_SLICE = 256
"""Messages handed to a follower before other tasks get to run."""


class Fault(enum.Enum):
    """What is wrong with a `MemoryJournal`."""

    LOST_ACK = "lost ack"
    """Appends are stored, but their outcome is unknown."""
    LOST_SEND = "lost send"
    """Appends are not stored, and their outcome is unknown."""
    FULL = "full"
    """Appends are refused for want of room."""
    UNAVAILABLE = "unavailable"
    """Nothing can be reached."""


class MemoryJournal:
    """A `Journal` in a list. `fault` is what is wrong with it now, None if nothing is; bytes_max may be changed."""

    def __init__(self, bytes_max: int | None = None, headroom_bytes: int = -1) -> None:
        self.fault: Fault | None = None
        self.bytes_max = bytes_max
        self._bytes = 0
        self._room = Room(headroom_bytes)
        self._messages: list[tuple[Key | None, bytes]] = []  # index is position - 1; no key: a body, or purged
        self._bodies: dict[Key, list[int]] = {}
        self._erasures: list[tuple[int, Key]] = []
        self._purged: set[int] = set()
        self._histories: dict[Key, list[int]] = {}
        self._end = 0
        self._grown = trio.Event()
        self._closed = False
        self._identity = secrets.token_hex(8)

    @property
    def spacious(self) -> bool:
        self._room.looked([] if self.bytes_max is None else [Bound(self.bytes_max, self._bytes)])
        return self._room.spacious

    def reserve_for(self, live: Callable[[], int]) -> None:
        self._room.live = live

    @property
    def available(self) -> bool:
        return self.fault is not Fault.UNAVAILABLE and not self._closed

    def close(self) -> None:
        """Refuse further use."""
        self._closed = True

    async def append(self, appends: Sequence[Append]) -> list[AppendOutcome]:
        if self._closed:
            raise JournalClosed("The journal is closed")
        await trio.lowlevel.checkpoint()
        outcomes = [self._append(item) for item in appends]
        self._grown.set()
        self._grown = trio.Event()
        return outcomes

    def _append(self, item: Append) -> AppendOutcome:
        if self.fault is Fault.UNAVAILABLE:
            return JournalUnavailable("The journal is switched off")
        if self.fault is Fault.FULL:
            return JournalFull("The journal has no room")
        if self.fault is Fault.LOST_SEND:
            return OutcomeUnknown("The journal did not answer")
        parts = (*item.together, item)
        if any(self._version(part.key) != part.expected for part in parts):
            outcome: AppendOutcome = Conflict("Another message came first")
        elif self.bytes_max is not None and self._bytes + sum(map(_size_bytes, parts)) > self.bytes_max:
            return JournalFull("The journal has no room")
        else:
            outcome = [self._store(part) for part in parts][-1]
        if self.fault is Fault.LOST_ACK:
            return OutcomeUnknown("The journal did not answer")
        return outcome

    def _version(self, key: Key) -> int:
        history = self._histories.get(key)
        return history[-1] if history else 0

    def _store(self, item: Append) -> int:
        self._bytes += _size_bytes(item)
        if item.body is not None:
            self._messages.append((None, item.body))
            self._bodies.setdefault(item.key, []).append(len(self._messages))
            if item.body_kind == "erased":
                self._erasures.append((len(self._messages), item.key))
        self._messages.append((item.key, item.payload))
        self._end = len(self._messages)
        self._histories.setdefault(item.key, []).append(self._end)
        return self._end

    async def _reach(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise JournalClosed("The journal is closed")
        if self.fault is Fault.UNAVAILABLE:
            raise JournalUnavailable("The journal is switched off")

    async def read(self, positions: Sequence[int]) -> list[bytes | None]:
        await self._reach()
        stored = len(self._messages)
        return [self._messages[at - 1][1] if 0 < at <= stored and at not in self._purged else None for at in positions]

    async def last(self, key: Key) -> Message | None:
        await self._reach()
        history = self._histories.get(key)
        return self._message(key, history[-1]) if history else None

    async def history(self, key: Key) -> list[Message]:
        await self._reach()
        return [self._message(key, at) for at in self._histories.get(key, [])]

    async def page(self, after: int, limit: int, bytes_max: int) -> list[Message]:
        await self._reach()
        page: list[Message] = []
        size = 0
        at = after
        while at < len(self._messages) and len(page) < limit and size < bytes_max:
            key, payload = self._messages[at]
            at += 1
            if key is not None:
                page.append(Message(at, key, payload))
                size += len(payload)
        return page

    async def erasures(self, after: int) -> list[Message]:
        await self._reach()
        return [self._message(key, at) for at, key in self._erasures if at > after][:_FOLLOW_SLICE]

    async def purge(self, key: CommandKey, before: int) -> None:
        await self._reach()
        for positions in (self._histories.get(key, []), self._bodies.get(key, [])):
            gone = [at for at in positions if at < before]
            positions[:] = [at for at in positions if at >= before]
            for at in gone:
                self._bytes -= RECORD_BYTES + len(self._messages[at - 1][1])
                self._messages[at - 1] = (None, b"")
            self._purged.update(gone)

    def _message(self, key: Key, position: int) -> Message:
        return Message(position, key, self._messages[position - 1][1])

    async def end(self) -> int:
        await self._reach()
        return self._end

    async def identity(self) -> str:
        await self._reach()
        return self._identity

    async def follow(self, after: int, handle: Handle) -> None:
        at = after
        while True:
            await trio.lowlevel.checkpoint()
            grown = self._grown
            if self.available:
                for key, payload in self._messages[at : at + _FOLLOW_SLICE]:
                    at += 1
                    if key is not None:
                        handle(at, key, payload)
            if at >= len(self._messages) or not self.available:
                await grown.wait()


def _size_bytes(item: Append) -> int:
    bodies_bytes = 0 if item.body is None else RECORD_BYTES + len(item.body)
    return RECORD_BYTES + len(item.payload) + bodies_bytes
