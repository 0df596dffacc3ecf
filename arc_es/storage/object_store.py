"""The default body store: a JetStream object store on the journal's own connection, replicated as the journal is.

An upload is chunks under a fresh ref, then one message at the slot's name which points there: broken off before that
message, the upload before it stays. To seal is to point the ref's own name there too; bytes of a ref are never written
again. What no name points to is an orphan: `names` lists it by its ref, `delete` frees it. Decisions are read from the
stream's leader; bytes, which never change, from any replica that has them.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import Any, Final, TypeAlias

import orjson
import trio

from arc_es.nats_bridge import Bridge
from arc_es.nats_frames import status_of
from arc_es.nats_streams import api, ensure, error_number
from arc_es.ports import (
    BodyKind,
    BodyMissing,
    BodyReader,
    BodyStoreError,
    BodyStoreFull,
    BodyStoreMismatch,
    BodyTooLarge,
    Clock,
    JournalUnavailable,
    Slot,
    StoredBody,
    StoredName,
    SystemClock,
)
from arc_es.storage.bucket import (
    CHUNKS,
    META,
    STREAM,
    Pointer,
    chunk_subject,
    decode_pointer,
    meta_subject,
    stream_config,
)
from arc_es.storage.chunking import pieces, whole
from arc_es.storage.names import is_ref, new_ref, slot_of, stored_ref
from arc_es.storage.window import UNDER_WAY_TOGETHER_MAX, Window

CHUNK_BYTES: Final = 512 * 1024
"""Each chunk costs one fsync, and memory: some are under way at a time."""
PAGE_BYTES: Final = 1024 * 1024
"""Bytes read at a time by one reader."""
READERS_TOGETHER_MAX: Final = 4
"""Pages on their way to all readers: the journal's acknowledgements must not wait long behind them."""
READ_SECONDS: Final = 10.0
"""How long a page may take, with waiting for its turn."""
PAGE_MESSAGES: Final = 256
MESSAGE_NOT_FOUND: Final = 10037
DIRECT_GET: Final = f"$JS.API.DIRECT.GET.{STREAM}"
SUBJECTS_PAGE: Final = 100_000
"""As many as the server gives at a time."""
PAST_THE_END: Final = 1 << 40
"""An offset at which the server answers how many subjects there are, and none of them."""
ROLLUP: Final[Mapping[str, str]] = {"Nats-Rollup": "sub"}


Take: TypeAlias = Callable[[int, BodyKind], bool]
"""Takes so many bytes of the room that bodies share with the journal; False if it has none for them."""


def unlimited(size_bytes: int, kind: BodyKind) -> bool:
    """Room for whatever comes."""
    return True


