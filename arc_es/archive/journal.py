"""Stream, archive and what is left of erased commands as one journal: every message keeps its position.

So nothing that reads the journal knows of the others: replay, feed, history, proofs and downloads go on as before. Only
to the stream is anything ever written.

What is left of an erased command is stored before anything of it is deleted. So whoever first reads, then takes in all
that is left, and then puts it over what was read, never meets a gap, nor anything that was erased.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio

from arc_es.archive.archive import FOLDER, Archive
from arc_es.archive.erased import Erasures
from arc_es.archive.segment import ArchiveDamaged
from arc_es.codec import decode, digest
from arc_es.domain.events import CommandArchived, CommandErased
from arc_es.domain.recorded import CommandKey, Key
from arc_es.ports import Append, AppendOutcome, Handle, Journal, JournalMismatch, JournalUnavailable, Message

PAGE: Final = 512
"""Archived messages that are handed over before other tasks get to run."""
_ARCHIVED: Final = b'"type":"CommandArchived"'
_ERASED: Final = b'"type":"CommandErased"'
"""Stand in no text of a caller, where each quote has a backslash before it."""


class ArchivedJournal:
    """A `Journal`. stream: where everything is written, and most is read; archive: what was purged from it.

    All reading raises ArchiveDamaged, too.
    """

    def __init__(self, stream: Journal, archive: Archive) -> None:
        self.stream = stream
        self.archive = archive
        self.erased = Erasures()
        self.writing_files = trio.Lock()
        """Held by whoever writes to the archive: what is erased may not be written once more."""

    async def prepare(self) -> None:
        """Take in what is left of all commands that were erased up to now. Raises JournalUnavailable."""
        while found := await self.stream.erasures(self.erased.known_until):
            for message in found:
                self.erased.add(message)

    async def _learn(self) -> None:
        """Take in what is left of commands whose erasure has come by."""
        while expected := self.erased.expected():
            raws = await self.stream.read([position - 1 for _, position in expected])
            for (key, position), raw in zip(expected, raws, strict=True):
                if raw is None:
                    raise JournalUnavailable(f"What is left of the erased {key.command_id} is not in the stream")
                self.erased.add(Message(position - 1, key, raw))

    async def check(self) -> None:
        """See that the archive is of this stream.

        Raises:
            JournalMismatch: it is not.
            JournalUnavailable: the stream cannot be read.
        """
        newest = await trio.to_thread.run_sync(self.archive.newest)
        if newest is None:
            return
        messages = await self.stream.history(newest.key)
        if messages and (messages[0].payload == newest.messages[0][1] or decode(messages[0].payload).prev is not None):
            return
        raise JournalMismatch(
            f"The archive holds command {newest.key.command_id}, of which the stream knows nothing: they do not belong"
            " together. Restore both from one backup."
        )

    @property
    def available(self) -> bool:
        return self.stream.available

    @property
    def spacious(self) -> bool:
        return self.stream.spacious

    def reserve_for(self, live: Callable[[], int]) -> None:
        self.stream.reserve_for(live)

    async def append(self, appends: Sequence[Append]) -> list[AppendOutcome]:
        return await self.stream.append(appends)

    async def purge(self, key: CommandKey, before: int) -> None:
        await self.stream.purge(key, before)

    async def last(self, key: Key) -> Message | None:
        return await self.stream.last(key)

    async def end(self) -> int:
        return await self.stream.end()

    async def identity(self) -> str:
        return await self.stream.identity()

    async def erasures(self, after: int) -> list[Message]:
        return await self.stream.erasures(after)

    async def read(self, positions: Sequence[int]) -> list[bytes | None]:
        payloads = await self.stream.read(positions)
        gone = [position for position, payload in zip(positions, payloads, strict=True) if payload is None]
        found: dict[int, bytes | None] = {}
        if gone:
            await self.prepare()
            found = await trio.to_thread.run_sync(lambda: {at: self.archive.message(at) for at in gone})
        await self._learn()
        if not gone and not len(self.erased):
            return payloads
        return [
            self._left(position, found.get(position) if payload is None else payload)
            for position, payload in zip(positions, payloads, strict=True)
        ]

    def _left(self, position: int, payload: bytes | None) -> bytes | None:
        """What may be read at a position: what is there, as far as it was not erased."""
        if self.erased.is_body(position):
            return None
        left = self.erased.message(position)
        return payload if left is None else left.payload

    async def history(self, key: Key) -> list[Message]:
        messages = await self.stream.history(key)
        if not messages or not isinstance(key, CommandKey):
            return messages
        first = messages[0]
        prev = decode(first.payload).prev
        if prev is not None:
            await self.prepare()
        await self._learn()
        erased_at = self.erased.at(key.command_id)
        if erased_at is not None:
            return self.erased.history(key) + [message for message in messages if message.position >= erased_at]
        if prev is None:
            return messages
        archived = await trio.to_thread.run_sync(self.archive.history, key)
        before = [message for message in archived if message.position < first.position]
        if not before or digest(before[-1].payload) != prev:
            raise ArchiveDamaged(f"The history of {key.command_id} does not begin in the stream, nor in the archive")
        return before + messages

    async def page(self, after: int, limit: int, bytes_max: int) -> list[Message]:
        """The stream first: what is deleted meanwhile was in the archive, or left, before."""
        messages = await self.stream.page(after, limit, bytes_max)
        for message in messages:
            self._take_note(message.position, message.key, message.payload)
        await self.prepare()
        end = messages[-1].position if messages else after + 1
        archived: list[Message] = []
        if end - after != len(messages) and self.archive.exists:  # something lies between them
            archived = await trio.to_thread.run_sync(partial(self.archive.events, after, end, limit))
        left = self.erased.events(after, end + 1, limit)
        return _first((*archived, *messages, *left), limit, bytes_max) if archived or left else messages

    def _take_note(self, position: int, key: Key, payload: bytes) -> None:
        """Of what a message says about where others are."""
        if _ARCHIVED not in payload and _ERASED not in payload:
            return
        for event in decode(payload).events:
            if isinstance(event, CommandArchived):
                self.archive.need(event.segment)
            elif isinstance(event, CommandErased):
                assert isinstance(key, CommandKey), "only commands are erased"
                self.erased.expect(key, position)

    async def follow(self, after: int, handle: Handle) -> None:
        """What is elsewhere comes in its place. Long stretches of it come page by page: they must not block."""
        at = after

        def merged(position: int, key: Key, payload: bytes) -> None:
            nonlocal at
            if position - at > 1 and (len(self.erased) or self.archive.exists):
                between = self._elsewhere(at, position)
                if len(between) == PAGE:
                    raise _LongStretchError(position)
                for message in between:
                    handle(message.position, message.key, message.payload)
            self._take_note(position, key, payload)
            left = self.erased.message(position)
            handle(position, key, payload if left is None else left.payload)
            at = position

        while True:
            try:
                await self.stream.follow(at, merged)
            except _LongStretchError as stretch:
                await self._archived(at, stretch.end, handle)
                at = stretch.end - 1

    def _elsewhere(self, after: int, before: int) -> list[Message]:
        """The first messages between two positions that are not in the stream any more."""
        archived = self.archive.events(after, before, PAGE) if self.archive.exists else []
        left = self.erased.events(after, before, PAGE)
        return _first((*archived, *left), PAGE) if left else archived

    async def _archived(self, after: int, end: int, handle: Handle) -> None:
        """Everything between two positions that is not in the stream any more."""
        at = after
        while archived := await trio.to_thread.run_sync(self._elsewhere, at, end):
            for message in archived:
                handle(message.position, message.key, message.payload)
            at = archived[-1].position


class _LongStretchError(Exception):
    """So much before this position is in the archive that it has to be read in pieces."""

    def __init__(self, end: int) -> None:
        super().__init__(end)
        self.end = end


@asynccontextmanager
async def with_archive(stream: Journal, data_dir: Path) -> AsyncGenerator[ArchivedJournal, None]:
    """A stream with the archive of a data dir, if there is one.

    Raises:
        ArchiveDamaged, JournalMismatch: they cannot be used together.
        OSError: the catalog cannot be written.
    """
    archive = Archive(data_dir / FOLDER)
    try:
        await trio.to_thread.run_sync(archive.open)
        journal = ArchivedJournal(stream, archive)
        await journal.check()
        await journal.prepare()
        yield journal
    finally:
        archive.close()


def _first(messages: Iterable[Message], limit: int, bytes_max: int = sys.maxsize) -> list[Message]:
    """The first of these, in order; of several at one position the last one counts."""
    merged = {message.position: message for message in messages}
    page: list[Message] = []
    size = 0
    for position in sorted(merged):
        if len(page) >= limit or size >= bytes_max:
            break
        page.append(merged[position])
        size += len(merged[position].payload)
    return page
