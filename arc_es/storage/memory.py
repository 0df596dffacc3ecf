"""The body store in memory: the verified twin of the others, for tests and for trying things out.

It passes the same contract suite (`tests/contract/test_body_store.py`) and leaves the same remains as the object store
does. Nothing survives the process. Faults are switched on by `fault`, `lose` and `gate`.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing, asynccontextmanager
from typing import Final

import trio

from arc_es.ports import (
    BodyMissing,
    BodyReader,
    BodyStoreError,
    BodyStoreFull,
    BodyTooLarge,
    Clock,
    Slot,
    StoredBody,
    StoredName,
    SystemClock,
)
from arc_es.storage.chunking import pieces, whole
from arc_es.storage.names import is_ref, new_ref, stored_ref

CHUNK_BYTES: Final = 64 * 1024


class BodyFault(enum.Enum):
    """What is wrong with a `MemoryBodyStore`."""

    UNREACHABLE = "unreachable"
    """Nothing can be read or written."""
    FULL = "full"
    """Nothing can be written for want of room."""


class MemoryBodyStore:
    """A `BodyStore` in dictionaries.

    fault: what is wrong with it now, None if nothing is. gate: a slow store; whoever comes waits until it is set.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.fault: BodyFault | None = None
        self.gate: trio.Event | None = None
        self._clock = clock or SystemClock()
        self._bodies: dict[str, bytes] = {}  # also what was broken off
        self._uploads: dict[Slot, str] = {}
        self._sealed: dict[str, StoredBody] = {}

    def lose(self, ref: str) -> None:
        """Forget sealed bytes behind everybody's back."""
        del self._bodies[ref], self._sealed[ref]

    async def upload(self, slot: Slot, chunks: AsyncIterable[bytes], bytes_max: int) -> None:
        self._uploads[slot] = await self._store(slot, chunks, bytes_max)

    async def seal(self, slot: Slot) -> StoredBody | None:
        await self._reach()
        ref = self._uploads.get(slot, "")
        raw = self._bodies.get(ref)
        return None if raw is None else self._seal(ref, raw)

    async def keep(self, slot: Slot, raw: bytes) -> StoredBody:
        ref = await self._store(slot, whole(raw), len(raw))
        return self._seal(ref, raw)

    @asynccontextmanager
    async def read(self, name: str) -> AsyncGenerator[BodyReader, None]:
        await self._reach()
        ref = name if name in self._sealed else self._upload_at(name)
        raw = self._bodies.get(ref)
        if raw is None:
            raise BodyMissing(name)
        async with aclosing(self._slices(raw)) as slices:
            yield BodyReader(len(raw), slices)

    async def exists(self, ref: str) -> bool:
        await self._reach()
        return ref in self._sealed

    async def delete(self, name: str, *, overwrite: bool = False) -> None:
        await self._reach()
        self._uploads = {slot: ref for slot, ref in self._uploads.items() if slot.path != name}
        self._bodies.pop(name, None)
        self._sealed.pop(name, None)

    async def names(self) -> AsyncGenerator[StoredName, None]:
        await self._reach()
        uploads = dict(self._uploads)
        for slot, ref in uploads.items():
            stored = stored_ref(ref)
            if stored is not None:
                yield StoredName(slot.path, slot, stored.at, is_upload=True)
        for ref in list(self._bodies):
            stored = stored_ref(ref)
            if stored is not None and (ref in self._sealed or ref not in uploads.values()):
                yield stored

    def upload_url(self, slot: Slot, seconds: int) -> str | None:
        return None

    def download_url(self, ref: str, seconds: int) -> str | None:
        return None

    async def _store(self, slot: Slot, chunks: AsyncIterable[bytes], bytes_max: int) -> str:
        """Store bytes under a fresh ref. Broken off, what came so far stays there, but not for want of room."""
        ref = new_ref(slot, self._clock.now())
        gathered = bytearray()
        try:
            async with pieces(chunks, CHUNK_BYTES, bytes_max) as flow:
                async for piece in flow:
                    await self._reach(writing=True)
                    gathered += piece
        except (BodyStoreFull, BodyTooLarge):
            raise
        except BaseException:
            self._bodies[ref] = bytes(gathered)
            raise
        self._bodies[ref] = bytes(gathered)
        return ref

    def _seal(self, ref: str, raw: bytes) -> StoredBody:
        self._sealed[ref] = body = StoredBody(ref, len(raw), hashlib.sha256(raw).hexdigest())
        return body

    def _upload_at(self, path: str) -> str:
        return "" if is_ref(path) else next((ref for slot, ref in self._uploads.items() if slot.path == path), "")

    async def _slices(self, raw: bytes) -> AsyncGenerator[bytes, None]:
        for start in range(0, len(raw), CHUNK_BYTES):
            await self._reach()
            yield raw[start : start + CHUNK_BYTES]

    async def _reach(self, *, writing: bool = False) -> None:
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        if self.fault is BodyFault.UNREACHABLE:
            raise BodyStoreError("The body store is switched off")
        if writing and self.fault is BodyFault.FULL:
            raise BodyStoreFull("The body store has no room")
