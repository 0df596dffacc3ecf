"""Scratch notes: what a handler wrote down about a command, for its next attempt on the same machine.

A note in a folder survives the death of the process, and of the machine if its disk does. It does not move to another
agent: what must, belongs into the system that the handler changes. A note goes when its command has been answered.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

NOTE_BYTES_MAX: Final = 64 * 1024
NOTES_MAX: Final = 10_000
"""Above it the oldest goes: its command has long been answered by somebody else, or given up."""
NOTE_DAYS_MAX: Final = 7
_COMMAND_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


class Notes(Protocol):
    """Where notes are kept. Called in worker threads, one call a command at a time."""

    def read(self, command_id: str) -> bytes | None:
        """The note, None if there is none."""

    def write(self, command_id: str, note: bytes) -> None:
        """Replace the note; when this returns it is kept."""

    def forget(self, command_id: str) -> None:
        """Remove the note, if there is one."""


class MemoryNotes:
    """Notes that live as long as the process."""

    def __init__(self, notes_max: int = NOTES_MAX) -> None:
        self._notes_max = notes_max
        self._notes: OrderedDict[str, bytes] = OrderedDict()

    def read(self, command_id: str) -> bytes | None:
        return self._notes.get(command_id)

    def write(self, command_id: str, note: bytes) -> None:
        self._notes[command_id] = _checked(note)
        self._notes.move_to_end(command_id)
        if len(self._notes) > self._notes_max:
            self._notes.popitem(last=False)

    def forget(self, command_id: str) -> None:
        self._notes.pop(command_id, None)


class FolderNotes:
    """Notes in a folder, one file each: written whole, fsynced, and swept by number and age. One process a folder."""

    def __init__(self, folder: Path | str, notes_max: int = NOTES_MAX, days_max: float = NOTE_DAYS_MAX) -> None:
        """Makes the folder, for its owner only. Raises OSError."""
        self._folder = Path(folder)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in self._folder.glob("*.part"):  # of a writer that died
            part.unlink(missing_ok=True)
        self._notes_max = notes_max
        self._days_max = days_max
        self._lock = threading.Lock()
        self._count = self._sweep()

    def read(self, command_id: str) -> bytes | None:
        try:
            return self._path(command_id).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, command_id: str, note: bytes) -> None:
        """Raises OSError if the disk does not take it."""
        path = self._path(command_id)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            file.write(_checked(note))
            file.flush()
            os.fsync(file.fileno())
        with self._lock:
            self._count += not path.exists()
            part.replace(path)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        with self._lock:
            if self._count > self._notes_max:
                self._count = self._sweep()

    def forget(self, command_id: str) -> None:
        with self._lock, suppress(FileNotFoundError):
            self._path(command_id).unlink()
            self._count -= 1

    def _path(self, command_id: str) -> Path:
        if not _COMMAND_ID.fullmatch(command_id):
            raise ValueError(f"{command_id!r} is no command id")
        return self._folder / f"{command_id}.note"

    def _sweep(self) -> int:
        """Remove what is old or too much, down to nine tenths; how many are left."""
        ages = sorted((-path.stat().st_mtime, path) for path in self._folder.glob("*.note"))
        keep = self._notes_max if len(ages) <= self._notes_max else self._notes_max * 9 // 10
        oldest = time.time() - self._days_max * 86_400
        kept = 0
        for age, path in ages:
            if kept < keep and -age >= oldest:
                kept += 1
            else:
                path.unlink(missing_ok=True)
        return kept


def _checked(note: bytes) -> bytes:
    if len(note) > NOTE_BYTES_MAX:
        raise ValueError(f"a note has at most {NOTE_BYTES_MAX} bytes, not {len(note)}")
    return note
