"""Appends to JetStream: group commit.

With `sync_interval: always` the disk sets the pace. So one group is under way at a time; what arrives meanwhile gathers
and leaves as the next group: as one atomic batch, or as single messages where those cost less (`pace`). A refused batch
stored nothing; its halves are then sent in the same way, and so on, until each member has an outcome of its own. The
smallest batch is one append with its body and what else belongs to it.

All but `append` and `watch` runs inside the bridge's loop, as plain calls.
"""

from __future__ import annotations

import itertools
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import orjson
import trio

from arc_es.domain.limits import APPENDS_QUEUED_BYTES_MAX, APPENDS_QUEUED_MAX
from arc_es.journal.pace import Pace
from arc_es.journal.room import Room
from arc_es.journal.subjects import STREAM, body_subject, event_subject
from arc_es.journal.watch import StreamWatch
from arc_es.nats_bridge import Bridge
from arc_es.nats_frames import NO_RESPONDERS, Incoming, status_of
from arc_es.ports import (
    Append,
    AppendOutcome,
    Conflict,
    JournalClosed,
    JournalError,
    JournalFull,
    JournalUnavailable,
    OutcomeUnknown,
)

APPEND_SECONDS: Final = 5.0
"""How long a group may be under way."""
QUEUE_SECONDS: Final = 10.0
"""How long an append may wait to be sent."""
WATCH_SECONDS: Final = 0.5
GROUP_MESSAGES_MAX: Final = 1_000
"""The server's limit on one atomic batch."""
GROUP_BYTES_MAX: Final = 4 * 1024 * 1024
MESSAGE_BYTES_MAX: Final = 2_500_000
"""Room for the largest decision, below the smallest `max_payload` that we accept."""

HEADER_EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"
HEADER_STREAM: Final = "Nats-Expected-Stream"
HEADER_ID: Final = "Nats-Msg-Id"
HEADER_BATCH: Final = "Nats-Batch-Id"
HEADER_BATCH_SEQUENCE: Final = "Nats-Batch-Sequence"
HEADER_BATCH_COMMIT: Final = "Nats-Batch-Commit"

WRONG_LAST_SEQUENCE: Final = 10071
WRONG_LAST_SEQUENCE_IN_FLIGHT: Final = 10164
DUPLICATE_IN_PROCESS: Final = 10158
LAST_SEQUENCE_UNKNOWN: Final = 10163
BATCH_HAS_DUPLICATE: Final = 10201
STORE_FAILED: Final = 10077
STORAGE_EXCEEDED: Final = 10047
ACCOUNT_LIMIT_EXCEEDED: Final = 10002
INSUFFICIENT_RESOURCES: Final = 10023

RECORD_BYTES: Final = 60
"""What a stored message takes beside its subject, headers and payload: the record, and the framing of headers."""

_MEANING: Final[dict[int, type[JournalError]]] = {
    WRONG_LAST_SEQUENCE: Conflict,
    WRONG_LAST_SEQUENCE_IN_FLIGHT: Conflict,
    DUPLICATE_IN_PROCESS: OutcomeUnknown,
    LAST_SEQUENCE_UNKNOWN: OutcomeUnknown,
    BATCH_HAS_DUPLICATE: OutcomeUnknown,
    STORE_FAILED: JournalFull,
    STORAGE_EXCEEDED: JournalFull,
    ACCOUNT_LIMIT_EXCEEDED: JournalFull,
    INSUFFICIENT_RESOURCES: JournalFull,
}
"""What an error number means; any other (10167 too many requests, batch limits, no leader …) is JournalUnavailable."""

_LOST: Final = "NATS did not say whether it stored the message"
_NOT_SENT: Final = "There is no connection to NATS"


@dataclass(slots=True, eq=False)
class _Call:
    """One call of `append`."""

    outcomes: list[AppendOutcome]
    left: int
    since: float
    items: deque[_Item] = field(default_factory=deque)
    done: trio.Event = field(default_factory=trio.Event)


@dataclass(slots=True, eq=False)
class _Item:
    """One append, at `index` of its call, with what is stored together with it. `messages` counts bodies too."""

    parts: tuple[Append, ...]
    subjects: tuple[str, ...]
    call: _Call
    index: int
    messages: int
    size_bytes: int


@dataclass(slots=True, eq=False)
class _Flight:
    """A group under way: items without an outcome, where their answers arrive, how it was sent."""

    since: float
    left: set[_Item]
    singles: int = 0
    split: bool = False
    inboxes: set[str] = field(default_factory=set)


_Settle: TypeAlias = Callable[[int | JournalError], None]
"""Takes the position of the last message sent, or why there is none."""
_Frame: TypeAlias = tuple[str, bytes, dict[str, str]]


