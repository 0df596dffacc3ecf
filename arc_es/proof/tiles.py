"""The hashes of the log's tree in files, so that a proof of one message does not read the whole log.

Each file is a column of hashes: `level-0` of the leaves, `level-8` of every 256 leaves, `level-16` of every 256 of
those, and so on: the tiles of https://c2sp.org/tlog-tiles, one after the other. `positions` says where in the stream
each leaf is. All of it can be made again from the journal; so nothing is synced but at a checkpoint, and after a start
only what a checkpoint confirms is believed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from struct import Struct
from typing import Final

from arc_es.domain.merkle import HASH_BYTES, fold_perfect, root_at

TILE_BITS: Final = 8
TILE: Final = 1 << TILE_BITS
LEVELS: Final = (0, 8, 16, 24, 32)
NODES_KEPT: Final = 4_096
"""Proofs of neighbours share most of their hashes; a complete subtree never changes."""
_POSITION: Final = Struct("<Q")
_PRIVATE: Final = 0o600

OpenColumn = Callable[[str], int]
"""Opens a file by name for reading and writing, made if it is missing; its descriptor."""


def in_directory(folder: Path) -> OpenColumn:
    """Columns as files of a directory, which is made."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return lambda name: os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)


def seed(folder: Path, other: Path) -> None:
    """Begin with the columns of another process of the same data dir, if they are longer.

    It may be at work on them: of what is torn nothing is believed that a checkpoint does not confirm.
    """
    if _length(folder) >= _length(other):
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for column in other.iterdir():
        if column.is_file():
            shutil.copyfile(column, folder / column.name)
            (folder / column.name).chmod(_PRIVATE)


def _length(folder: Path) -> int:
    positions = folder / "positions"
    return positions.stat().st_size if positions.exists() else 0


def in_memory(name: str) -> int:
    """A column that is gone with the process."""
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class _Column:
    """Records of one width, appended at the end."""

    def __init__(self, descriptor: int, width: int) -> None:
        self._descriptor = descriptor
        self._width = width
        self.truncate(os.fstat(descriptor).st_size // width)

    def truncate(self, count: int) -> None:
        """Forget all but the first `count` records."""
        self.count = count
        os.ftruncate(self._descriptor, count * self._width)

    def extend(self, records: Sequence[bytes]) -> None:
        """Append records."""
        raw = b"".join(records)
        if os.pwrite(self._descriptor, raw, self.count * self._width) != len(raw):
            raise OSError("The disk is full")
        self.count += len(records)

    def read(self, start: int, count: int) -> list[bytes]:
        """Records from `start` on. Raises IndexError if there are not so many."""
        width = self._width
        raw = os.pread(self._descriptor, count * width, start * width)
        if start + count > self.count or len(raw) != count * width:
            raise IndexError(start + count)
        return [raw[at : at + width] for at in range(0, len(raw), width)]

    def sync(self) -> None:
        """Have it on disk."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Use no more."""
        os.close(self._descriptor)


class Tiles:
    """The tree over the leaves that were appended. Raises OSError when the files cannot be used."""

    def __init__(self, opened: OpenColumn = in_memory) -> None:
        self._levels = [_Column(opened(f"level-{level}"), HASH_BYTES) for level in LEVELS]
        self._positions = _Column(opened("positions"), _POSITION.size)
        self.node = lru_cache(maxsize=NODES_KEPT)(self._node)
        """The hash of the perfect subtree `index` of a level. Raises IndexError if it is not complete."""
        self.truncate(min(self._levels[0].count, self._positions.count))

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._levels[0].count

    @property
    def position(self) -> int:
        """Where the last leaf is in the stream, 0 if there is none."""
        return self.position_of(self.size - 1) if self.size else 0

    def extend(self, leaves: Sequence[tuple[int, bytes]]) -> None:
        """Append leaves: position in the stream and hash."""
        self._positions.extend([_POSITION.pack(position) for position, _ in leaves])
        self._levels[0].extend([leaf for _, leaf in leaves])
        self._raise_levels()

    def _raise_levels(self) -> None:
        """Hash every tile that is complete now."""
        for below, level in zip(self._levels, self._levels[1:], strict=False):
            while level.count < below.count >> TILE_BITS:
                level.extend([fold_perfect(below.read(level.count << TILE_BITS, TILE))])

    def truncate(self, size: int) -> None:
        """Forget all but the first `size` leaves; what a crash left undone is completed."""
        self.node.cache_clear()
        self._positions.truncate(size)
        for level, column in zip(LEVELS, self._levels, strict=True):
            column.truncate(min(column.count, size >> level))
        self._raise_levels()

    def _node(self, level: int, index: int) -> bytes:
        stored = min(level // TILE_BITS, len(LEVELS) - 1)
        more = level - LEVELS[stored]
        return fold_perfect(self._levels[stored].read(index << more, 1 << more))

    def root(self, size: int) -> bytes:
        """The root over the first `size` leaves. Raises IndexError if there are not so many."""
        return root_at(size, self.node)

    def position_of(self, index: int) -> int:
        """Where a leaf is in the stream. Raises IndexError if there is none."""
        (position,) = _POSITION.unpack(self._positions.read(index, 1)[0])
        return int(position)

    def index_of(self, position: int) -> int:
        """How many leaves lie before this position: the index of the leaf there, if there is one."""
        low, high = 0, self.size
        while low < high:
            middle = (low + high) // 2
            if self.position_of(middle) < position:
                low = middle + 1
            else:
                high = middle
        return low

    def sync(self) -> None:
        """Have everything on disk."""
        for column in (*self._levels, self._positions):
            column.sync()

    def close(self) -> None:
        """Use no more."""
        for column in (*self._levels, self._positions):
            column.close()
