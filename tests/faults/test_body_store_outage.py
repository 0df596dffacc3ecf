"""Body stores whose server is killed, frozen, full or not as it should be: they say so in time, and recover."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from arc_es.nats_streams import api
from arc_es.ports import BodyStore, BodyStoreError, BodyStoreFull, BodyStoreMismatch, Slot, StoredBody
from arc_es.storage import s3 as s3_module
from arc_es.storage import window as window_module
from arc_es.storage.bucket import BODIES
from arc_es.storage.memory import BodyFault, MemoryBodyStore
from arc_es.storage.object_store import ObjectStore, open_object_store
from arc_es.storage.s3 import S3BodyStore
from tests.contract.body_stores import (
    BYTES_MAX,
    PARAMS,
    RESPONSE,
    all_names,
    connected,
    content,
    flow,
    jetstream,
    s3,
    sealed,
    some_bytes,
)
from tests.contract.nats_process import NatsProcess
from tests.contract.s3_server import S3Server

SECONDS_MAX = 120
NOTICE_SECONDS_MAX = 30
"""A generous bound: each wait of ours ends earlier."""
RECOVER_SECONDS_MAX = 30
MiB = 1024 * 1024

pytestmark = pytest.mark.slow


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a frozen server is given up soon."""
    monkeypatch.setattr(window_module, "ACK_SECONDS", 2.0)
    monkeypatch.setattr(s3_module, "CALL_SECONDS", 4.0)
    monkeypatch.setattr(s3_module, "SILENCE_SECONDS", 1)
    monkeypatch.setattr(s3_module, "RETRIES", 1)
    monkeypatch.setattr(s3_module, "RETRY_SECONDS", 2)


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsProcess]:
    server = NatsProcess(tmp_path)
    await server.start()
    yield server
    server.kill()


@pytest.fixture
async def s3_server(tmp_path: Path) -> AsyncIterator[S3Server]:
    server = S3Server(tmp_path)
    await server.start()
    yield server
    server.kill()


