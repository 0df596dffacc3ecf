"""The body stores that the contract holds for, each empty and open, and bytes to put into them."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

import trio

from arc_es.nats_access import Access
from arc_es.nats_bridge import Bridge, open_bridge
from arc_es.nats_streams import api
from arc_es.ports import BodyStore, Slot, StoredBody, StoredName
from arc_es.storage.memory import MemoryBodyStore
from arc_es.storage.object_store import ObjectStore, open_object_store
from arc_es.storage.s3 import S3BodyStore
from tests.contract.nats_process import NatsProcess
from tests.contract.s3_server import S3Server

CONNECT_SECONDS = 10
BYTES_MAX = 64 * 1024 * 1024
PARAMS = Slot("cmd_1", "params")
RESPONSE = Slot("cmd_1", "response")

Opener: TypeAlias = Callable[[], AbstractAsyncContextManager[BodyStore]]


@asynccontextmanager
async def memory() -> AsyncGenerator[BodyStore, None]:
    yield MemoryBodyStore()


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[Bridge, None]:
    async with open_bridge(Access([url])) as bridge:
        with trio.fail_after(CONNECT_SECONDS):
            await bridge.wait_available()
        yield bridge


@asynccontextmanager
async def jetstream(url: str, *, bytes_max: int = -1) -> AsyncGenerator[ObjectStore, None]:
    async with connected(url) as bridge:
        await api(bridge, "STREAM.DELETE.OBJ_ARC")
        yield await open_object_store(bridge, replicas=1, bytes_max=bytes_max)


@asynccontextmanager
async def s3(server: S3Server, prefixes: Iterator[str]) -> AsyncGenerator[S3BodyStore, None]:
    """A prefix of its own is as good as an empty bucket."""
    yield S3BodyStore(server.access(prefix=next(prefixes)), BYTES_MAX)


def opener(kind: str, directory: Path) -> Iterator[Opener]:
    """Opens empty stores of one kind; its server runs until the end."""
    if kind == "memory":
        yield memory
        return
    server = NatsProcess(directory) if kind == "jetstream" else S3Server(directory)
    trio.run(server.start)
    try:
        if isinstance(server, NatsProcess):
            yield partial(jetstream, server.url)
        else:
            yield partial(s3, server, (f"test/{number}" for number in range(1_000_000)))
    finally:
        server.kill()


def some_bytes(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


async def flow(raw: bytes, piece_bytes: int = 70_000) -> AsyncIterator[bytes]:
    """Bytes as they come off the network."""
    for start in range(0, len(raw), piece_bytes):
        await trio.lowlevel.checkpoint()
        yield raw[start : start + piece_bytes]


class Broken(Exception):
    """The client went away."""


async def broken_flow(raw: bytes) -> AsyncIterator[bytes]:
    async for piece in flow(raw):
        yield piece
    raise Broken


async def sealed(store: BodyStore, slot: Slot) -> StoredBody:
    body = await store.seal(slot)
    assert body is not None
    return body


async def content(store: BodyStore, name: str) -> bytes:
    """All the bytes of a name, whose number is as was said."""
    async with store.read(name) as body:
        raw = b"".join([chunk async for chunk in body.chunks])
        assert len(raw) == body.size
    return raw


async def all_names(store: BodyStore) -> list[StoredName]:
    return [name async for name in store.names()]
