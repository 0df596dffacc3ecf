"""Moving commands that ended long ago from the stream to the archive, a batch at a time.

Each step can be cut off and is then repeated or finished by the next round:

1. A segment is written, read back and checked. Cut off here, its commands are simply in both.
2. `CommandArchived` is stored in each history, at the version that was read; whoever was faster is left alone.
3. What lies before that event is purged. The event stays, so the id can never be used again.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from arc_es.actors.commit import Committer
from arc_es.archive.journal import ArchivedJournal
from arc_es.archive.segment import Record
from arc_es.codec import decode, digest, encode
from arc_es.config import Config
from arc_es.domain.events import CommandArchived
from arc_es.domain.ids import Micros
from arc_es.domain.limits import SECOND
from arc_es.domain.recorded import SERVICE, CommandKey, Decision
from arc_es.domain.state import TERMINAL, State, fold, needs_body
from arc_es.ports import Append, Clock, Conflict, Journal, JournalError, Message, Overloaded, SystemClock
from arc_es.summaries import CommandIndex, Find, Page, Place

ROUND_SECONDS: Final = 300.0
"""Between two looks for what is old enough."""
COMMANDS_MAX: Final = 1_000
"""Of one segment."""
SEGMENT_BYTES: Final = 32 * 1024 * 1024
"""Of one segment before compression, about."""
APPENDS_MAX: Final = 64
"""Stored together."""
PAUSE_SECONDS: Final = 0.005
"""Between two histories that are read or purged: requests come first."""

log = logging.getLogger("arc_es.archive")


@dataclass(slots=True)
class _Batch:
    """What the next segment gets."""

    records: list[Record] = field(default_factory=list)
    size: int = 0

    def put(self, record: Record) -> None:
        self.records.append(record)
        self.size += sum(len(payload) for _, payload in (*record.messages, *record.bodies))

    @property
    def is_full(self) -> bool:
        return len(self.records) >= COMMANDS_MAX or self.size >= SEGMENT_BYTES


class Archiver:
    """Archives what ended `after_seconds` ago or earlier."""

    def __init__(
        self,
        journal: ArchivedJournal,
        index: CommandIndex,
        clock: Clock,
        *,
        after_seconds: float,
        append_seconds_max: float,
    ) -> None:
        self._stream: Journal = journal.stream
        self._archive = journal.archive
        self._erased = journal.erased
        self._writing = journal.writing_files
        self._index = index
        self._clock = clock
        self._committer = Committer(journal.stream, append_seconds_max)
        self._after_micros = round(after_seconds * SECOND)
        self._begin: Place | None = None
        """Everything in the index up to here is archived."""

    async def run(self) -> None:
        """Archive for ever, every so often; what fails now is done the next time."""
        while True:
            await trio.sleep(ROUND_SECONDS)
            try:
                archived = await self.once()
            except (JournalError, Overloaded, OSError) as trouble:
                log.warning("Cannot archive now, will try again: %s", trouble)
            else:
                if archived:
                    log.info("Archived %d commands", archived)

    async def once(self) -> int:
        """Archive all that is old enough; returns how many commands that were.

        Raises:
            JournalError, Overloaded: the journal, the index or the archive cannot be used now.
            OSError: a segment cannot be written.
        """
        ended_until = self._clock.now() - self._after_micros
        archived, batch = 0, _Batch()
        place, nothing_before = self._begin, True
        while True:
            page = await self._index.find(Find(created_before=ended_until + 1, order="asc", after=place, limit=1_000))
            todo, is_done = await trio.to_thread.run_sync(self._todo, page, ended_until)
            for key in todo:
                archived += await self._take(key, ended_until, batch)
                if batch.is_full:
                    archived += await self._store(batch)
                    batch = _Batch()
            nothing_before = nothing_before and is_done
            place = page.behind
            if place is None:
                break
            if nothing_before:
                self._begin = place
        if batch.records:
            archived += await self._store(batch)
        return archived

    def _todo(self, page: Page, ended_until: Micros) -> tuple[list[CommandKey], bool]:
        """What is to be archived of a page, and whether all of the page is."""
        erased = self._erased
        left = [
            one
            for one in page.commands
            if erased.at(one.command_id) is None and not self._archive.is_purged(one.command_id)
        ]
        todo = [
            CommandKey(one.deployment_id, one.command_id)
            for one in left
            if one.completed_at is not None and one.completed_at <= ended_until
        ]
        return todo, not left

    async def _take(self, key: CommandKey, ended_until: Micros, batch: _Batch) -> int:
        """Put a command into the batch, or finish what was begun with it: then 1."""
        await trio.sleep(PAUSE_SECONDS)
        history = await self._stream.history(key)
        decisions = [decode(message.payload) for message in history]
        for index, decision in enumerate(decisions):
            if isinstance(decision.events[0], CommandArchived):
                begun = await self._record(key, history[:index], decisions[:index])
                return await self._finish(begun, decision.events[0].segment, history[index].position)
        state: State | None = None
        for decision in decisions:
            state = fold(state, decision.events, decision.at)  # type: ignore[arg-type]  # of a command
        if isinstance(state, TERMINAL) and state.ended_at <= ended_until:
            batch.put(await self._record(key, history, decisions))
        return 0

    async def _finish(self, begun: Record, segment: str, position: int) -> int:
        """Purge what is left of a command before its `CommandArchived`, if the archive has all of that."""
        self._archive.need(segment)
        for at, payload in (*begun.messages, *begun.bodies):
            if await trio.to_thread.run_sync(self._archive.message, at) != payload:
                log.error("Command %s is not purged: message %d is not in %s", begun.key.command_id, at, segment)
                return 0
        await self._purge([(begun.key, position)])
        return 1

    async def _record(self, key: CommandKey, history: Sequence[Message], decisions: Sequence[Decision]) -> Record:
        beside = bodies_beside(history, decisions)
        raws = await self._stream.read(beside)
        bodies = tuple((at, raw) for at, raw in zip(beside, raws, strict=True) if raw is not None)
        return Record(key, tuple((message.position, message.payload) for message in history), bodies)

    async def _store(self, batch: _Batch) -> int:
        async with self._writing:
            return await self._store_batch(batch)

    async def _store_batch(self, batch: _Batch) -> int:
        records = []
        for record in batch.records:
            if self._erased.at(record.key.command_id) is not None:
                continue
            if (trouble := record.broken()) is None:
                records.append(record)
            else:
                log.error("Command %s is not archived, because %s; see arc-es verify", record.key.command_id, trouble)
        if not records:
            return 0
        segment, digests = await trio.to_thread.run_sync(self._archive.add, records)
        now = self._clock.now()
        appends = [
            _append(record, now, CommandArchived(segment=segment, sha256=sha256, messages=len(record.messages)))
            for record, sha256 in zip(records, digests, strict=True)
        ]
        stored: list[tuple[CommandKey, int]] = []
        for start in range(0, len(appends), APPENDS_MAX):
            piece = appends[start : start + APPENDS_MAX]
            outcomes = await self._committer.commit(piece)
            told = zip(records[start : start + APPENDS_MAX], outcomes, strict=True)
            mine = [(record.key, outcome) for record, outcome in told if isinstance(outcome, int)]
            stored += mine
            refused = next((outcome for outcome in outcomes if not isinstance(outcome, int | Conflict)), None)
            if refused is not None and not mine:
                await self._purge(stored)
                raise refused
        await self._purge(stored)
        return len(stored)

    async def _purge(self, stored: Sequence[tuple[CommandKey, int]]) -> None:
        """Let the stream forget what lies before these positions."""
        for key, position in stored:
            await self._stream.purge(key, position)
            await trio.sleep(PAUSE_SECONDS)
        await trio.to_thread.run_sync(self._archive.purged, [key for key, _ in stored])


def bodies_beside(history: Sequence[Message], decisions: Sequence[Decision]) -> list[int]:
    """The positions of the bodies that lie beside the events of a history."""
    return [
        message.position - 1
        for message, decision in zip(history, decisions, strict=True)
        if any((body := needs_body(event)) is not None and body.place == "message" for event in decision.events)
    ]


async def archive_for_ever(journal: ArchivedJournal, index: CommandIndex, config: Config) -> None:
    """Archive as the settings say, or nothing."""
    if config.archive_after_seconds < 0:
        return
    archiver = Archiver(
        journal,
        index,
        SystemClock(),
        after_seconds=config.archive_after_seconds,
        append_seconds_max=config.append_seconds_max,
    )
    await archiver.run()


def _append(record: Record, now: Micros, event: CommandArchived) -> Append:
    version, last = record.messages[-1]
    decision = Decision(uuid.uuid4().hex, now, SERVICE, (event,), digest(last))
    return Append(record.key, version, decision.id, encode(decision))
