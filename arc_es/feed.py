"""The feed: all events of all histories, in order, for as many readers as allowed, each at its own pace.

Readers pull. What happened lately is in one ring, bounded in bytes and filled by the follower; each message is turned
into JSON at most once, for all who read it there. What is older comes in pages from the journal, one page at a time for
all readers together, so that those who read old history leave the service room to work. Nothing is kept for a reader.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import orjson
import trio

from arc_es.actors.follower import Follower
from arc_es.actors.long_waits import LongWaits
from arc_es.codec import decode, redacted
from arc_es.domain import limits
from arc_es.domain.ids import Micros, Target
from arc_es.domain.recorded import CommandKey, DeploymentKey, Key, PayloadKey
from arc_es.domain.tokens import Grant
from arc_es.event_json import event_entries
from arc_es.lookup import Lookup
from arc_es.ports import Journal, Message, Overloaded
from arc_es.views import ReadModels

SLICE_MESSAGES: Final = 128
"""Messages that are looked at before other tasks get to run."""
READ_MESSAGES: Final = 512
"""Messages read from the journal at a time."""
READ_BYTES: Final = 1024 * 1024
_OVERHEAD_BYTES: Final = 1_000
"""What a message in the ring takes beside twice its size: itself, and as JSON."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events a reader gets: what its token covers, and of that what it asked for. None: all of them."""

    grant: Grant
    deployment_id: str | None = None
    command_id: str | None = None
    type: str | None = None

    def names(self, key: Key) -> bool:
        """Whether the reader asked for events of this history."""
        of_deployment = key.deployment_id if isinstance(key, CommandKey | DeploymentKey) else None
        of_command = key.command_id if isinstance(key, CommandKey | PayloadKey) else None
        return self.deployment_id in (None, of_deployment) and self.command_id in (None, of_command)


@dataclass(frozen=True, slots=True)
class Told:
    """What a reader gets of one decision: its events, or some of them, as Event JSON."""

    position: int
    events: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Decisions in order. next: go on after this position. is_end: nothing more had been applied."""

    decisions: list[Told]
    next: int
    is_end: bool


@dataclass(slots=True)
class _Entry:
    """A message; its events as (type, JSON) once somebody has asked for them."""

    message: Message
    _events: list[tuple[str, bytes]] | None = field(default=None)

    def erased(self) -> _Entry:
        """What is public of it."""
        return _Entry(Message(self.message.position, self.message.key, redacted(self.message.payload)))

    @property
    def events(self) -> list[tuple[str, bytes]]:
        if self._events is None:
            entries = event_entries(self.message, decode(self.message.payload))
            self._events = [(entry["type"], orjson.dumps(entry)) for entry in entries]
        return self._events


class Ring:
    """The newest event messages without a gap, the oldest of them making room."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._entries: list[_Entry | None] = []
        self._positions: list[int] = []
        self._first = 0
        self._floor = math.inf
        """Everything after this position is here."""
        self.has_all = True
        """Whether nothing had to make room yet."""

    def put(self, message: Message) -> None:
        """Add the next message."""
        if not self._positions:
            self._floor = message.position - 1
        self._entries.append(_Entry(message))
        self._positions.append(message.position)
        self._bytes += _size_bytes(message)
        while self._bytes > self._bytes_max:
            self._drop()

    def _drop(self) -> None:
        dropped = self._entries[self._first]
        assert dropped is not None
        self._entries[self._first] = None
        self._bytes -= _size_bytes(dropped.message)
        self._floor = dropped.message.position
        self.has_all = False
        self._first += 1
        if 2 * self._first > len(self._entries) and len(self._entries) > SLICE_MESSAGES:
            del self._entries[: self._first], self._positions[: self._first]
            self._first = 0

    def erase(self, key: Key) -> None:
        """Keep only what is public of one history."""
        for index, entry in enumerate(self._entries):
            if entry is not None and entry.message.key == key:
                left = self._entries[index] = entry.erased()
                self._bytes += _size_bytes(left.message) - _size_bytes(entry.message)

    def reaches(self, after: int) -> bool:
        """Whether everything after this position is here."""
        return after >= self._floor

    def after(self, position: int, count: int) -> list[_Entry]:
        """The first entries after a position that it reaches."""
        start = bisect_right(self._positions, position, lo=self._first)
        return [entry for entry in self._entries[start : start + count] if entry is not None]


