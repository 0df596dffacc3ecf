"""Bodies that come from files and go to files, a piece at a time: read again at each attempt, never whole in memory."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from typing import BinaryIO, Final

from anyio import to_thread  # noqa: ASYNC106 - it is not in `anyio` itself

CHUNK_BYTES: Final = 256 * 1024

Moved = Callable[[int], None]
"""Told how many bytes have moved, after each piece; less than before when a transfer begins again."""


def unheeded(_: int) -> None:
    """A `Moved` for transfers that nobody watches."""


class FileBody:
    """A body to upload: a file from its position on, which must not change meanwhile. size: bytes."""

    def __init__(self, file: BinaryIO, moved: Moved = unheeded) -> None:
        """Raises OSError if the file cannot be positioned, as pipes cannot."""
        self._file = file
        self.moved = moved
        self._start = file.tell()
        self.size = file.seek(0, os.SEEK_END) - self._start
        file.seek(self._start)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """All of it, from the start. Raises OSError."""
        self._file.seek(self._start)
        sent = 0
        while chunk := await to_thread.run_sync(self._file.read, min(CHUNK_BYTES, self.size - sent)):
            yield chunk
            sent += len(chunk)
            self.moved(sent)

    async def read(self) -> bytes:
        """All of it at once, if it is known to be small. Raises OSError."""
        return b"".join([chunk async for chunk in self.chunks()])


class Sink:
    """Where a download goes. A body never changes, so a repeated download goes on where the last one broke off.

    size: bytes written so far.
    """

    def __init__(self, file: BinaryIO, moved: Moved = unheeded) -> None:
        self._file = file
        self._moved = moved
        self.size = 0

    async def take(self, chunks: AsyncIterable[bytes]) -> int:
        """Write what is new of a flow; the length of the whole flow in bytes. Raises OSError."""
        seen = 0
        async for chunk in chunks:
            new = chunk[max(0, self.size - seen) :]
            seen += len(chunk)
            if new:
                await to_thread.run_sync(self._file.write, new, abandon_on_cancel=True)  # a pipe may never take it
                self.size += len(new)
            self._moved(seen)
        return seen
