"""A flow of bytes in pieces of one size, counted on the way."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext

from arc_es.ports import BodyTooLarge


async def pieces(chunks: AsyncIterable[bytes], piece_bytes: int, bytes_max: int) -> AsyncGenerator[bytes, None]:
    """The same bytes in pieces of `piece_bytes`; the last, which may be empty, is shorter and always comes.

    Raises:
        BodyTooLarge: more than `bytes_max` came.
    """
    gathered = bytearray()
    size = 0
    async with _closed_at_the_end(chunks):
        async for chunk in chunks:
            size += len(chunk)
            if size > bytes_max:
                raise BodyTooLarge(f"The body has more than {bytes_max} bytes")
            gathered += chunk
            while len(gathered) >= piece_bytes:
                yield bytes(memoryview(gathered)[:piece_bytes])
                del gathered[:piece_bytes]
        yield bytes(gathered)


def _closed_at_the_end(chunks: AsyncIterable[bytes]) -> AbstractAsyncContextManager[object]:
    """A generator that is left in the middle must not wait for the garbage collector; nobody else can close it then."""
    return aclosing(chunks) if isinstance(chunks, AsyncGenerator) else nullcontext()


async def whole(raw: bytes) -> AsyncGenerator[bytes, None]:
    """Bytes that are here already, as a flow."""
    yield raw
