"""The default body store: a JetStream object store on the journal's own connection, replicated as the journal is.

An upload is chunks under a fresh ref, then one message at the slot's name which points there: broken off before that
message, the upload before it stays. To seal is to point the ref's own name there too; bytes of a ref are never written
again. What no name points to is an orphan: `names` lists it by its ref, `delete` frees it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TypeAlias

from arc_es.nats_bridge import Bridge
from arc_es.nats_streams import ensure
from arc_es.ports import (
    BodyKind,
    BodyMissing,
    BodyReader,
    BodyStoreMismatch,
    Clock,
    Slot,
    StoredBody,
    StoredName,
    SystemClock,
)
from arc_es.storage.bucket import BODIES, Pointer
from arc_es.storage.chunking import whole
from arc_es.storage.names import is_ref, new_ref, slot_of, stored_ref
from arc_es.storage.objects import Objects

Take: TypeAlias = Callable[[int, BodyKind], bool]
"""Takes so many bytes of the room that bodies share with the journal; False if it has none for them."""


def unlimited(size_bytes: int, kind: BodyKind) -> bool:
    """Room for whatever comes."""
    return True


class ObjectStore:
    """A `BodyStore` in the bucket ARC. Made by `open_object_store`."""

    def __init__(self, bridge: Bridge, take: Take = unlimited, clock: Clock | None = None) -> None:
        self._objects = Objects(bridge, BODIES)
        self._take = take
        self._clock = clock or SystemClock()

    async def upload(self, slot: Slot, chunks: AsyncIterable[bytes], bytes_max: int) -> None:
        await self._store(slot, chunks, bytes_max, sealed=False)

    async def seal(self, slot: Slot) -> StoredBody | None:
        pointer = await self._objects.pointer(slot.path)
        if pointer is None or not await self._objects.whole(pointer):
            return None
        await self._objects.point(pointer.ref, pointer)
        return StoredBody(pointer.ref, pointer.size, pointer.sha256)

    async def keep(self, slot: Slot, raw: bytes) -> StoredBody:
        pointer = await self._store(slot, whole(raw), len(raw), sealed=True)
        return StoredBody(pointer.ref, pointer.size, pointer.sha256)

    async def _store(self, slot: Slot, chunks: AsyncIterable[bytes], bytes_max: int, *, sealed: bool) -> Pointer:
        """Store bytes under a fresh ref, then point there: from the slot, or from the ref itself."""
        ref = new_ref(slot, self._clock.now())
        pointer = await self._objects.put(ref, chunks, bytes_max, lambda size: self._take(size, slot.kind))
        await self._objects.point(ref if sealed else slot.path, pointer)
        return pointer

    @asynccontextmanager
    async def read(self, name: str) -> AsyncGenerator[BodyReader, None]:
        pointer = await self._objects.pointer(name)
        # the ref of an upload may be deleted
        if pointer is None or not (is_ref(name) or await self._objects.whole(pointer)):
            raise BodyMissing(name)
        async with aclosing(self._objects.chunks(pointer)) as chunks:
            yield BodyReader(pointer.size, chunks)

    async def exists(self, ref: str) -> bool:
        pointer = await self._objects.pointer(ref)
        return pointer is not None and await self._objects.whole(pointer)

    async def delete(self, name: str, *, overwrite: bool = False) -> None:
        await self._objects.purge_name(name, overwrite=overwrite)
        if is_ref(name):
            await self._objects.purge_chunks(
                name, overwrite=overwrite
            )  # in this order: what is broken off here is an orphan

    async def names(self) -> AsyncGenerator[StoredName, None]:
        uploaded: set[str] = set()
        async with aclosing(self._objects.pointers()) as pointers:
            async for pointer in pointers:
                upload = _stored_upload(pointer)
                if upload is not None:
                    uploaded.add(pointer.ref)
                    yield upload
        async with aclosing(self._objects.refs()) as pages:
            async for refs in pages:
                for ref in refs:
                    stored = stored_ref(ref)
                    if stored is not None and (ref not in uploaded or await self._objects.pointer(ref) is not None):
                        yield stored

    def upload_url(self, slot: Slot, seconds: int) -> str | None:
        return None

    def download_url(self, ref: str, seconds: int) -> str | None:
        return None


def _stored_upload(pointer: Pointer) -> StoredName | None:
    """What a pointer says of the newest upload of a slot; None if it is of a sealed body, or not ours."""
    slot, stored = slot_of(pointer.name), stored_ref(pointer.ref)
    if slot is None or stored is None or is_ref(pointer.name):
        return None
    return StoredName(pointer.name, slot, stored.at, is_upload=True)


async def open_object_store(bridge: Bridge, *, replicas: int, bytes_max: int, take: Take = unlimited) -> ObjectStore:
    """The body store on a bridge that is connected; its bucket is made or compared. bytes_max -1: no limit of its own.

    Raises:
        BodyStoreMismatch: the bucket is not as this version needs it.
        JournalUnavailable: JetStream cannot be reached.
    """
    config = BODIES.stream_config(replicas, bytes_max)
    await ensure(bridge, config, size_setting="body_store_bytes_max", mismatch=BodyStoreMismatch)
    return ObjectStore(bridge, take)