class ObjectStore:
    """A `BodyStore` in the bucket ARC. Made by `open_object_store`."""

    def __init__(self, bridge: Bridge, take: Take = unlimited, clock: Clock | None = None) -> None:
        self._bridge = bridge
        self._take = take
        self._clock = clock or SystemClock()
        self._turns = trio.CapacityLimiter(UNDER_WAY_TOGETHER_MAX)
        self._readers = trio.CapacityLimiter(READERS_TOGETHER_MAX)

    async def upload(self, slot: Slot, chunks: AsyncIterable[bytes], bytes_max: int) -> None:
        await self._store(slot, chunks, bytes_max, sealed=False)

    async def seal(self, slot: Slot) -> StoredBody | None:
        pointer = await self._pointer(slot.path)
        if pointer is None or not await self._whole(pointer):
            return None
        with Window(self._bridge, self._turns) as window:
            await self._point(window, pointer.ref, pointer)
        return StoredBody(pointer.ref, pointer.size, pointer.sha256)

    async def keep(self, slot: Slot, raw: bytes) -> StoredBody:
        pointer = await self._store(slot, whole(raw), len(raw), sealed=True)
        return StoredBody(pointer.ref, pointer.size, pointer.sha256)

    @asynccontextmanager
    async def read(self, name: str) -> AsyncGenerator[BodyReader, None]:
        pointer = await self._pointer(name)
        if pointer is None or not (is_ref(name) or await self._whole(pointer)):  # the ref of an upload may be deleted
            raise BodyMissing(name)
        async with aclosing(self._chunks(pointer)) as chunks:
            yield BodyReader(pointer.size, chunks)

    async def exists(self, ref: str) -> bool:
        pointer = await self._pointer(ref)
        return pointer is not None and await self._whole(pointer)

    async def delete(self, name: str) -> None:
        await self._purge(meta_subject(name))
        if is_ref(name):
            await self._purge(chunk_subject(name))  # in this order: what is broken off here is an orphan

    async def names(self) -> AsyncGenerator[StoredName, None]:
        uploaded: set[str] = set()
        at = 0
        while page := await self._replica_page(META + ">", at + 1):
            for at, payload in page:  # noqa: B007 - the next page starts after the last
                pointer = decode_pointer(payload)
                upload = None if pointer is None else _stored_upload(pointer)
                if pointer is not None and upload is not None:
                    uploaded.add(pointer.ref)
                    yield upload
        end: int | None = None
        while end != 0:
            end, refs = await self._refs_before(end)
            for ref in refs:
                stored = stored_ref(ref)
                if stored is not None and (ref not in uploaded or await self._pointer(ref) is not None):
                    yield stored

    def upload_url(self, slot: Slot, seconds: int) -> str | None:
        return None

    def download_url(self, ref: str, seconds: int) -> str | None:
        return None

    # --- writing

    async def _store(self, slot: Slot, chunks: AsyncIterable[bytes], bytes_max: int, *, sealed: bool) -> Pointer:
        """Store bytes under a fresh ref, then point there: from the slot, or from the ref itself."""
        ref = new_ref(slot, self._clock.now())
        try:
            pointer = await self._store_chunks(ref, slot.kind, chunks, bytes_max)
        except (BodyStoreFull, BodyTooLarge):
            with suppress(BodyStoreError):
                await self._purge(chunk_subject(ref))  # noqa: ASYNC120 - now, and not at the sweep: room is wanted
            raise
        with Window(self._bridge, self._turns) as window:
            await self._point(window, ref if sealed else slot.path, pointer)
        return pointer

    async def _store_chunks(self, ref: str, kind: BodyKind, chunks: AsyncIterable[bytes], bytes_max: int) -> Pointer:
        subject = chunk_subject(ref)
        digest = hashlib.sha256()
        size = count = 0
        with Window(self._bridge, self._turns) as window:
            async with pieces(chunks, CHUNK_BYTES, bytes_max) as flow:
                async for piece in flow:
                    if piece or not count:  # an empty body is one empty chunk, so that its ref is found like any other
                        if not self._take(len(piece), kind):
                            raise BodyStoreFull("What room is left is for running commands")
                        await window.publish(subject, piece)
                        digest.update(piece)
                        size += len(piece)
                        count += 1
            await window.acknowledged()
        return Pointer("", ref, size, count, digest.hexdigest())

    async def _point(self, window: Window, name: str, to: Pointer) -> None:
        pointer = Pointer(name, to.ref, to.size, to.chunks, to.sha256)
        await window.publish(meta_subject(name), pointer.encode(), ROLLUP)
        await window.acknowledged()

    async def _purge(self, subject: str) -> None:
        await self._api("STREAM.PURGE", {"filter": subject})

    # --- reading

    async def _pointer(self, name: str) -> Pointer | None:
        """Where the bytes of a name are, from the leader; None if there are none."""
        stored = await self._stored({"last_by_subj": meta_subject(name)})
        return None if stored is None else decode_pointer(stored[1])

    async def _whole(self, pointer: Pointer) -> bool:
        """Whether all the chunks are there."""
        subject = chunk_subject(pointer.ref)
        counts = (await self._api("STREAM.INFO", {"subjects_filter": subject}))["state"].get("subjects") or {}
        return int(counts.get(subject, 0)) == pointer.chunks

    async def _chunks(self, pointer: Pointer) -> AsyncGenerator[bytes, None]:
        subject = chunk_subject(pointer.ref)
        left = pointer.size
        at = 0
        while left > 0:
            for at, data in await self._page(subject, at + 1):  # noqa: B007, B020 - the next page starts after the last
                left -= len(data)
                yield data
        if left < 0:
            raise BodyStoreError(f"{pointer.ref} has more bytes than it should")

    async def _page(self, subject: str, start: int) -> list[tuple[int, bytes]]:
        """Some messages of a subject with their positions, from a replica, or the next one from the leader."""
        page = await self._replica_page(subject, start)
        if not page:
            stored = await self._stored({"seq": start, "next_by_subj": subject})
            if stored is None:
                raise BodyStoreError("The bytes went away while they were read")
            page = [stored]
        return page

    async def _replica_page(self, subject: str, start: int) -> list[tuple[int, bytes]]:
        request = {"seq": start, "next_by_subj": subject, "batch": PAGE_MESSAGES, "max_bytes": PAGE_BYTES}
        with _troubles(), trio.fail_after(READ_SECONDS):
            async with self._readers:
                answers = await self._bridge.collect(
                    DIRECT_GET, orjson.dumps(request), is_last=lambda answer: status_of(answer) is not None
                )
        return [(int((answer.headers or {})["Nats-Sequence"]), answer.data) for answer in answers[:-1]]

    async def _refs_before(self, end: int | None) -> tuple[int, list[str]]:
        """A page of refs under which there are chunks, and where it starts; the last page comes before None.

        From the last to the first: so nothing is left out when the caller deletes what it has got.
        """
        if end is None:
            end = int((await self._subjects(PAST_THE_END)).get("total", 0))
        answer = await self._subjects(max(0, end - SUBJECTS_PAGE))
        start = int(answer.get("offset", 0))
        subjects = sorted(answer["state"].get("subjects") or ())
        return start, [subject.removeprefix(CHUNKS) for subject in subjects[: end - start]]

    async def _subjects(self, offset: int) -> dict[str, Any]:
        """The `total` of chunk subjects, and those from `offset` on, in order."""
        return await self._api("STREAM.INFO", {"subjects_filter": CHUNKS + ">", "offset": offset})

    async def _stored(self, request: Mapping[str, Any]) -> tuple[int, bytes] | None:
        """Position and payload of a message, from the leader; None if there is none."""
        answer = await self._api("STREAM.MSG.GET", request)
        if "message" not in answer:
            return None
        return int(answer["message"]["seq"]), base64.b64decode(answer["message"].get("data", ""))

    async def _api(self, call: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """An answer of the stream's leader; the one error that may be in it is "no message found"."""
        with _troubles():
            answer = await api(self._bridge, f"{call}.{STREAM}", request)
        if error_number(answer) not in (0, MESSAGE_NOT_FOUND):
            raise BodyStoreError(f"NATS refused: {answer['error'].get('description')} ({error_number(answer)})")
        return answer


def _stored_upload(pointer: Pointer) -> StoredName | None:
    """What a pointer says of the newest upload of a slot; None if it is of a sealed body, or not ours."""
    slot, stored = slot_of(pointer.name), stored_ref(pointer.ref)
    if slot is None or stored is None or is_ref(pointer.name):
        return None
    return StoredName(pointer.name, slot, stored.at, is_upload=True)


@contextmanager
def _troubles() -> Iterator[None]:
    try:
        yield
    except JournalUnavailable as error:
        raise BodyStoreError(str(error)) from error
    except trio.TooSlowError as error:
        raise BodyStoreError("Too many bodies are read, or NATS is too slow") from error


async def open_object_store(bridge: Bridge, *, replicas: int, bytes_max: int, take: Take = unlimited) -> ObjectStore:
    """The body store on a bridge that is connected; its bucket is made or compared. bytes_max -1: no limit of its own.

    Raises:
        BodyStoreMismatch: the bucket is not as this version needs it.
        JournalUnavailable: JetStream cannot be reached.
    """
    config = stream_config(replicas, bytes_max)
    await ensure(bridge, config, size_setting="body_store_bytes_max", mismatch=BodyStoreMismatch)
    return ObjectStore(bridge, take)
