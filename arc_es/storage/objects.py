"""Objects of any size in a bucket of JetStream: written once under a fresh ref, found by a name that points there.

Decisions are read from the stream's leader; bytes, which never change, from any replica that has them. What no name
points to was broken off.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

import orjson
import trio

from arc_es.nats_bridge import Bridge
from arc_es.nats_frames import status_of
from arc_es.nats_streams import MESSAGE_NOT_FOUND, api, error_number
from arc_es.nats_streams import overwrite as overwrite_messages
from arc_es.ports import BodyStoreError, BodyStoreFull, BodyTooLarge, JournalUnavailable
from arc_es.storage.bucket import Bucket, Pointer, decode_pointer
from arc_es.storage.chunking import pieces
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
SUBJECTS_PAGE: Final = 100_000
"""As many as the server gives at a time."""
PAST_THE_END: Final = 1 << 40
"""An offset at which the server answers how many subjects there are, and none of them."""
ROLLUP: Final[Mapping[str, str]] = {"Nats-Rollup": "sub"}


class Objects:
    """The objects of one bucket, whose stream exists. All methods raise BodyStoreError."""

    def __init__(self, bridge: Bridge, bucket: Bucket) -> None:
        self._bridge = bridge
        self._bucket = bucket
        self._turns = trio.CapacityLimiter(UNDER_WAY_TOGETHER_MAX)
        self._readers = trio.CapacityLimiter(READERS_TOGETHER_MAX)

    # --- writing

    async def put(
        self, ref: str, chunks: AsyncIterable[bytes], bytes_max: int, take: Callable[[int], bool] = lambda size: True
    ) -> Pointer:
        """Store bytes under a fresh ref; no name points there yet. take: takes room, False if there is none.

        Raises:
            BodyTooLarge, BodyStoreFull: nothing is left behind.
            Whatever `chunks` raises.
        """
        try:
            return await self._put(ref, chunks, bytes_max, take)
        except (BodyStoreFull, BodyTooLarge):
            with suppress(BodyStoreError):
                await self.purge_chunks(ref)  # noqa: ASYNC120 - now, and not at the sweep: room is wanted
            raise

    async def _put(
        self, ref: str, chunks: AsyncIterable[bytes], bytes_max: int, take: Callable[[int], bool]
    ) -> Pointer:
        subject = self._bucket.chunk_subject(ref)
        digest = hashlib.sha256()
        size = count = 0
        with Window(self._bridge, self._turns) as window:
            async with pieces(chunks, CHUNK_BYTES, bytes_max) as flow:
                async for piece in flow:
                    if piece or not count:  # an empty body is one empty chunk, so that its ref is found like any other
                        if not take(len(piece)):
                            raise BodyStoreFull("What room is left is for running commands")
                        await window.publish(subject, piece)
                        digest.update(piece)
                        size += len(piece)
                        count += 1
            await window.acknowledged()
        return Pointer("", ref, size, count, digest.hexdigest())

    async def point(self, name: str, to: Pointer) -> None:
        """Have a name stand for these bytes from now on."""
        pointer = Pointer(name, to.ref, to.size, to.chunks, to.sha256)
        with Window(self._bridge, self._turns) as window:
            await window.publish(self._bucket.meta_subject(name), pointer.encode(self._bucket.name), ROLLUP)
            await window.acknowledged()

    async def purge_name(self, name: str, *, overwrite: bool = False) -> None:
        """Forget a name; its bytes stay. overwrite: what is stored of it may not stay on the disk."""
        await self._purge(self._bucket.meta_subject(name), overwrite=overwrite)

    async def purge_chunks(self, ref: str, *, overwrite: bool = False) -> None:
        """Forget the bytes of a ref. overwrite: they may not stay on the disk."""
        await self._purge(self._bucket.chunk_subject(ref), overwrite=overwrite)

    async def _purge(self, subject: str, *, overwrite: bool) -> None:
        if overwrite:
            with _troubles():
                await overwrite_messages(self._bridge, self._bucket.stream, subject)
        else:
            await self._api("STREAM.PURGE", {"filter": subject})

    # --- reading

    async def pointer(self, name: str) -> Pointer | None:
        """Where the bytes of a name are, from the leader; None if there are none."""
        stored = await self._stored({"last_by_subj": self._bucket.meta_subject(name)})
        return None if stored is None else decode_pointer(stored[1])

    async def whole(self, pointer: Pointer) -> bool:
        """Whether all the chunks are there."""
        subject = self._bucket.chunk_subject(pointer.ref)
        counts = (await self._api("STREAM.INFO", {"subjects_filter": subject}))["state"].get("subjects") or {}
        return int(counts.get(subject, 0)) == pointer.chunks

    async def chunks(self, pointer: Pointer) -> AsyncGenerator[bytes, None]:
        """The bytes, as they come."""
        subject = self._bucket.chunk_subject(pointer.ref)
        left = pointer.size
        at = 0
        while left > 0:
            for at, data in await self._page(subject, at + 1):  # noqa: B007, B020 - the next page starts after the last
                left -= len(data)
                yield data
        if left < 0:
            raise BodyStoreError(f"{pointer.ref} has more bytes than it should")

    async def pointers(self) -> AsyncGenerator[Pointer, None]:
        """What each name stands for, in order of writing."""
        at = 0
        while page := await self._replica_page(self._bucket.meta + ">", at + 1):
            for at, payload in page:  # noqa: B007 - the next page starts after the last
                pointer = decode_pointer(payload)
                if pointer is not None:
                    yield pointer

    async def refs(self) -> AsyncGenerator[list[str], None]:
        """All refs under which there are bytes, in pages.

        From the last to the first: so nothing is left out when the caller deletes what it has got.
        """
        end = int((await self._subjects(PAST_THE_END)).get("total", 0))
        while end > 0:
            answer = await self._subjects(max(0, end - SUBJECTS_PAGE))
            start = int(answer.get("offset", 0))
            subjects = sorted(answer["state"].get("subjects") or ())
            yield [subject.removeprefix(self._bucket.chunks) for subject in subjects[: end - start]]
            end = start

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
                    f"$JS.API.DIRECT.GET.{self._bucket.stream}",
                    orjson.dumps(request),
                    is_last=lambda answer: status_of(answer) is not None,
                )
        return [(int((answer.headers or {})["Nats-Sequence"]), answer.data) for answer in answers[:-1]]

    async def _subjects(self, offset: int) -> dict[str, Any]:
        """The `total` of chunk subjects, and those from `offset` on, in order."""
        return await self._api("STREAM.INFO", {"subjects_filter": self._bucket.chunks + ">", "offset": offset})

    async def _stored(self, request: Mapping[str, Any]) -> tuple[int, bytes] | None:
        """Position and payload of a message, from the leader; None if there is none."""
        answer = await self._api("STREAM.MSG.GET", request)
        if "message" not in answer:
            return None
        return int(answer["message"]["seq"]), base64.b64decode(answer["message"].get("data", ""))

    async def _api(self, call: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """An answer of the stream's leader; the one error that may be in it is "no message found"."""
        with _troubles():
            answer = await api(self._bridge, f"{call}.{self._bucket.stream}", request)
        if error_number(answer) not in (0, MESSAGE_NOT_FOUND):
            raise BodyStoreError(f"NATS refused: {answer['error'].get('description')} ({error_number(answer)})")
        return answer


@contextmanager
def _troubles() -> Iterator[None]:
    try:
        yield
    except JournalUnavailable as error:
        raise BodyStoreError(str(error)) from error
    except trio.TooSlowError as error:
        raise BodyStoreError("Too many bodies are read, or NATS is too slow") from error