class Pump:
    """Sends appends in groups. Whoever makes one runs `watch` in a task."""

    def __init__(self, bridge: Bridge, room: Room, watch: StreamWatch) -> None:
        self._bridge = bridge
        self._room = room
        self._watch = watch
        self._calls: deque[_Call] = deque()
        self._queued = self._queued_bytes = 0
        self._flight: _Flight | None = None
        self._pace = Pace()
        self._woken = False
        self._closed = False
        self._batch_ids = itertools.count(1)
        self._batch_prefix = secrets.token_hex(6)
        bridge.on_lost(self._lost)

    async def append(self, appends: Sequence[Append]) -> list[AppendOutcome]:
        """See `ports.Journal.append`. To cancel it leaves open whether what was sent already is stored."""
        if self._closed:
            raise JournalClosed("The journal is closed")
        if not appends:
            return []
        call = _Call([0] * len(appends), len(appends), trio.current_time())
        call.items.extend(_item(call, index, append) for index, append in enumerate(appends))
        try:
            await self._watch.wait_checked()
        except JournalUnavailable as trouble:
            return [trouble] * len(appends)
        size_bytes = sum(item.size_bytes for item in call.items)
        if not self._room.fits(self._queued_bytes + size_bytes):
            return [JournalFull("The disk of the journal is nearly full")] * len(appends)
        if self._queued and (
            self._queued + len(appends) > APPENDS_QUEUED_MAX
            or self._queued_bytes + size_bytes > APPENDS_QUEUED_BYTES_MAX
        ):
            return [JournalUnavailable("Too many appends wait already")] * len(appends)
        self._calls.append(call)
        self._queued += len(appends)
        self._queued_bytes += size_bytes
        self._wake()
        try:
            await call.done.wait()
        finally:
            while call.items:  # only a cancelled call has any left, and they are not sent
                self._next_of(call)
        return call.outcomes

    async def watch(self) -> None:
        """Give up on what takes too long, for ever."""
        while True:
            await trio.sleep(WATCH_SECONDS)
            now = trio.current_time()
            if self._flight is not None and self._flight.since < now - APPEND_SECONDS:
                self._give_up(self._flight)
                self._watch.answered(answered=False)
            while self._calls and self._calls[0].since < now - QUEUE_SECONDS:
                self._refuse(self._calls.popleft(), "NATS is too slow; the message was not sent")

    def close(self) -> None:
        """Refuse further appends and end those that wait."""
        self._closed = True
        self._lost()

    # --- inside the loop

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._bridge.soon(self._step)

    def _step(self) -> None:
        self._woken = False
        if self._flight is not None:
            return
        group = self._gather()
        if not group:
            return
        self._flight = flight = _Flight(trio.current_time(), set(group))
        self._send(flight, group)

    def _gather(self) -> list[_Item]:
        """Take the next group off the queue: whole calls while they fit, a part only of one that never would."""
        group: list[_Item] = []
        subjects: set[str] = set()
        messages = size_bytes = 0
        while self._calls:
            call = self._calls[0]
            if group and not _fits(call.items, messages, size_bytes):
                break
            while call.items:
                item = call.items[0]
                messages += item.messages
                size_bytes += item.size_bytes
                is_full = messages > GROUP_MESSAGES_MAX or size_bytes > GROUP_BYTES_MAX
                if group and (is_full or not subjects.isdisjoint(item.subjects)):
                    return group
                subjects.update(item.subjects)
                group.append(self._next_of(call))
            self._calls.popleft()
        return group

    def _send(self, flight: _Flight, items: Sequence[_Item]) -> None:
        with_body = sum(item.messages > 1 for item in items)
        if self._pace.prefers_batch(len(items) - with_body, with_body):
            self._send_batch(flight, items, self._settle_batch(flight, items))
            return
        flight.singles = len(items)
        for item in items:
            settle = self._settle_one(flight, item)
            if item.messages > 1:
                self._send_batch(flight, [item], settle)
            else:
                ((subject, payload, headers),) = _frames(item)
                headers[HEADER_STREAM] = STREAM
                self._publish(subject, payload, headers, self._expect(flight, settle))

    def _send_batch(self, flight: _Flight, items: Sequence[_Item], settle: _Settle) -> None:
        """Send items as one atomic batch. Its first message is answered when accepted, its last when all are stored."""
        frames = [frame for item in items for frame in _frames(item)]
        frames[0][2][HEADER_STREAM] = STREAM
        frames[-1][2][HEADER_BATCH_COMMIT] = "1"
        batch = f"{self._batch_prefix}-{next(self._batch_ids)}"
        inbox = self._expect(flight, settle)
        last = len(frames)
        for number, (subject, payload, headers) in enumerate(frames, 1):
            headers[HEADER_BATCH] = batch
            headers[HEADER_BATCH_SEQUENCE] = str(number)
            self._publish(subject, payload, headers, inbox if number in (1, last) else "")

    def _publish(self, subject: str, payload: bytes, headers: dict[str, str], reply: str) -> None:
        self._watch.appended(RECORD_BYTES + len(subject) + len(payload) + sum(map(len, (*headers, *headers.values()))))
        self._bridge.publish(subject, payload, reply=reply, headers=headers)

    def _expect(self, flight: _Flight, settle: _Settle) -> str:
        def take(message: Incoming | None) -> None:
            answer = OutcomeUnknown(_LOST) if message is None else _answer(message)
            if answer is not None:
                self._bridge.forget(inbox)
                flight.inboxes.discard(inbox)
                settle(answer)

        inbox = self._bridge.expect(take)
        flight.inboxes.add(inbox)
        return inbox

    def _settle_one(self, flight: _Flight, item: _Item) -> _Settle:
        return lambda answer: self._resolve(flight, [(item, answer)])

    def _settle_batch(self, flight: _Flight, items: Sequence[_Item]) -> _Settle:
        def settle(answer: int | JournalError) -> None:
            if isinstance(answer, int):
                if not flight.split:
                    self._pace.measured_batch(len(items), trio.current_time() - flight.since)
                position = answer - sum(item.messages for item in items)
                self._resolve(flight, [(item, position := position + item.messages) for item in items])
            elif isinstance(answer, JournalUnavailable) or not self._bridge.available:
                self._resolve(flight, [(item, answer) for item in items])
            else:
                flight.split = True
                flight.since = trio.current_time()  # there is progress
                middle = len(items) // 2
                self._send(flight, items[:middle])
                self._send(flight, items[middle:])

        return settle

    def _resolve(self, flight: _Flight, outcomes: Iterable[tuple[_Item, AppendOutcome]]) -> None:
        for item, outcome in outcomes:
            if item not in flight.left:
                continue
            flight.left.remove(item)
            if isinstance(outcome, int):
                self._watch.known_end = max(self._watch.known_end, outcome)
                self._watch.answered(answered=True)
            call = item.call
            call.outcomes[item.index] = outcome
            call.left -= 1
            if not call.left:
                call.done.set()
        if not flight.left and flight is self._flight:
            if flight.singles and not flight.split:
                self._pace.measured_singles(flight.singles, trio.current_time() - flight.since)
            self._flight = None
            self._wake()

    def _give_up(self, flight: _Flight) -> None:
        for inbox in flight.inboxes:
            self._bridge.forget(inbox)
        flight.inboxes.clear()
        self._resolve(flight, [(item, OutcomeUnknown(_LOST)) for item in list(flight.left)])

    def _lost(self) -> None:
        """Nothing more will be heard of what was sent, and what was not is not sent."""
        if self._flight is not None:
            self._give_up(self._flight)
        while self._calls:
            self._refuse(self._calls.popleft(), _NOT_SENT)

    def _next_of(self, call: _Call) -> _Item:
        """Take one item out of the queue."""
        item = call.items.popleft()
        self._queued -= 1
        self._queued_bytes -= item.size_bytes
        return item

    def _refuse(self, call: _Call, why: str) -> None:
        while call.items:
            call.outcomes[self._next_of(call).index] = JournalUnavailable(why)
            call.left -= 1
        if not call.left:
            call.done.set()