async def every_call_fails(store: BodyStore, body: StoredBody) -> None:
    """Each says that it cannot tell, none that something is missing."""
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: store.upload(PARAMS, flow(b"new"), BYTES_MAX),
        lambda: store.upload(PARAMS, flow(some_bytes(6 * MiB)), BYTES_MAX),
        lambda: store.seal(PARAMS),
        lambda: store.keep(RESPONSE, b"new"),
        lambda: content(store, body.ref),
        lambda: store.exists(body.ref),
        lambda: store.delete(body.ref),
        lambda: all_names(store),
    ]

    async def fails(call: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(BodyStoreError), trio.fail_after(NOTICE_SECONDS_MAX):
            await call()

    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(fails, call)


async def when_well_again(store: BodyStore) -> None:
    with trio.fail_after(RECOVER_SECONDS_MAX):
        while True:
            try:
                await all_names(store)
            except BodyStoreError:
                await trio.sleep(0.05)
            else:
                return


async def nothing_has_changed(store: BodyStore, body: StoredBody) -> None:
    assert await content(store, body.ref) == b"old"
    assert await content(store, PARAMS.path) == b"old"
    assert await store.seal(RESPONSE) is None


@pytest.mark.parametrize("harm", ["kill", "freeze"])
async def test_nats_goes_and_comes_back(nats: NatsProcess, short_waits: None, harm: str) -> None:
    with trio.fail_after(SECONDS_MAX):
        async with jetstream(nats.url) as store:
            await store.upload(PARAMS, flow(b"old"), BYTES_MAX)
            body = await sealed(store, PARAMS)
            await go(nats, harm)
            await every_call_fails(store, body)
            await come_back(nats, harm)
            await when_well_again(store)
            if harm == "kill":  # a frozen server may still do what it was asked: it was not said that it did not
                await nothing_has_changed(store, body)
            await store.upload(PARAMS, flow(b"new"), BYTES_MAX)
            assert await content(store, PARAMS.path) == b"new"


@pytest.mark.parametrize("harm", ["kill", "freeze"])
async def test_s3_goes_and_comes_back(s3_server: S3Server, short_waits: None, harm: str) -> None:
    with trio.fail_after(SECONDS_MAX):
        async with s3(s3_server, iter(["p"])) as store:
            await store.upload(PARAMS, flow(b"old"), BYTES_MAX)
            body = await sealed(store, PARAMS)
            await go(s3_server, harm)
            await every_call_fails(store, body)
            await come_back(s3_server, harm)
            await when_well_again(store)
            if harm == "kill":
                await nothing_has_changed(store, body)
            await store.upload(PARAMS, flow(b"new"), BYTES_MAX)
            assert await content(store, PARAMS.path) == b"new"


async def go(server: NatsProcess | S3Server, harm: str) -> None:
    if harm == "kill":
        server.kill()
    else:
        server.freeze()


async def come_back(server: NatsProcess | S3Server, harm: str) -> None:
    if harm == "kill":
        await server.start()
    else:
        server.thaw()


@pytest.mark.parametrize("kind", ["nats", "s3_server"])
async def test_a_server_killed_in_the_middle(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, short_waits: None
) -> None:
    """An upload under way fails, one before it stays; so does a reader, without an end that looks like one."""
    server = NatsProcess(tmp_path) if kind == "nats" else S3Server(tmp_path)
    await server.start()
    try:
        opened = jetstream(server.url) if isinstance(server, NatsProcess) else s3(server, iter(["p"]))
        with trio.fail_after(SECONDS_MAX):
            async with opened as store:
                await store.upload(PARAMS, flow(b"old"), BYTES_MAX)
                large = await store.keep(RESPONSE, some_bytes(60 * MiB))

                async def killing() -> AsyncIterator[bytes]:
                    yield some_bytes(12 * MiB)
                    server.kill()
                    while True:
                        await trio.lowlevel.checkpoint()
                        yield some_bytes(256 * 1024)

                async with store.read(large.ref) as reading:
                    await anext(reading.chunks)
                    with pytest.raises(BodyStoreError), trio.fail_after(NOTICE_SECONDS_MAX):
                        await store.upload(PARAMS, killing(), 1 << 40)
                    with pytest.raises(BodyStoreError), trio.fail_after(NOTICE_SECONDS_MAX):
                        async for _ in reading.chunks:
                            pass
                await server.start()
                await when_well_again(store)
                assert await content(store, PARAMS.path) == b"old"
                assert await content(store, large.ref) == some_bytes(60 * MiB)
    finally:
        server.kill()


async def test_many_slow_uploads_do_not_keep_others_out(nats: NatsProcess) -> None:
    """What waits for its client has no chunk under way, so it takes nobody's turn."""
    hang = trio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield some_bytes(2 * MiB)
        await hang.wait()

    with trio.fail_after(SECONDS_MAX):
        async with jetstream(nats.url) as store, trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(store.upload, Slot(f"slow{number}", "params"), slow(), BYTES_MAX)
            await store.upload(PARAMS, flow(some_bytes(4 * MiB)), BYTES_MAX)
            assert await content(store, PARAMS.path) == some_bytes(4 * MiB)
            hang.set()


async def test_more_names_than_the_server_tells_at_a_time(nats: NatsProcess) -> None:
    """100 000 come in one page. They are deleted while they are listed, and still none is left out."""
    count = 100_500
    config = {"name": "OBJ_ARC", "subjects": ["$O.ARC.>"], "storage": "memory", "allow_direct": True}
    with trio.fail_after(SECONDS_MAX):
        async with connected(nats.url) as bridge:
            await api(bridge, "STREAM.CREATE.OBJ_ARC", config)

            def publish(start: int) -> None:
                for number in range(start, start + 500):
                    bridge.publish(BODIES.chunk_subject(f"arc/commands/c{number}/params/1700000000-{number:032x}"), b"")

            for start in range(0, count, 500):
                await bridge.call(partial(publish, start))
            while (await api(bridge, "STREAM.INFO.OBJ_ARC"))["state"]["messages"] < count:
                await trio.lowlevel.checkpoint()
            store = ObjectStore(bridge)
            seen: set[str] = set()
            async for name in store.names():
                seen.add(name.name)
                if len(seen) % 100 == 0 and len(seen) < 5_000:
                    await store.delete(name.name)
    assert len(seen) == count


async def test_a_full_bucket(nats: NatsProcess) -> None:
    with trio.fail_after(SECONDS_MAX):
        async with jetstream(nats.url, bytes_max=2 * MiB) as store:
            await store.upload(PARAMS, flow(b"old"), BYTES_MAX)
            with pytest.raises(BodyStoreFull, match="body_store_bytes_max"):
                await store.upload(PARAMS, flow(some_bytes(4 * MiB)), BYTES_MAX)
            assert await content(store, PARAMS.path) == b"old"
            new = some_bytes(MiB)  # there is room again: of what had none, little is left
            await store.upload(PARAMS, flow(new), BYTES_MAX)
            assert await content(store, PARAMS.path) == new


async def test_a_bucket_that_is_not_ours_is_refused_unchanged(nats: NatsProcess) -> None:
    async with connected(nats.url) as bridge:
        found = {"name": "OBJ_ARC", "subjects": ["$O.ARC.C.>"], "max_bytes": 1_000_000}
        await api(bridge, "STREAM.CREATE.OBJ_ARC", found)
        with pytest.raises(BodyStoreMismatch, match="allow_direct is False, wanted True"):
            await open_object_store(bridge, replicas=1, bytes_max=-1)
        config = (await api(bridge, "STREAM.INFO.OBJ_ARC"))["config"]
        assert (config["max_bytes"], config["subjects"]) == (1_000_000, ["$O.ARC.C.>"])


async def test_a_bucket_is_found_again(nats: NatsProcess) -> None:
    async with jetstream(nats.url) as store:
        body = await store.keep(PARAMS, b"bytes")
    async with connected(nats.url) as bridge:
        again = await open_object_store(bridge, replicas=1, bytes_max=-1)
        assert await content(again, body.ref) == b"bytes"


async def test_a_bucket_that_was_removed_is_no_missing_body(nats: NatsProcess) -> None:
    async with connected(nats.url) as bridge:
        store = await open_object_store(bridge, replicas=1, bytes_max=-1)
        body = await store.keep(PARAMS, b"bytes")
        await api(bridge, "STREAM.DELETE.OBJ_ARC")
        await every_call_fails(store, body)


async def test_chunks_that_were_lost_are_noticed(nats: NatsProcess) -> None:
    async with connected(nats.url) as bridge:
        store = await open_object_store(bridge, replicas=1, bytes_max=-1)
        await store.upload(PARAMS, flow(some_bytes(2 * MiB)), BYTES_MAX)
        body = await sealed(store, PARAMS)
        await api(bridge, "STREAM.MSG.DELETE.OBJ_ARC", {"seq": 2})
        assert not await store.exists(body.ref)
        assert await store.seal(PARAMS) is None
        with pytest.raises(BodyStoreError):
            await content(store, body.ref)


async def test_a_bucket_or_key_that_is_wrong_is_no_missing_body(s3_server: S3Server) -> None:
    for access in (s3_server.access(bucket="none"), s3_server.access(secret="wrong")):
        store = S3BodyStore(access, BYTES_MAX)
        with pytest.raises(BodyStoreMismatch):
            await store.check()
        await every_call_fails(store, StoredBody(f"{PARAMS.path}/1700000000-{'0' * 32}", 1, ""))
    await S3BodyStore(s3_server.access(), BYTES_MAX).check()


async def test_the_twin_fails_as_it_is_told() -> None:
    store = MemoryBodyStore()
    await store.upload(PARAMS, flow(b"old"), BYTES_MAX)
    body = await sealed(store, PARAMS)
    store.fault = BodyFault.UNREACHABLE
    await every_call_fails(store, body)
    store.fault = BodyFault.FULL
    with pytest.raises(BodyStoreFull):
        await store.keep(RESPONSE, b"new")
    await nothing_has_changed(store, body)
    store.fault = None
    store.gate = trio.Event()
    with trio.move_on_after(0) as scope:
        await store.exists(body.ref)
    assert scope.cancelled_caught
    store.gate.set()
    assert await store.exists(body.ref)
    store.lose(body.ref)
    assert not await store.exists(body.ref)
    assert await store.seal(PARAMS) is None
