"""The one loop that feeds every projection: own writes and other nodes' alike, at start and for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import trio

from arc_es.actors.messages import Messages
from arc_es.codec import decode_recorded
from arc_es.domain.recorded import Decision, Key, Recorded
from arc_es.ports import Journal, JournalClosed, JournalUnavailable
from arc_es.views import ReadModels

RETRY_SECONDS: Final = 0.2
APPLY_SECONDS_MAX: Final = 10.0
"""How long what is stored may take to come back. Not for ever: somebody holds a turn, or waits for an answer."""

EXPECTED_MAX: Final = 4_000
"""Own messages under way whose meaning is remembered; of others it is read from their bytes, as of everybody else's."""


class Follower:
    """Applies the journal to the read models, in order, and wakes those who wait for a position."""

    def __init__(self, journal: Journal, models: ReadModels, messages: Messages) -> None:
        self._journal = journal
        self._models = models
        self._messages = messages
        self._waiting: dict[int, trio.Event] = {}
        self._watching: dict[Key, trio.Event] = {}
        self._expected: dict[bytes, Decision] = {}
        self._caught_up = trio.Event()
        self._ended = False
        self._started = time.monotonic()
        self._resumed_at = 0
        self._events_before = 0
        self.ready = False
        """Whether everything that was stored before the start has been applied."""
        self.applied = 0
        self.tip = b""
        """What the message at `applied` says."""
        self.target = 0
        self.on_leasable: Callable[[str], None] = lambda command_id: None
        self.on_applied: Callable[[], None] = lambda: None
        self.on_stored: Callable[[bool], None] = lambda ready: None
        """Called after each message, also while the replay at start runs; `ready`: it is done."""
        self.on_message: Callable[[int, Key, bytes], None] = lambda position, key, payload: None

    def resume(self, position: int) -> None:
        """Begin after this position, not at the beginning: everything up to it is in the read models already."""
        self.applied = self._resumed_at = position
        self._events_before = self._models.stats.events
        self._started = time.monotonic()

    async def wait_ready(self) -> None:
        """Wait until the replay at start is done."""
        await self._caught_up.wait()

    def progress(self) -> dict[str, float | int | None]:
        """How far the replay is: applied and target positions, events/s, seconds still to go (None: not known yet)."""
        seconds = max(time.monotonic() - self._started, 1e-6)
        rate = (self._models.stats.events - self._events_before) / seconds
        tail = self.target - self._resumed_at
        share = (self.applied - self._resumed_at) / tail if tail > 0 else float(self.ready)
        eta = seconds * (1 - share) / share if share else None
        return {
            "applied": self.applied,
            "target": self.target,
            "eventsPerSecond": round(rate),
            "etaSeconds": None if eta is None else round(eta, 1),
        }

    async def run(self) -> None:
        """Follow the journal for ever. What cannot be folded ends the service: a wrong state must not answer."""
        try:
            await self._follow()
        finally:
            self._ended = True
            for event in self._waiting.values():
                event.set()

    async def _follow(self) -> None:
        while True:
            try:
                self.target = await self._journal.end()
            except JournalUnavailable:
                await trio.sleep(RETRY_SECONDS)
            else:
                break
        self._models.begin_replay(self.target - self.applied)
        if self.target <= self.applied:
            self._become_ready()
        await self._journal.follow(self.applied, self._handle)

    async def reached(self, position: int) -> None:
        """Wait until the message at this position has been applied: read your own writes.

        Raises:
            JournalClosed: the following has ended, so it never will be.
            JournalUnavailable: the journal does not deliver it in `APPLY_SECONDS_MAX`.
        """
        if position <= self.applied:
            return
        if self._ended:
            raise JournalClosed("Nothing is applied any more")
        event = self._waiting.get(position)
        if event is None:
            event = self._waiting[position] = trio.Event()
        with trio.move_on_after(APPLY_SECONDS_MAX):
            await event.wait()
        if position > self.applied:
            if self._ended:
                raise JournalClosed("Nothing is applied any more")
            raise JournalUnavailable("The journal does not deliver what it stored")

    async def changed(self, key: Key) -> None:
        """Wait for the next message of one history."""
        event = self._watching.get(key)
        if event is None:
            event = self._watching[key] = trio.Event()
        try:
            await event.wait()
        finally:
            if self._watching.get(key) is event and not event.statistics().tasks_waiting:
                del self._watching[key]  # a history may never change again

    async def caught_up(self) -> None:
        """Wait until all that is stored now has been applied. Raises as `reached`."""
        await self.reached(await self._journal.end())

    async def caught_up_with(self, key: Key) -> None:
        """Wait until all that is stored of one history now has been applied. Raises as `reached`."""
        last = await self._journal.last(key)
        if last is not None:
            await self.reached(last.position)

    def _become_ready(self) -> None:
        self._models.end_replay()
        self.ready = True
        self._caught_up.set()

    def expect(self, payload: bytes, decision: Decision) -> None:
        """Say what these bytes mean, which are about to be stored: when they come back, nobody has to read them."""
        self._expected[payload] = decision
        if len(self._expected) > EXPECTED_MAX:
            del self._expected[next(iter(self._expected))]

    def _recorded(self, position: int, key: Key, payload: bytes) -> Recorded:
        decision = self._expected.pop(payload, None)
        if decision is None:
            return decode_recorded(position, key, payload)
        return Recorded(position, key, decision.at, decision.events)

    def _handle(self, position: int, key: Key, payload: bytes) -> None:
        leasable = self._models.apply(self._recorded(position, key, payload))
        self.applied = position
        self.tip = payload
        self.on_stored(self.ready)
        if not self.ready:
            if position >= self.target:
                self._become_ready()
            return
        self._messages.put(position, payload)
        self.on_message(position, key, payload)
        event = self._waiting.pop(position, None)
        if event is not None:
            event.set()
        watched = self._watching.pop(key, None)
        if watched is not None:
            watched.set()
        if leasable is not None:
            self.on_leasable(leasable)
        self.on_applied()
