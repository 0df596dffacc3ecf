"""A flow of bytes in pieces of one size, counted on the way."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing, asynccontextmanager, nullcontext

from arc_es.ports import BodyTooLarge


@asynccontextmanager
async def pieces(
    chunks: AsyncIterable[bytes], piece_bytes: int, bytes_max: int
) -> AsyncGenerator[AsyncGenerator[bytes, None], None]:
    """The same bytes in pieces of `piece_bytes`; the last, which may be empty, is shorter and always comes.

    A generator that is left in the middle is closed: it must not wait for the garbage collector.

    Raises:
        BodyTooLarge: more than `bytes_max` came. Raised by the pieces, as is whatever `chunks` raises.
    """
    source = aclosing(chunks) if isinstance(chunks, AsyncGenerator) else nullcontext(chunks)
    async with source, aclosing(_pieces(chunks, piece_bytes, bytes_max)) as flow:
        yield flow


async def _pieces(chunks: AsyncIterable[bytes], piece_bytes: int, bytes_max: int) -> AsyncGenerator[bytes, None]:
    gathered = bytearray()
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > bytes_max:
            raise BodyTooLarge(f"The body has more than {bytes_max} bytes")
        gathered += chunk
        while len(gathered) >= piece_bytes:
            yield bytes(memoryview(gathered)[:piece_bytes])
            del gathered[:piece_bytes]
    yield bytes(gathered)


async def whole(raw: bytes) -> AsyncGenerator[bytes, None]:
    """Bytes that are here already, as a flow."""
    yield raw
