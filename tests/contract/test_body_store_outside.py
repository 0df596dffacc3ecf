"""What others see of the body stores: presigned URLs with a plain HTTP client, the bucket with plain NATS tools."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from arc_es.ports import BodyTooLarge
from arc_es.storage.bucket import BODIES
from arc_es.storage.s3 import S3BodyStore
from tests.contract.body_stores import (
    BYTES_MAX,
    PARAMS,
    RESPONSE,
    all_names,
    content,
    flow,
    jetstream,
    sealed,
    some_bytes,
)
from tests.contract.body_stores import s3 as opened_s3
from tests.contract.nats_process import NatsProcess
from tests.contract.s3_server import S3Server

SECONDS_MAX = 60
MiB = 1024 * 1024


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    trio.run(server.start)
    yield server
    server.kill()


@pytest.fixture
async def s3(s3_server: S3Server, request: pytest.FixtureRequest) -> AsyncIterator[S3BodyStore]:
    with trio.fail_after(SECONDS_MAX):
        async with opened_s3(s3_server, iter([request.node.name])) as store:
            yield store


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False) as opened:
        yield opened


def url(text: str | None) -> str:
    assert text is not None
    return text


async def test_a_presigned_put_and_get(s3: S3BodyStore, client: httpx2.AsyncClient) -> None:
    raw = some_bytes(700_000)
    put = await client.put(url(s3.upload_url(PARAMS, 60)), content=raw)
    assert put.status_code == 200
    body = await sealed(s3, PARAMS)
    assert (body.size, body.sha256) == (len(raw), hashlib.sha256(raw).hexdigest())
    got = await client.get(url(s3.download_url(body.ref, 60)))
    assert (got.status_code, got.content) == (200, raw)


async def test_a_put_after_sealing_changes_nothing_that_is_sealed(s3: S3BodyStore, client: httpx2.AsyncClient) -> None:
    upload_url = url(s3.upload_url(PARAMS, 60))
    await client.put(upload_url, content=b"one")
    first = await sealed(s3, PARAMS)
    await client.put(upload_url, content=b"two")
    assert await content(s3, first.ref) == b"one"
    assert await content(s3, (await sealed(s3, PARAMS)).ref) == b"two"


async def test_a_presigned_url_is_good_for_nothing_else(s3: S3BodyStore, client: httpx2.AsyncClient) -> None:
    await s3.upload(PARAMS, flow(b"params"), BYTES_MAX)
    body = await sealed(s3, PARAMS)
    put, get = url(s3.upload_url(PARAMS, 60)), url(s3.download_url(body.ref, 60))
    wrong = get[:-1] + ("0" if get[-1] != "0" else "1")
    refused = [
        await client.get(wrong),
        await client.put(wrong, content=b"x"),
        await client.put(get, content=b"x"),
        await client.get(put),
        await client.put(put.replace("/params/", "/response/"), content=b"x"),
        await client.get(get.partition("?")[0]),
        await client.put(put.partition("?")[0], content=b"x"),
    ]
    assert [answer.status_code // 100 for answer in refused] == [4] * len(refused)
    assert await content(s3, body.ref) == await content(s3, PARAMS.path) == b"params"
    assert await s3.seal(RESPONSE) is None


async def test_too_large_an_upload_past_us_is_not_sealed(s3_server: S3Server, client: httpx2.AsyncClient) -> None:
    with trio.fail_after(SECONDS_MAX):
        store = S3BodyStore(s3_server.access(prefix="small"), bytes_max=10)
        await client.put(url(store.upload_url(PARAMS, 60)), content=b"x" * 11)
        with pytest.raises(BodyTooLarge):
            await store.seal(PARAMS)
        assert [name.name for name in await all_names(store)] == [PARAMS.path]
        await client.put(url(store.upload_url(PARAMS, 60)), content=b"x" * 10)
        assert (await sealed(store, PARAMS)).size == 10


async def test_what_is_not_ours_is_left_alone(s3: S3BodyStore, s3_server: S3Server) -> None:
    other = S3BodyStore(s3_server.access(prefix="other"), BYTES_MAX)
    await other.keep(PARAMS, b"theirs")
    assert await all_names(s3) == []


async def test_secrets_are_not_shown(s3_server: S3Server) -> None:
    access = s3_server.access()
    assert access.secret not in repr(access)
    assert access.key_id not in repr(access)


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 1, 3 * MiB])
async def test_other_nats_clients_read_uploads_and_sealed_bodies(nats: NatsProcess, size: int) -> None:
    raw = some_bytes(size)
    with trio.fail_after(SECONDS_MAX):
        async with jetstream(nats.url) as store:
            await store.upload(PARAMS, flow(raw), BYTES_MAX)
            body = await sealed(store, PARAMS)
            for name in (PARAMS.path, body.ref):
                seen = await child("tests.contract.nats_object", nats.url, BODIES.name, name)
                assert seen["sha256"] == body.sha256
                assert set(seen["names"]) == {PARAMS.path, body.ref}


@pytest.mark.slow
async def test_a_gibibyte_moves_through_nats_in_little_memory(nats: NatsProcess) -> None:
    with trio.fail_after(2 * SECONDS_MAX):
        cost = await child("tests.contract.big_body", "jetstream", nats.url, "1024")
    assert cost["grown_mib"] < 64


@pytest.mark.slow
async def test_a_large_body_moves_through_s3_in_little_memory(s3_server: S3Server) -> None:
    with trio.fail_after(2 * SECONDS_MAX):
        cost = await child("tests.contract.big_body", "s3", f"http://127.0.0.1:{s3_server.port}", "256")
    assert cost["grown_mib"] < 64


async def child(module: str, *args: str) -> dict[str, Any]:
    done = await trio.run_process(
        [sys.executable, "-m", module, *args],
        capture_stdout=True,
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": ".", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    print(done.stdout.decode())
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
