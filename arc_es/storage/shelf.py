"""Files that nodes share, in a bucket beside the journal: whole or not there, compressed on the way."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Final

import trio
import zstandard

from arc_es.config import Config
from arc_es.nats_access import Access
from arc_es.nats_bridge import Bridge, open_bridge
from arc_es.nats_streams import ensure
from arc_es.ports import BodyStoreError, BodyStoreMismatch
from arc_es.storage.bucket import Bucket
from arc_es.storage.objects import Objects

SNAPSHOTS: Final = Bucket("ARC_SNAPSHOTS")
"""Copies of what nodes have made of the journal: none of it is lost when the bucket is deleted."""
LEVEL: Final = 1
PIECE_BYTES: Final = 1024 * 1024
BYTES_MAX: Final = 1 << 40


class Shelf:
    """The files in the bucket. All methods raise BodyStoreError."""

    def __init__(self, bridge: Bridge) -> None:
        self._objects = Objects(bridge, SNAPSHOTS)

    async def names(self) -> list[str]:
        """The names of all files."""
        async with aclosing(self._objects.pointers()) as pointers:
            return [pointer.name async for pointer in pointers]

    async def broken_off(self) -> list[str]:
        """The names of files that were never finished, or are being written now."""
        whole = set(await self.names())
        async with aclosing(self._objects.refs()) as pages:
            return [ref async for refs in pages for ref in refs if ref not in whole]

    async def put(self, name: str, path: Path) -> None:
        """Store a file under a name that nobody has had. Raises OSError: it cannot be read."""
        async with aclosing(_packed(path)) as chunks:
            await self._objects.point(name, await self._objects.put(name, chunks, BYTES_MAX))

    async def get(self, name: str, path: Path) -> None:
        """Write a file, whole and as it was stored, or not at all. Raises OSError: it cannot be written."""
        pointer = await self._objects.pointer(name)
        if pointer is None:
            raise BodyStoreError(f"{name} is not there any more")
        part = path.with_name(f"{path.name}.part")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            async with aclosing(self._objects.chunks(pointer)) as chunks:
                await _unpack(chunks, part, pointer.sha256)
            part.rename(path)
        finally:
            part.unlink(missing_ok=True)

    async def remove(self, name: str, *, overwrite: bool = False) -> None:
        """Forget a file; harmless when it is gone. overwrite: its bytes may not stay on the disk."""
        await self._objects.purge_name(name, overwrite=overwrite)
        await self._objects.purge_chunks(name, overwrite=overwrite)


async def _packed(path: Path) -> AsyncGenerator[bytes, None]:
    packer = zstandard.ZstdCompressor(level=LEVEL).compressobj()
    async with await trio.open_file(path, "rb") as file:
        while piece := await file.read(PIECE_BYTES):
            yield await trio.to_thread.run_sync(packer.compress, piece)
    yield packer.flush()


async def _unpack(chunks: AsyncGenerator[bytes, None], path: Path, sha256: str) -> None:
    """Write what was packed to a file, and on disk. Raises BodyStoreError: it is not what was stored."""
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    digest = hashlib.sha256()
    file = await trio.to_thread.run_sync(lambda: os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb"))
    with file:
        file.truncate()

        def take(chunk: bytes) -> None:
            digest.update(chunk)
            file.write(unpacker.decompress(chunk))

        try:
            async for chunk in chunks:
                await trio.to_thread.run_sync(take, chunk)
        except zstandard.ZstdError as error:
            raise BodyStoreError(f"What is stored cannot be read: {error}") from error
        if digest.hexdigest() != sha256:
            raise BodyStoreError("What is stored is damaged")
        file.flush()
        await trio.to_thread.run_sync(os.fsync, file.fileno())


@asynccontextmanager
async def open_shelf(config: Config) -> AsyncGenerator[Shelf, None]:
    """The shelf in the NATS of `nats_url`, over a connection of its own.

    Raises, in a group while the body runs:
        JournalUnavailable: JetStream cannot be reached.
        BodyStoreMismatch: the bucket is not as this version needs it.
    """
    assert config.nats_url is not None, "nodes that share have a NATS server that they share"
    async with open_bridge(Access([config.nats_url])) as bridge:
        await bridge.wait_available()
        wanted = SNAPSHOTS.stream_config(config.replicas, -1)
        await ensure(bridge, wanted, size_setting="max_bytes", mismatch=BodyStoreMismatch)
        yield Shelf(bridge)
