"""The snapshots of one service: which there are, which are kept, which one a start may use."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from arc_es.codec import digest
from arc_es.ports import Journal
from arc_es.snapshots import file
from arc_es.snapshots.file import Header, Piece, SnapshotUnusable
from arc_es.views import ReadModels

FOLDER: Final = "snapshots"
"""Below the data directory."""
KEPT: Final = 2
"""The newest two in any case: one may be damaged."""
OLDER_MAX: Final = 30
"""Older ones, for questions about the past; each about twice as far back as the one after it, so fewer are enough."""

log = logging.getLogger("arc_es.snapshots")

Make = Callable[[], ReadModels]
"""Makes empty projections."""


def paths(folder: Path) -> list[Path]:
    """All snapshot files, the one written last first."""
    written: list[tuple[int, Path]] = []
    for path in folder.glob(f"*{file.SUFFIX}"):
        with suppress(OSError):  # removed meanwhile
            written.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(written, reverse=True)]


def thin_out(folder: Path) -> None:
    """Remove all but the newest, and some older ones of the same kind that lie ever farther apart."""
    found = paths(folder)
    for path in set(found[KEPT:]) - set(_spaced(found)):
        path.unlink(missing_ok=True)


def _spaced(found: list[Path]) -> list[Path]:
    """Some snapshots, so that before each moment there is one at most as far before it as it lies back."""
    kept: list[tuple[int, Path]] = []
    newest: Header | None = None
    for path in found:
        try:
            header = file.read_header(path)
        except SnapshotUnusable:
            continue
        newest = newest or header
        if (header.stream, header.schema) == (newest.stream, newest.schema) and header.position <= newest.position:
            kept.append((header.position, path))
    kept.sort(reverse=True)
    end = kept[0][0] if kept else 0
    at = 1
    while at + 1 < len(kept):
        if end - kept[at + 1][0] < 2 * (end - kept[at - 1][0]):
            del kept[at]
        else:
            at += 1
    return [path for _, path in kept[: KEPT + OLDER_MAX]]


def remove_before(folder: Path, position: int) -> None:
    """Remove those of an earlier position, in which is what was erased by then, and what is left of broken off ones."""
    file.remove_parts(folder)
    for path in paths(folder):
        if path.stem.isdecimal() and int(path.stem) < position:
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Projections as a snapshot had them; `header` is None for empty ones."""

    models: ReadModels
    header: Header | None = None

    @property
    def position(self) -> int:
        """The position of the last message that is in them, 0 if there is none."""
        return 0 if self.header is None else self.header.position


def load(path: Path, make: Make) -> Loaded:
    """Check a snapshot and make projections of it. Raises SnapshotUnusable."""
    header = file.check(path)
    models = make()
    why = _trouble_loading(models, list(file.read(path)))
    if why is not None:
        raise SnapshotUnusable(why)
    return Loaded(models, header)


async def mismatch(journal: Journal, header: Header) -> str | None:
    """Why a snapshot is not of this journal, None if it is. Raises JournalUnavailable."""
    if header.stream != await journal.identity():
        return "it is of another stream"
    if header.position > await journal.end():
        return "it is ahead of the journal"
    if header.position:
        (message,) = await journal.read([header.position])
        if message is None or digest(message) != header.message:
            return f"message {header.position} of the journal is another one"
    return None


class Snapshots:
    """The snapshots in a folder, as a start uses them: the newest that fits, read while other things start."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rest = paths(folder)
        self._read: list[tuple[Path, Header, list[Piece]]] = []
        self._is_ready = trio.Event()

    async def prepare(self) -> None:
        """Read the newest one that is whole; `restore` waits for it."""
        try:
            await trio.to_thread.run_sync(self._read_next)
        finally:
            self._is_ready.set()

    async def look_again(self) -> None:
        """Begin anew with what is in the folder now."""
        await self._is_ready.wait()
        self._read.clear()
        self._rest = paths(self._folder)
        await trio.to_thread.run_sync(self._read_next)

    def _read_next(self) -> None:
        while self._rest and not self._read:
            path = self._rest.pop(0)
            try:
                header = file.check(path)
                self._read.append((path, header, list(file.read(path))))
            except SnapshotUnusable as error:
                _not_used(path, str(error))

    async def restore(self, journal: Journal, models: ReadModels, position_max: int) -> Header | None:
        """Load the newest snapshot that fits the journal into empty projections; None if there is none.

        position_max: newer snapshots do not help, because something else is not further than that.

        Raises:
            JournalUnavailable: whether they fit cannot be told now; ask again.
        """
        await self._is_ready.wait()
        while self._read:
            path, header, pieces = self._read[0]
            why = await mismatch(journal, header)
            if why is None and header.position > position_max:
                why = f"it is ahead of the index, which ends at {position_max}"
            if why is None:
                why = await trio.to_thread.run_sync(_trouble_loading, models, pieces)
            self._read.clear()
            if why is None:
                log.info("Starting from the snapshot %s, %d events", path.name, header.events)
                return header
            _not_used(path, why)
            await trio.to_thread.run_sync(self._read_next)
        if await journal.end():
            log.warning("There is no snapshot to start from: the whole journal is replayed")
        return None


def _not_used(path: Path, why: str) -> None:
    log.warning("The snapshot %s is not used, because %s", path.name, why)


def _trouble_loading(models: ReadModels, pieces: list[Piece]) -> str | None:
    try:
        models.load(pieces)
    except (KeyError, ValueError, TypeError, AttributeError) as error:  # a bug of ours; a full replay still is right
        log.warning("A snapshot could not be loaded", exc_info=error)
        return "its contents are not understood"
    return None
