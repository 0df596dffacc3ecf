"""Folding a journal up to a position or a time, beside the service: for snapshots, for checks, for the past."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from arc_es.codec import decode_recorded, digest
from arc_es.domain.ids import Micros
from arc_es.domain.recorded import Key
from arc_es.ports import Journal
from arc_es.snapshots import file, folder
from arc_es.snapshots.file import Header, SnapshotUnusable
from arc_es.snapshots.folder import Loaded, Make, mismatch
from arc_es.snapshots.moment import Moment, located
from arc_es.views import ReadModels

PROGRESS_SECONDS: Final = 0.2


class TooFar(Exception):
    """More messages lie between the nearest snapshot and the position than may be folded."""


@dataclass(slots=True)
class Folded:
    """Projections as they were. at: the latest time of any decision in them, 0 if there is none."""

    models: ReadModels
    position: int = 0
    message: str = ""
    at: Micros = 0
    events_before: int = 0
    seconds: float = 0.0

    @property
    def events(self) -> int:
        """Events that were folded here, not those that came with a snapshot."""
        return self.models.stats.events - self.events_before


Progress = Callable[[Folded, int], None]
"""Told now and then how far it is, and the position where it ends."""


def begun(loaded: Loaded) -> Folded:
    """To be folded on from what was loaded."""
    header = loaded.header
    if header is None:
        return Folded(loaded.models)
    return Folded(loaded.models, header.position, header.message, header.at, loaded.models.stats.events)


async def fold(
    journal: Journal,
    folded: Folded,
    end: int,
    *,
    messages_max: int | None = None,
    progress: Progress = lambda folded, end: None,
) -> Folded:
    """Fold on, in place, up to a position, which is stored.

    Raises:
        TooFar: more than `messages_max` messages of the stream lie in between.
        JournalUnavailable: the journal cannot be reached at the beginning; later it is waited for.
    """
    if messages_max is not None and end - folded.position > messages_max:
        raise TooFar
    started = time.monotonic()
    done = trio.Event()

    def handle(position: int, key: Key, payload: bytes) -> None:
        if done.is_set():
            return
        if position <= end:
            recorded = decode_recorded(position, key, payload)
            folded.models.apply(recorded)
            folded.position = position
            folded.at = max(folded.at, recorded.at)
        if position == end:
            folded.message = digest(payload)
        if position >= end:
            done.set()

    if folded.position < end:
        folded.models.begin_replay(end - folded.position)
        await _follow(journal, folded, handle, done, end, progress)
        folded.models.end_replay()
    folded.seconds += time.monotonic() - started
    return folded


async def _follow(
    journal: Journal,
    folded: Folded,
    handle: Callable[[int, Key, bytes], None],
    done: trio.Event,
    end: int,
    progress: Progress,
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.follow, folded.position, handle)
        while not done.is_set():
            with trio.move_on_after(PROGRESS_SECONDS):
                await done.wait()
            progress(folded, end)
        nursery.cancel_scope.cancel()


async def models_at(
    journal: Journal,
    snapshots: Path | None,
    make: Make,
    moment: Moment,
    *,
    messages_max: int | None = None,
    progress: Progress = lambda folded, end: None,
) -> Folded:
    """The projections as they were, from the nearest snapshot in a folder that is not after the moment.

    A moment in the future is the present. Raises as `fold`.
    """
    end = await located(journal, moment)
    loaded = await _nearest(journal, snapshots, make, end) if snapshots is not None else None
    folded = begun(loaded or Loaded(make()))
    return await fold(journal, folded, end, messages_max=messages_max, progress=progress)


async def _nearest(journal: Journal, snapshots: Path, make: Make, end: int) -> Loaded | None:
    found: list[tuple[int, Path]] = []
    for path in folder.paths(snapshots):
        try:
            header = file.read_header(path)
        except SnapshotUnusable:
            continue
        if header.position <= end:
            found.append((header.position, path))
    for _, path in sorted(found, reverse=True):
        try:
            if await mismatch(journal, file.read_header(path)) is None:
                return await trio.to_thread.run_sync(folder.load, path, make)
        except SnapshotUnusable:
            continue
    return None


async def take(
    journal: Journal, snapshots: Path, make: Make, progress: Progress = lambda folded, end: None
) -> Header | None:
    """Write a snapshot of the present, from the newest one and what came after it; None if that is the present.

    Raises:
        JournalUnavailable: as `fold`.
        OSError: it cannot be written.
    """
    end = await journal.end()
    loaded = await _nearest(journal, snapshots, make, end)
    folded = await fold(journal, begun(loaded or Loaded(make())), end, progress=progress)
    if folded.position == (0 if loaded is None else loaded.position):
        return None
    stream = await journal.identity()
    return await trio.to_thread.run_sync(write, snapshots, folded, stream)


def write(snapshots: Path, folded: Folded, stream: str) -> Header:
    """Write what was folded up to its last message, and let go of old snapshots. Raises OSError."""
    models = folded.models
    header = Header(
        stream=stream,
        position=folded.position,
        message=folded.message,
        at=folded.at,
        events=models.stats.events,
        commands=len(models.status),
    )
    file.write(snapshots, header, models.dump())
    folder.thin_out(snapshots)
    return header
