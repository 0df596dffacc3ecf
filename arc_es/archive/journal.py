"""The stream and the archive as one journal: a message that was archived keeps its position, and is read from a file.

So nothing that reads the journal knows of the archive: replay, feed, history, proofs and downloads go on as before.
Only to the stream is anything ever written.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio

from arc_es.archive.archive import FOLDER, Archive
from arc_es.archive.segment import ArchiveDamaged
from arc_es.codec import decode, digest
from arc_es.domain.events import CommandArchived
from arc_es.domain.recorded import CommandKey, Key
from arc_es.ports import Append, AppendOutcome, Handle, Journal, JournalMismatch, Message

PAGE: Final = 512
"""Archived messages that are handed over before other tasks get to run."""
_ARCHIVED: Final = b'"type":"CommandArchived"'
"""Stands in no text of a caller, where each quote has a backslash before it."""


class ArchivedJournal:
    """A `Journal`. stream: where everything is written, and most is read; archive: what was purged from it.

    All reading raises ArchiveDamaged, too.
    """

    def __init__(self, stream: Journal, archive: Archive) -> None:
        self.stream = stream
        self.archive = archive

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

    async def read(self, positions: Sequence[int]) -> list[bytes | None]:
        payloads = await self.stream.read(positions)
        if None not in payloads:
            return payloads
        gone = [position for position, payload in zip(positions, payloads, strict=True) if payload is None]
        found = await trio.to_thread.run_sync(lambda: {position: self.archive.message(position) for position in gone})
        return [
            found[position] if payload is None else payload
            for position, payload in zip(positions, payloads, strict=True)
        ]

    async def history(self, key: Key) -> list[Message]:
        messages = await self.stream.history(key)
        if not messages or not isinstance(key, CommandKey):
            return messages
        first = messages[0]
        prev = decode(first.payload).prev
        if prev is None:
            return messages
        archived = await trio.to_thread.run_sync(self.archive.history, key)
        before = [message for message in archived if message.position < first.position]
        if not before or digest(before[-1].payload) != prev:
            raise ArchiveDamaged(f"The history of {key.command_id} does not begin in the stream, nor in the archive")
        return before + messages

    async def page(self, after: int, limit: int, bytes_max: int) -> list[Message]:
        """The stream first: what is purged meanwhile was in the archive before."""
        messages = await self.stream.page(after, limit, bytes_max)
        self._need_segments(messages)
        end = messages[-1].position if messages else after + 1
        if end - after == len(messages) or not self.archive.exists:  # nothing lies between them
            return messages
        archived = await trio.to_thread.run_sync(partial(self.archive.events, after, end, limit))
        return _first(archived, messages, limit, bytes_max) if archived else messages

    def _need_segments(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if _ARCHIVED in message.payload:
                self._need_segment(message.payload)

    def _need_segment(self, payload: bytes) -> None:
        for event in decode(payload).events:
            if isinstance(event, CommandArchived):
                self.archive.need(event.segment)

    async def follow(self, after: int, handle: Handle) -> None:
        """What was archived comes in its place. Long stretches of it come page by page: they must not block."""
        at = after

        def merged(position: int, key: Key, payload: bytes) -> None:
            nonlocal at
            if position - at > 1 and self.archive.exists:
                archived = self.archive.events(at, position, PAGE)
                if len(archived) == PAGE:
                    raise _LongStretchError(position)
                for message in archived:
                    handle(message.position, message.key, message.payload)
            if _ARCHIVED in payload:
                self._need_segment(payload)
            handle(position, key, payload)
            at = position

        while True:
            try:
                await self.stream.follow(at, merged)
            except _LongStretchError as stretch:
                await self._archived(at, stretch.end, handle)
                at = stretch.end - 1

    async def _archived(self, after: int, end: int, handle: Handle) -> None:
        """Everything archived between two positions."""
        at = after
        while archived := await trio.to_thread.run_sync(self.archive.events, at, end, PAGE):
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
        yield journal
    finally:
        archive.close()


def _first(archived: Sequence[Message], stream: Sequence[Message], limit: int, bytes_max: int) -> list[Message]:
    """The first of both, in order; what is in both counts once."""
    merged = {message.position: message for message in (*archived, *stream)}
    page: list[Message] = []
    size = 0
    for position in sorted(merged):
        if len(page) >= limit or size >= bytes_max:
            break
        page.append(merged[position])
        size += len(merged[position].payload)
    return page