def _item(call: _Call, index: int, append: Append) -> _Item:
    parts = (*append.together, append)
    sizes_bytes = [len(part.payload) + len(part.body or b"") for part in parts]
    if max(sizes_bytes) > MESSAGE_BYTES_MAX:
        raise ValueError(f"A message of {max(sizes_bytes)} bytes is larger than {MESSAGE_BYTES_MAX}")
    messages = sum(1 if part.body is None else 2 for part in parts)
    return _Item(parts, tuple([event_subject(part.key) for part in parts]), call, index, messages, sum(sizes_bytes))


def _fits(items: Iterable[_Item], messages: int, size_bytes: int) -> bool:
    for item in items:
        messages += item.messages
        size_bytes += item.size_bytes
    return messages <= GROUP_MESSAGES_MAX and size_bytes <= GROUP_BYTES_MAX


def _frames(item: _Item) -> list[_Frame]:
    """The messages of an append, part for part: the body, if there is one, then the event."""
    frames: list[_Frame] = []
    for part, subject in zip(item.parts, item.subjects, strict=True):
        if part.body is not None:
            frames.append((body_subject(part.key, part.body_kind), part.body, {}))
        frames.append((subject, part.payload, {HEADER_EXPECTED: str(part.expected), HEADER_ID: part.id}))
    return frames


def _answer(message: Incoming) -> int | JournalError | None:
    """The position in an acknowledgement, or what an error says; None for the acceptance of a batch's first message."""
    if not message.data:
        status = status_of(message)
        return None if status is None else JournalUnavailable(_unanswered(status))
    answer: dict[str, Any] = orjson.loads(message.data)
    error = answer.get("error")
    if error is None:
        return int(answer["seq"])
    number = error.get("err_code", 0)
    return _MEANING.get(number, JournalUnavailable)(f"{error.get('description', 'no description')} ({number})")


def _unanswered(status: str) -> str:
    return "The stream has no leader, or JetStream is off" if status == NO_RESPONDERS else f"NATS answered {status}"
