"""Bodies with a provider that speaks S3. Clients move them straight to and from it, by presigned URLs.

    <prefix>/<slot path>/upload     the newest upload of a slot; whoever has the URL may write it until that expires
    <prefix>/<ref>                  a sealed body: a copy made by the provider, which no client has a URL to write

obstore's own threads do the work; its blocking calls wait in worker threads of trio, a bounded number of them. What
the provider does not answer is told from what it does not have by looking twice: "no such bucket" is a 404 as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final, ParamSpec, TypeVar

import obstore
import trio
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from arc_es.domain.limits import SECOND
from arc_es.ports import (
    BodyMissing,
    BodyReader,
    BodyStoreError,
    BodyStoreMismatch,
    BodyTooLarge,
    Clock,
    Slot,
    StoredBody,
    StoredName,
    SystemClock,
)
from arc_es.storage.chunking import pieces
from arc_es.storage.names import is_ref, new_ref, slot_of, stored_ref

PART_BYTES: Final = 5 * 1024 * 1024
"""The least that S3 takes as one part of many."""
PARTS_UNDER_WAY: Final = 2
CHUNK_BYTES: Final = 1024 * 1024
NAMES_PAGE: Final = 1_000
CALLS_MAX: Final = 16
"""Calls under way together; any more wait for one to end."""
UPLOADS_MAX: Final = 16
"""Uploads in parts through us under way together: each takes as long as its client."""
CONNECT_SECONDS: Final = 5
SILENCE_SECONDS: Final = 20
"""How long the provider may say nothing; a part must be sent, and a copy made, in this time."""
TRANSFER_SECONDS: Final = 3_600
RETRIES: Final = 2
RETRY_SECONDS: Final = 20
CALL_SECONDS: Final = 60.0
"""How long a call may take, with its retries and waiting for its turn. A whole body is many calls."""
REASON_CHARS: Final = 300
UPLOAD: Final = "/upload"
NO_BUCKET: Final = "NoSuchBucket"

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class S3Access:
    """Where the bucket is and who we are there. endpoint None: Amazon's. prefix: of all keys, no slash at its ends."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str = "us-east-1"
    key_id: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)

    def store(self) -> S3Store:
        """The client. Nothing is sent yet."""
        return S3Store(
            self.bucket,
            endpoint=self.endpoint or f"https://s3.{self.region}.amazonaws.com",
            region=self.region,
            access_key_id=self.key_id,
            secret_access_key=self.secret,
            client_options={
                "allow_http": self.endpoint is not None and self.endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                "read_timeout": timedelta(seconds=SILENCE_SECONDS),
                "timeout": timedelta(seconds=TRANSFER_SECONDS),
            },
            retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
        )


