"""What each body store must do: the memory twin, the object store on a real nats-server, S3 on a real server."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import TypeAlias

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from arc_es.ports import BodyMissing, BodyStore, BodyTooLarge, Slot
from arc_es.storage.memory import MemoryBodyStore
from tests.contract.body_stores import (
    BYTES_MAX,
    PARAMS,
    RESPONSE,
    Broken,
    Opener,
    all_names,
    broken_flow,
    content,
    flow,
    opener,
    sealed,
    some_bytes,
)

SECONDS_MAX = 60
KiB = 1024
MiB = 1024 * KiB
REF = re.compile(r"arc/commands/cmd_1/params/[0-9]+-[0-9a-f]{32}")


@pytest.fixture(scope="module", params=["memory", "jetstream", "s3"])
def opens(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opener]:
    yield from opener(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
async def store(opens: Opener) -> AsyncIterator[BodyStore]:
    """An empty store."""
    with trio.fail_after(SECONDS_MAX):
        async with opens() as opened:
            yield opened


# the chunks of the object store have 512 KiB, the parts of S3 5 MiB
@pytest.mark.parametrize(
    "size", [0, 1, 64 * KiB, 512 * KiB - 1, 512 * KiB, 512 * KiB + 1, 2 * MiB + 7, 5 * MiB, 5 * MiB + 1, 12 * MiB]
)
async def test_what_was_uploaded_is_sealed_and_read(store: BodyStore, size: int) -> None:
    raw = some_bytes(size)
    await store.upload(PARAMS, flow(raw), BYTES_MAX)
    assert await content(store, PARAMS.path) == raw
    body = await sealed(store, PARAMS)
    assert REF.fullmatch(body.ref)
    assert (body.size, body.sha256) == (size, hashlib.sha256(raw).hexdigest())
    assert await content(store, body.ref) == raw
    assert await store.exists(body.ref)


async def test_bytes_at_hand_are_kept(store: BodyStore) -> None:
    raw = some_bytes(600_000)
    body = await store.keep(RESPONSE, raw)
    assert (body.size, body.sha256) == (len(raw), hashlib.sha256(raw).hexdigest())
    assert await content(store, body.ref) == raw
    assert await store.seal(RESPONSE) is None  # it was no upload
    empty = await store.keep(RESPONSE, b"")
    assert await content(store, empty.ref) == b""
    assert await store.exists(empty.ref)


async def test_what_is_not_there_is_missing(store: BodyStore) -> None:
    unknown = f"{PARAMS.path}/1700000000-{'0' * 32}"
    assert await store.seal(PARAMS) is None
    assert not await store.exists(unknown)
    for name in (PARAMS.path, unknown):
        with pytest.raises(BodyMissing):
            await content(store, name)
        await store.delete(name)
    assert await all_names(store) == []


async def test_the_last_complete_upload_counts(store: BodyStore) -> None:
    await store.upload(PARAMS, flow(b"one"), BYTES_MAX)
    await store.upload(RESPONSE, flow(b"of another slot"), BYTES_MAX)
    await store.upload(PARAMS, flow(b"two"), BYTES_MAX)
    assert await content(store, (await sealed(store, PARAMS)).ref) == b"two"


@pytest.mark.parametrize("size", [0, 3 * MiB, 11 * MiB])
async def test_a_broken_upload_leaves_the_one_before(store: BodyStore, size: int) -> None:
    with pytest.raises(Broken):
        await store.upload(PARAMS, broken_flow(some_bytes(size)), BYTES_MAX)
    assert await store.seal(PARAMS) is None
    await store.upload(PARAMS, flow(b"whole"), BYTES_MAX)
    with pytest.raises(Broken):
        await store.upload(PARAMS, broken_flow(some_bytes(size)), BYTES_MAX)
    assert await content(store, PARAMS.path) == b"whole"


@pytest.mark.parametrize("trouble", [ConnectionResetError("gone"), ValueError("bad"), KeyboardInterrupt()])
async def test_what_the_flow_raises_comes_out_as_it_is(store: BodyStore, trouble: BaseException) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield some_bytes(11 * MiB)
        raise trouble

    with pytest.raises(type(trouble)) as raised:
        await store.upload(PARAMS, failing(), BYTES_MAX)
    assert raised.value is trouble


async def test_a_listing_may_stop_early(store: BodyStore) -> None:
    for number in range(3):
        await store.upload(Slot(f"cmd_{number}", "params"), flow(b"x"), BYTES_MAX)
        await store.keep(PARAMS, b"x")
    for stop_after in range(1, 6):
        names = store.names()
        assert isinstance(names, AsyncGenerator)
        async with aclosing(names):
            for _ in range(stop_after):
                await anext(names)


async def test_a_cancelled_upload_leaves_the_one_before(store: BodyStore) -> None:
    await store.upload(PARAMS, flow(b"whole"), BYTES_MAX)
    with trio.CancelScope() as scope:

        async def hanging() -> AsyncIterator[bytes]:
            yield some_bytes(11 * MiB)
            scope.cancel()
            await trio.sleep_forever()

        await store.upload(PARAMS, hanging(), BYTES_MAX)
    assert scope.cancelled_caught
    assert await content(store, PARAMS.path) == b"whole"


@pytest.mark.parametrize("bytes_max", [10, 6 * MiB])
async def test_too_many_bytes_leave_the_upload_before(store: BodyStore, bytes_max: int) -> None:
    await store.upload(PARAMS, flow(b"x" * 10), 10)
    with pytest.raises(BodyTooLarge):
        await store.upload(PARAMS, flow(some_bytes(bytes_max + 1)), bytes_max)
    assert await content(store, (await sealed(store, PARAMS)).ref) == b"x" * 10


async def test_later_uploads_do_not_change_what_is_sealed(store: BodyStore) -> None:
    one, two = some_bytes(700_000, 1), some_bytes(700_000, 2)
    await store.upload(PARAMS, flow(one), BYTES_MAX)
    first = await sealed(store, PARAMS)
    await store.upload(PARAMS, flow(two), BYTES_MAX)
    assert await content(store, first.ref) == one
    second = await sealed(store, PARAMS)
    await store.delete(PARAMS.path)
    assert await store.seal(PARAMS) is None
    assert (await content(store, first.ref), await content(store, second.ref)) == (one, two)


async def test_sealing_twice_gives_the_same_bytes(store: BodyStore) -> None:
    await store.upload(PARAMS, flow(b"bytes"), BYTES_MAX)
    first, second = await sealed(store, PARAMS), await sealed(store, PARAMS)
    assert (first.size, first.sha256) == (second.size, second.sha256)
    assert await content(store, first.ref) == await content(store, second.ref) == b"bytes"


async def test_reading_goes_on_while_another_upload_comes(store: BodyStore) -> None:
    one = some_bytes(6 * MiB, 1)
    await store.upload(PARAMS, flow(one), BYTES_MAX)
    body = await sealed(store, PARAMS)
    async with store.read(body.ref) as reading, store.read(PARAMS.path) as reading_upload:
        start = await anext(reading.chunks), await anext(reading_upload.chunks)
        await store.upload(PARAMS, flow(b"two"), BYTES_MAX)
        assert start[0] + b"".join([chunk async for chunk in reading.chunks]) == one
        if isinstance(store, MemoryBodyStore):
            assert start[1] + b"".join([chunk async for chunk in reading_upload.chunks]) == one
    assert await content(store, PARAMS.path) == b"two"


async def test_a_reader_may_stop_early(store: BodyStore) -> None:
    body = await store.keep(PARAMS, some_bytes(6 * MiB))
    async with store.read(body.ref) as reading:
        await anext(reading.chunks)
    assert await store.exists(body.ref)


async def test_uploads_to_one_slot_at_a_time_do_not_mix(store: BodyStore) -> None:
    bodies = [some_bytes(1_500_000, seed) for seed in range(3)]
    async with trio.open_nursery() as nursery:
        for raw in bodies:
            nursery.start_soon(store.upload, PARAMS, flow(raw), BYTES_MAX)
    assert await content(store, (await sealed(store, PARAMS)).ref) in bodies


async def test_what_is_deleted_is_gone(store: BodyStore) -> None:
    body = await store.keep(PARAMS, b"bytes")
    other = await store.keep(PARAMS, b"others")
    for _ in range(2):
        await store.delete(body.ref)
        assert not await store.exists(body.ref)
        with pytest.raises(BodyMissing):
            await content(store, body.ref)
    assert [name.name for name in await all_names(store)] == [other.ref]


async def test_names_tell_all_that_is_stored(store: BodyStore) -> None:
    before = int(time.time())
    other = Slot("cmd_2-x", "response")
    kept = await store.keep(other, b"kept")
    await store.upload(PARAMS, flow(b""), BYTES_MAX)
    await store.upload(RESPONSE, flow(b"one"), BYTES_MAX)
    body = await sealed(store, RESPONSE)
    names = await all_names(store)
    assert {(name.name, name.slot, name.is_upload) for name in names} == {
        (kept.ref, other, False),
        (PARAMS.path, PARAMS, True),
        (RESPONSE.path, RESPONSE, True),
        (body.ref, RESPONSE, False),
    }
    assert len(names) == 4
    assert all(before <= name.at // 1_000_000 <= time.time() + 1 for name in names)


async def test_what_was_broken_off_or_replaced_can_be_found_and_deleted(store: BodyStore) -> None:
    """Where a store keeps such remains at all."""
    for _ in range(2):
        await store.upload(PARAMS, flow(some_bytes(600_000)), BYTES_MAX)
    with pytest.raises(Broken):
        await store.upload(PARAMS, broken_flow(some_bytes(2 * MiB)), BYTES_MAX)
    remains = [name for name in await all_names(store) if not name.is_upload]
    assert all(REF.fullmatch(name.name) and name.slot == PARAMS for name in remains)
    for name in remains:
        assert not await store.exists(name.name)
        with pytest.raises(BodyMissing):
            await content(store, name.name)
        await store.delete(name.name)
    assert [name.name for name in await all_names(store)] == [PARAMS.path]
    assert await content(store, PARAMS.path) == some_bytes(600_000)


async def test_names_go_on_while_the_caller_deletes(store: BodyStore) -> None:
    refs = {(await store.keep(Slot(f"cmd_{number}", "params"), b"x")).ref for number in range(20)}
    seen = set()
    async for name in store.names():
        seen.add(name.name)
        await store.delete(name.name)
    assert seen == refs
    assert await all_names(store) == []


@pytest.mark.parametrize("command_id", ["a.b", "*", "../x", "a b", ">", ""])
async def test_no_id_leads_out_of_its_place(store: BodyStore, command_id: str) -> None:
    with pytest.raises(ValueError, match="is not the id"):
        await store.upload(Slot(command_id, "params"), flow(b"x"), BYTES_MAX)
    with pytest.raises(ValueError, match="is not the id"):
        await store.keep(Slot(command_id, "params"), b"x")


# --- any sequence of operations

SLOTS = [Slot("a", "params"), Slot("a", "response"), Slot("b", "params")]
Step: TypeAlias = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["upload", "upload", "broken", "too large", "seal", "seal", "keep", "forget upload", "delete"]),
        st.integers(0, len(SLOTS) - 1),
        st.sampled_from([0, 1, 300, 70_000, 600_000]),
    ),
    max_size=14,
)


@given(STEPS)
def test_any_sequence_in_memory(steps: list[Step]) -> None:
    trio.run(follow_a_model, MemoryBodyStore(), steps)


@pytest.mark.slow
@settings(max_examples=15)
@given(steps=STEPS)
def test_any_sequence(opens: Opener, steps: list[Step]) -> None:
    async def with_an_empty_store() -> None:
        with trio.fail_after(SECONDS_MAX):
            async with opens() as store:
                await follow_a_model(store, steps)

    trio.run(with_an_empty_store)


class Model:
    """What the store should hold. unsure: uploads whose sealed bytes were deleted; they may be gone as well."""

    def __init__(self) -> None:
        self.uploads: dict[Slot, bytes] = {}
        self.refs: dict[str, bytes] = {}
        self.sealed_from: dict[str, Slot] = {}
        self.unsure: set[Slot] = set()


async def follow_a_model(store: BodyStore, steps: list[Step]) -> None:
    model = Model()
    for seed, (step, number, size) in enumerate(steps):
        await take_step(store, model, step, SLOTS[number], some_bytes(size, seed))
    for slot in SLOTS:
        if slot in model.unsure:
            continue
        if slot in model.uploads:
            assert await content(store, slot.path) == model.uploads[slot]
        else:
            with pytest.raises(BodyMissing):
                await content(store, slot.path)
    for ref, raw in model.refs.items():
        assert await store.exists(ref)
        assert await content(store, ref) == raw
    names = await all_names(store)
    assert {name.slot for name in names if name.is_upload} - model.unsure == set(model.uploads) - model.unsure
    assert set(model.refs) <= {name.name for name in names}
    assert len({name.name for name in names}) == len(names)
    for name in names:
        await store.delete(name.name)
    for name in await all_names(store):
        await store.delete(name.name)
    assert await all_names(store) == []


async def take_step(store: BodyStore, model: Model, step: str, slot: Slot, raw: bytes) -> None:
    if step == "upload":
        await store.upload(slot, flow(raw), len(raw))
        model.uploads[slot] = raw
        model.unsure.discard(slot)
    elif step == "broken":
        with pytest.raises(Broken):
            await store.upload(slot, broken_flow(raw), len(raw))
    elif step == "too large":
        with pytest.raises(BodyTooLarge):
            await store.upload(slot, flow(raw + b"x"), len(raw))
    elif step == "seal" and slot not in model.unsure:
        body = await store.seal(slot)
        assert (body is None) == (slot not in model.uploads)
        if body is not None:
            model.refs[body.ref] = model.uploads[slot]
            model.sealed_from[body.ref] = slot
            assert body.sha256 == hashlib.sha256(model.uploads[slot]).hexdigest()
    elif step == "keep":
        model.refs[(await store.keep(slot, raw)).ref] = raw
    elif step == "forget upload":
        await store.delete(slot.path)
        model.uploads.pop(slot, None)
        model.unsure.discard(slot)
    elif step == "delete" and model.refs:
        ref, _ = model.refs.popitem()
        await store.delete(ref)
        if ref in model.sealed_from:
            model.unsure.add(model.sealed_from[ref])
