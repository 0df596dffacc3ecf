"""What the workers of one service see of each other: a page of memory in which each writes its own line.

A line is three integers: is it ready, how many connections has it, up to where has it applied. Each is 8 bytes at a
multiple of 8, written at once by the only process that writes it. Nobody locks and nobody waits: what is read here
decides who goes first and who waits a moment, never what is right.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

_READY: Final = 0
_CONNECTIONS: Final = 1
_APPLIED: Final = 2
_LINE: Final = 8
"""Integers a line, so that no two lines share a cache line."""
_INTEGER_BYTES: Final = 8


class Board:
    """The page of a service with `count` workers, mapped into this process."""

    def __init__(self, fd: int, count: int) -> None:
        self.fd = fd
        self.count = count
        self._page = mmap.mmap(fd, count * _LINE * _INTEGER_BYTES)
        self.cells = memoryview(self._page).cast("Q")

    @classmethod
    def made(cls, count: int) -> Board:
        """A new page; its descriptor is for the workers to inherit."""
        fd = os.memfd_create("arc-es board")
        os.ftruncate(fd, count * _LINE * _INTEGER_BYTES)
        return cls(fd, count)

    def line(self, number: int) -> Line:
        """The line of worker `number`, from 1."""
        return Line(self, number)

    def wipe(self, number: int) -> None:
        """Worker `number` is dead."""
        start = (number - 1) * _LINE
        for at in range(start, start + _LINE):
            self.cells[at] = 0


class Line:
    """The board as worker `number` sees it: what it says of itself, and how it compares.

    The `Neighbours` of `http.accepting`, which says what each of these means.
    """

    def __init__(self, board: Board, number: int) -> None:
        self._cells = board.cells
        self._mine = (number - 1) * _LINE
        self._others = [at * _LINE for at in range(board.count) if at != number - 1]

    @property
    def may_accept(self) -> bool:
        cells = self._cells
        return bool(cells[self._mine + _READY]) or not any(cells[at + _READY] for at in self._others)

    @property
    def others_have_fewer(self) -> bool:
        cells = self._cells
        mine = cells[self._mine + _CONNECTIONS]
        return any(cells[at + _READY] and cells[at + _CONNECTIONS] < mine for at in self._others)

    @property
    def applied_max(self) -> int:
        cells = self._cells
        return max(cells[at + _APPLIED] for at in self._others)

    def connections(self, count: int) -> None:
        self._cells[self._mine + _CONNECTIONS] = count

    def applied(self, position: int) -> None:
        self._cells[self._mine + _APPLIED] = position

    def serve(self) -> None:
        """This worker is ready and will accept connections."""
        self._cells[self._mine + _READY] = 1

    def leave(self) -> None:
        self._cells[self._mine + _READY] = 0