class Past:
    """What was read from the journal last: a reader rarely takes all of it at once, and comes back for the rest."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._one_at_a_time = trio.Lock()
        self._after = 0
        self._entries: list[_Entry] = []

    def erase(self, key: Key) -> None:
        """Keep only what is public of one history."""
        self._entries = [entry.erased() if entry.message.key == key else entry for entry in self._entries]

    async def after(self, position: int, count: int) -> list[_Entry]:
        """The first entries after a position; none at the end of the journal. Raises JournalUnavailable."""
        async with self._one_at_a_time:
            if not self._entries or not self._after <= position < self._entries[-1].message.position:
                messages = await self._journal.page(position, READ_MESSAGES, READ_BYTES)
                self._after, self._entries = position, [_Entry(message) for message in messages]
            start = bisect_right(self._entries, position, key=lambda entry: entry.message.position)
            return self._entries[start : start + count]

    async def before(self, at: Micros, end: int) -> int:
        """The position right after which comes what was decided at this time or later, as far as clocks only go on.

        end: where to go no further. Halves what is left with each read. Raises JournalUnavailable.
        """
        low, high = 0, end
        while low < high:
            middle = (low + high) // 2
            async with self._one_at_a_time:
                found = await self._journal.page(middle, 1, READ_BYTES)
            if not found or found[0].position > high or decode(found[0].payload).at >= at:
                high = middle
            else:
                low = found[0].position
        return low


def _size_bytes(message: Message) -> int:
    return 2 * len(message.payload) + _OVERHEAD_BYTES


class Feed:
    """The use-case of reading the feed. Fills its ring from the follower."""

    def __init__(
        self,
        *,
        journal: Journal,
        models: ReadModels,
        follower: Follower,
        lookup: Lookup,
        long_waits: LongWaits,
        ring_bytes_max: int = limits.FEED_RING_BYTES_MAX,
        readers_max: int = limits.FEED_READERS_MAX,
    ) -> None:
        self._deployments = models.deployments
        self._follower = follower
        self._lookup = lookup
        self._long_waits = long_waits
        self._ring = Ring(ring_bytes_max)
        self._past = Past(journal)
        self._news: trio.Event | None = None
        self._readers = 0
        self._readers_max = readers_max
        follower.on_message = self._take

    def _take(self, position: int, key: Key, payload: bytes) -> None:
        self._ring.put(Message(position, key, payload))
        if self._news is not None:
            self._news.set()
            self._news = None

    def erase(self, key: Key) -> None:
        """Keep only what is public of one history."""
        self._ring.erase(key)
        self._past.erase(key)

    async def page(self, after: int, wanted: Wanted, events_max: int, bytes_max: int) -> Page:
        """What a reader gets next after a position; decisions are never split.

        It ends with `events_max` events or about `bytes_max`, though it may be one whole decision above that, and
        after `FEED_SCAN_MAX` messages, whatever they were.

        Raises:
            JournalUnavailable: older messages cannot be read now.
        """
        decisions: list[Told] = []
        at, scanned, count, size = after, 0, 0, 0
        while scanned < limits.FEED_SCAN_MAX:
            entries = await self._slice(at)
            if not entries:
                return Page(decisions, at, is_end=True)
            for entry in entries:
                events = await self._told(entry, wanted)
                if count and count + len(events) > events_max:
                    return Page(decisions, at, is_end=False)
                at = entry.message.position
                if events:
                    decisions.append(Told(at, events))
                    count, size = count + len(events), size + sum(map(len, events))
                if count >= events_max or size >= bytes_max:
                    return Page(decisions, at, is_end=at >= self._follower.applied)
            scanned += len(entries)
        return Page(decisions, at, is_end=at >= self._follower.applied)

    async def before(self, at: Micros) -> int:
        """The position after which comes what was decided at this time or later. Raises JournalUnavailable."""
        return await self._past.before(at, self._follower.applied)

    async def _slice(self, after: int) -> Sequence[_Entry]:
        """The next applied messages after a position; none at the end."""
        await trio.lowlevel.checkpoint()
        if after >= self._follower.applied:
            return ()
        if self._ring.reaches(after):
            return self._ring.after(after, SLICE_MESSAGES)
        entries = await self._past.after(after, SLICE_MESSAGES)
        return [entry for entry in entries if entry.message.position <= self._follower.applied]

    async def _told(self, entry: _Entry, wanted: Wanted) -> tuple[bytes, ...]:
        key = entry.message.key
        if not wanted.names(key) or not await self._covers(wanted.grant, key):
            return ()
        return tuple([event for name, event in entry.events if wanted.type in (None, name)])

    async def _covers(self, grant: Grant, key: Key) -> bool:
        """Administrators see everything; others what happens to commands within reach, auditors also to deployments."""
        if grant.allows("administer"):
            return True
        if isinstance(key, DeploymentKey):
            return grant.scope == "auditor" and grant.covers_deployment(key.deployment_id)
        if not isinstance(key, CommandKey):
            return False
        if grant.targets is None:
            return grant.covers_deployment(key.deployment_id)
        if not grant.covers_deployment(key.deployment_id):
            return False
        row = await self._lookup.found(key.command_id)
        if row is None:
            return False
        route = row.state.facts.route
        kind = route.target_type or self._deployments.type_of(route.deployment_id, route.target_id)
        return grant.covers(route.deployment_id, Target(route.target_id, kind))

    # --- reading on and on

    @property
    def draining(self) -> bool:
        """Whether readers are to end now."""
        return self._long_waits.draining

    def need_reader(self) -> None:
        """See that there is room for one more reader. Raises Overloaded."""
        if self._readers >= self._readers_max:
            raise Overloaded("Too many readers follow the feed")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Counts as a reader."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1

    def keeps(self, position: int) -> bool:
        """Whether a reader that has been at the end, and is at this position now, is not too far behind."""
        ring = self._ring
        return position >= self._follower.applied or ring.reaches(position) or ring.has_all

    async def news(self, position: int, deadline: float) -> None:
        """Wait until something after a position has been applied, or the deadline, or the service drains."""
        with self._long_waits.until(deadline):
            while position >= self._follower.applied:
                if self._news is None:
                    self._news = trio.Event()
                await self._news.wait()
