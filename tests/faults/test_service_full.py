"""The service when its journal is full: nothing new, all that runs comes to its end."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.http import Answer, Client, create_body, lease_body, submit_path
from tests.e2e.process import ServiceProcess

SECONDS_MAX = 120
STREAM_BYTES = 4 * 1024 * 1024
STORE_BYTES = 6 * 1024 * 1024
PARAMS = {"mode": "inline", "inlineBase64": base64.b64encode(b"p" * 6_000).decode()}
SUCCESS = {"status": "success", "response": {"mode": "inline", "inlineBase64": "e30="}}
CALLERS = 8
DISK_BYTES = 24 * 1024 * 1024


@asynccontextmanager
async def service(data_dir: Path, **env: str) -> AsyncIterator[ServiceProcess]:
    """A service that may be started again with other settings."""
    running = ServiceProcess(data_dir, "--log-level", "WARNING", **env)
    try:
        with trio.fail_after(SECONDS_MAX):
            await running.start()
            yield running
    finally:
        with trio.CancelScope(shield=True):
            await running.kill()


def create(target: str, **more: object) -> dict[str, object]:
    return {**create_body(target, **more), "params": PARAMS}


async def fill(running: ServiceProcess) -> tuple[list[str], Answer]:
    """Create commands, several at once, until each caller is refused; the ids, and a refusal."""
    created: list[str] = []
    refusals: list[Answer] = []

    async def caller() -> None:
        async with running.client() as client:
            while (answer := await client.call("POST", "/commands", create("t"))).status == 200:
                created.append(answer.json["commandId"])
            refusals.append(answer)

    async with trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(caller)
    assert {answer.status for answer in refusals} == {507}
    return created, refusals[0]


def assert_full(answer: Answer) -> None:
    assert (answer.status, answer.json["code"], answer.json["retryable"]) == (507, "JOURNAL_FULL", True), answer
    assert int({name.lower(): value for name, value in answer.headers.items()}["retry-after"]) > 0


async def lease_all(client: Client) -> list[dict[str, Any]]:
    leases: list[dict[str, Any]] = []
    while found := (await client.call("POST", "/commands/leases", lease_body("t", maxLeases=100))).json["leases"]:
        leases += found
    return leases


async def assert_nothing_new(client: Client) -> None:
    declaration: dict[str, object] = {"targets": []}
    assert_full(await client.call("POST", "/commands", create("t")))
    assert_full(await client.call("PUT", "/v1/deployments/new", declaration))
    assert_full(await client.call("PUT", "/commands/stray/payload", {"params": PARAMS}))
    assert_full(await client.call("POST", "/v1/tokens", {"scope": "admin"}))


async def finish(client: Client, created: list[str], response: Mapping[str, object] = SUCCESS) -> None:
    """Lease, give back, lease again, renew and answer everything."""
    leases = await lease_all(client)
    assert sorted(lease["commandId"] for lease in leases) == sorted(created)
    released = leases.pop()
    assert (await client.call("POST", f"/commands/leases/{released['leaseId']}/release")).status == 200
    leases += await lease_all(client)
    for lease in leases:
        assert (await client.call("PUT", submit_path(lease), response)).status == 200
    for command_id in created:
        assert (await client.call("GET", f"/commands/{command_id}")).json["state"] == "SUCCEEDED"


async def test_a_full_stream_lets_running_commands_finish_and_can_be_made_larger(tmp_path: Path) -> None:
    small, large = {"ARC_STREAM_BYTES_MAX": str(STREAM_BYTES)}, {"ARC_STREAM_BYTES_MAX": str(4 * STREAM_BYTES)}
    async with service(tmp_path / "data", **small) as running:
        async with running.client() as client:
            keyed = (await client.call("POST", "/commands", create("t", idempotencyKey="k"))).json["commandId"]
            created, refusal = await fill(running)
            assert_full(refusal)
            assert len(created) > 100
            await assert_nothing_new(client)
            again = await client.call("POST", "/commands", create("t", idempotencyKey="k"))
            assert again.json["commandId"] == keyed, "what exists need not be written"
            assert (await client.call("GET", "/readyz")).status == 200
        assert await running.terminate() == 0
    async with service(tmp_path / "data", **small) as running, running.client() as client:
        await assert_nothing_new(client)
        await finish(client, [*created, keyed])
        assert await running.terminate() == 0
    async with service(tmp_path / "data", **large) as running, running.client() as client:
        assert f"now has max_bytes {4 * STREAM_BYTES}" in running.stderr.read_text()
        assert (await client.call("POST", "/commands", create("t"))).status == 200
        assert (await client.call("GET", f"/commands/{keyed}/events")).json["events"][-1]["type"] == "CommandSucceeded"
        assert await running.terminate() == 0
    too_small = ServiceProcess(tmp_path / "data", ARC_STREAM_BYTES_MAX="100000")
    await too_small.spawn()
    assert await too_small.wait() == 1
    assert "stream_bytes_max is 100000, but the stream ARC holds" in too_small.stderr.read_text()


async def test_a_full_disk_lets_running_commands_finish(tmp_path: Path) -> None:
    """The stream has no limit of its own; its server may store only so much."""
    async with service(tmp_path / "data", ARC_NATS_STORE_BYTES_MAX=str(STORE_BYTES)) as running:
        async with running.client() as client:
            created, refusal = await fill(running)
            assert_full(refusal)
            await assert_nothing_new(client)
            await finish(client, created)
        assert await running.terminate() == 0
    larger = str(4 * STORE_BYTES)
    async with service(tmp_path / "data", ARC_NATS_STORE_BYTES_MAX=larger) as running, running.client() as client:
        assert (await client.call("POST", "/commands", create("t"))).status == 200


@pytest.mark.parametrize("kind", ["params", "response"])
async def test_large_bodies_leave_room_for_running_commands(tmp_path: Path, kind: str) -> None:
    """Bodies share the disk with the journal. One that has no room leaves nothing, and stops nobody."""
    async with service(tmp_path / "data", ARC_NATS_STORE_BYTES_MAX=str(DISK_BYTES)) as running:
        async with running.client() as client:
            created = [(await client.call("POST", "/commands", create("t"))).json["commandId"] for _ in range(3)]
            leases = await lease_all(client)
            upload = {**create("other"), "params": {"mode": "storage"}}
            request = (await client.call("POST", "/commands", upload)).json["storageUpload"]["putRequest"]
            if kind == "response":
                request = leases[0]["envelope"]["responseHandling"]["storageUploadRequest"]
            path = "/storage/" + request["backend"]["url"].partition("/storage/")[2]
            assert (await client.call("PUT", path, b"x" * (DISK_BYTES // 2))).status == 200
            for _ in range(3):
                assert_full(await client.call("PUT", path, b"x" * (DISK_BYTES // 2)))
            for lease in leases:
                assert (await client.call("PUT", submit_path(lease), SUCCESS)).status == 200
            assert {await state(client, command_id) for command_id in created} == {"SUCCEEDED"}
        assert await running.terminate() == 0


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["ARC_STREAM_BYTES_MAX", "ARC_NATS_STORE_BYTES_MAX"])
async def test_when_even_the_head_room_is_gone_answers_are_kept_by_their_agents(tmp_path: Path, limit: str) -> None:
    """Answers larger than anybody reckoned with: they are refused, not lost, and taken when there is room again."""
    raw = base64.b64encode(b"r" * 100_000).decode()
    answer = {"status": "success", "response": {"mode": "inline", "inlineBase64": raw}}
    async with service(tmp_path / "data", **{limit: str(STORE_BYTES)}) as running:
        async with running.client() as client:
            created, _ = await fill(running)
            leases = await lease_all(client)
            results = [await client.call("PUT", submit_path(lease), answer) for lease in leases]
            assert {result.status for result in results} == {200, 507}
            for result in results:
                if result.status == 507:
                    assert_full(result)
            states = {command_id: await state(client, command_id) for command_id in created}
            assert set(states.values()) == {"SUCCEEDED", "DISPATCHED"}
        assert await running.terminate() == 0
    async with service(tmp_path / "data", **{limit: str(20 * STORE_BYTES)}) as running, running.client() as client:
        for lease, before in zip(leases, results, strict=True):
            assert await state(client, lease["commandId"]) == ("SUCCEEDED" if before.status == 200 else "DISPATCHED")
            assert (await client.call("PUT", submit_path(lease), answer)).status == 200
            events = (await client.call("GET", f"/commands/{lease['commandId']}/events")).json["events"]
            assert [event["type"] for event in events if event["type"] != "LateResponseRecorded"] == [
                "CommandCreated",
                "CommandLeased",
                "CommandSucceeded",
            ]


async def state(client: Client, command_id: str) -> str:
    found: str = (await client.call("GET", f"/commands/{command_id}")).json["state"]
    return found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A data directory with a file system of its own, of `DISK_BYTES`."""
    folder = tmp_path / "data"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if subprocess.run(mounting, check=False, capture_output=True).returncode != 0:
        pytest.skip("we may not mount anything here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
async def test_a_disk_that_somebody_else_fills(small_disk: Path) -> None:
    """nats-server freezes a stream that it once could not write. When there is room again, all goes on by itself."""
    filler = small_disk / "filler"
    async with service(small_disk, ARC_APPEND_SECONDS_MAX="1") as running, running.client() as client:
        kept = [(await client.call("POST", "/commands", create_body("t", idempotencyKey="k0"))).json["commandId"]]
        with suppress(OSError):
            filler.write_bytes(b"x" * DISK_BYTES)
        statuses = []
        for number in range(1, 300):
            answer = await client.call("POST", "/commands", create_body("t", idempotencyKey=f"k{number}"))
            statuses.append(answer.status)
            if answer.status == 200:
                kept.append(answer.json["commandId"])
            assert (await client.call("GET", f"/commands/{kept[0]}")).json["state"] == "PENDING"
            if answer.status == 507:
                break
        assert set(statuses) <= {200, 503, 507}
        filler.unlink()
        with trio.fail_after(60):
            after = create_body("t", idempotencyKey="after")
            while (await client.call("POST", "/commands", after)).status != 200:  # noqa: ASYNC110 - another process
                await trio.sleep(0.2)
        assert 503 not in statuses or "stores nothing any more" in running.stderr.read_text()
        for number in range(len(statuses) + 1):
            answer = await client.call("POST", "/commands", create_body("t", idempotencyKey=f"k{number}"))
            assert answer.status == 200
            events = (await client.call("GET", f"/commands/{answer.json['commandId']}/events")).json["events"]
            assert [event["type"] for event in events] == ["CommandCreated"]
        for command_id in kept:
            assert (await client.call("GET", f"/commands/{command_id}")).json["state"] == "PENDING"