class S3BodyStore:
    """A `BodyStore` in a bucket. bytes_max: the largest upload that is sealed; the provider takes larger ones."""

    def __init__(self, access: S3Access, bytes_max: int, clock: Clock | None = None) -> None:
        self._store = access.store()
        self._root = f"{access.prefix}/" if access.prefix else ""
        self._bytes_max = bytes_max
        self._clock = clock or SystemClock()
        self._limiter = trio.CapacityLimiter(CALLS_MAX)
        self._upload_limiter = trio.CapacityLimiter(UPLOADS_MAX)

    async def check(self) -> None:
        """See that the bucket can be used.

        Raises:
            BodyStoreMismatch: there is no such bucket, or our keys are not good for it.
            BodyStoreError: the provider does not answer.
        """
        try:
            await self.exists("arc/commands")
        except BodyStoreError as error:
            if isinstance(error.__cause__, PermissionDeniedError | UnauthenticatedError):
                raise BodyStoreMismatch(f"{error} Set ARC_S3_ACCESS_KEY_ID, ARC_S3_SECRET_ACCESS_KEY.") from error
            if NO_BUCKET in str(error.__cause__):
                raise BodyStoreMismatch(f"{error} Make the bucket, or correct body_store.") from error
            raise

    async def upload(self, slot: Slot, chunks: AsyncIterable[bytes], bytes_max: int) -> None:
        new_ref(slot, 0)  # refuses an id that could do harm in a path
        async with pieces(chunks, PART_BYTES, bytes_max) as flow:
            first = await anext(flow)
            if len(first) < PART_BYTES:
                await self._call(obstore.put, self._store, self._key(slot.path), first)
            else:
                await self._upload_parts(self._key(slot.path), first, flow)

    async def seal(self, slot: Slot) -> StoredBody | None:
        ref = new_ref(slot, self._clock.now())
        try:
            await self._find(slot.path, obstore.copy, self._store, self._key(slot.path), self._key(ref))
        except BodyMissing:
            return None
        digest = hashlib.sha256()
        size = 0
        async with self.read(ref) as body:
            if body.size > self._bytes_max:
                await self.delete(ref)
                raise BodyTooLarge(f"The upload has {body.size} bytes, and {self._bytes_max} are allowed")
            async for chunk in body.chunks:
                digest.update(chunk)
                size += len(chunk)
        return StoredBody(ref, size, digest.hexdigest())

    async def keep(self, slot: Slot, raw: bytes) -> StoredBody:
        ref = new_ref(slot, self._clock.now())
        await self._call(obstore.put, self._store, self._key(ref), raw)
        return StoredBody(ref, len(raw), hashlib.sha256(raw).hexdigest())

    @asynccontextmanager
    async def read(self, name: str) -> AsyncGenerator[BodyReader, None]:
        result = await self._find(name, obstore.get, self._store, self._key(name))
        async with aclosing(self._chunks(result.stream(CHUNK_BYTES))) as chunks:
            yield BodyReader(result.meta["size"], chunks)

    async def exists(self, ref: str) -> bool:
        try:
            await self._find(ref, obstore.head, self._store, self._key(ref))
        except BodyMissing:
            return False
        return True

    async def delete(self, name: str, *, overwrite: bool = False) -> None:
        with suppress(BodyMissing):
            await self._find(name, obstore.delete, self._store, self._key(name))

    async def names(self) -> AsyncGenerator[StoredName, None]:
        pages = iter(obstore.list(self._store, f"{self._root}arc/commands", chunk_size=NAMES_PAGE))
        while page := await self._call(next, pages, None):
            for entry in page:
                name = entry["path"].removeprefix(self._root)
                slot = slot_of(name.removesuffix(UPLOAD))
                if slot is not None and name == slot.path + UPLOAD:
                    at = int(entry["last_modified"].timestamp() * SECOND)
                    yield StoredName(slot.path, slot, at, is_upload=True)
                elif (stored := stored_ref(name)) is not None:
                    yield stored

    def upload_url(self, slot: Slot, seconds: int) -> str | None:
        new_ref(slot, 0)
        return obstore.sign(self._store, "PUT", self._key(slot.path), timedelta(seconds=seconds))

    def download_url(self, ref: str, seconds: int) -> str | None:
        return obstore.sign(self._store, "GET", self._key(ref), timedelta(seconds=seconds))

    def _key(self, name: str) -> str:
        return self._root + (name if is_ref(name) else name + UPLOAD)

    async def _upload_parts(self, key: str, first: bytes, flow: AsyncGenerator[bytes, None]) -> None:
        """Upload as the parts come. Broken off, the provider is told to forget them."""
        source = _Parts(first, flow)
        write = partial(obstore.put, chunk_size=PART_BYTES, max_concurrency=PARTS_UNDER_WAY, use_multipart=True)
        try:
            # Not abandoned when cancelled: the cancellation reaches the source, which ends the call.
            await trio.to_thread.run_sync(write, self._store, key, source, limiter=self._upload_limiter)
        except (BaseError, OSError) as error:
            if source.failure is not None:  # it comes out as it is, whatever the provider says of being told to forget
                raise source.failure from error
            raise BodyStoreError(_reason(error)) from error

    async def _chunks(self, stream: obstore.BytesStream) -> AsyncGenerator[bytes, None]:
        while chunk := await self._call(next, stream, None):
            yield bytes(chunk)

    async def _find(self, name: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a call about an object that may not be there.

        Raises:
            BodyMissing: it is not there, and the bucket is.
            BodyStoreError: as `_call`.
        """
        try:
            return await self._call(function, *args, **kwargs)
        except BodyStoreError as error:
            if not isinstance(error.__cause__, NotFoundError | FileNotFoundError):
                raise
        await self._call(next, iter(obstore.list(self._store, self._root + name, chunk_size=1)), None)
        raise BodyMissing(name)

    async def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a blocking call in a worker thread; one that does not end in time is left behind.

        Raises:
            BodyStoreError: the provider does not answer in time, or refuses.
        """
        try:
            with trio.fail_after(CALL_SECONDS):
                return await trio.to_thread.run_sync(
                    partial(function, *args, **kwargs), abandon_on_cancel=True, limiter=self._limiter
                )
        except (BaseError, OSError, trio.TooSlowError) as error:
            raise BodyStoreError(_reason(error)) from error


class _Parts(Iterable[bytes]):
    """Pieces of a flow for a thread that waits for them. failure: what the flow raised, if it did."""

    def __init__(self, first: bytes, flow: AsyncGenerator[bytes, None]) -> None:
        self._first = first
        self._flow = flow
        self.failure: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        yield self._first
        while piece := self._next():
            yield piece

    def _next(self) -> bytes:
        try:
            return trio.from_thread.run(anext, self._flow, b"")
        except BaseException as failure:
            self.failure = failure
            raise


def _reason(error: BaseException) -> str:
    """What went wrong, without the many lines that say how the client is built."""
    text = " ".join(str(error).partition("Debug source")[0].split())
    return f"The S3 store cannot be used: {text[:REASON_CHARS] or type(error).__name__}."
