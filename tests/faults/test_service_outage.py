"""The service while its nats-server is gone: it says so, loses nothing, and recovers by itself."""

from __future__ import annotations

import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.contract.nats_process import NatsProcess
from tests.e2e.http import Answer, Client, create_body, lease_body, submit_path
from tests.e2e.process import ServiceProcess, serving

SECONDS_MAX = 60
APPEND_SECONDS_MAX = 2
CREATE_SECONDS_MAX = APPEND_SECONDS_MAX + 10
"""The bound of the service, and what is under way in the bridge when it is reached."""
NOTICE_SECONDS_MAX = 12
POLL_SECONDS_MAX = 4
RECOVER_SECONDS_MAX = 15


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[ServiceProcess]:
    with trio.fail_after(SECONDS_MAX):
        async with serving(tmp_path / "data", ARC_APPEND_SECONDS_MAX=str(APPEND_SECONDS_MAX)) as running:
            yield running


async def until_ready(client: Client, status: int) -> Answer:
    """Wait until /readyz answers this."""
    while True:
        answer = await client.call("GET", "/readyz")
        if answer.status == status:
            return answer
        await trio.sleep(0.02)


async def history(client: Client, command_id: str) -> list[str]:
    events = (await client.call("GET", f"/commands/{command_id}/events")).json["events"]
    return [event["type"] for event in events]


@pytest.mark.slow
async def test_a_frozen_server(service: ServiceProcess) -> None:
    """SIGSTOP: connections stay open and nothing answers. Creates are refused in time, polls of live commands go on."""
    async with service.client() as client, service.client() as other:
        live = (await client.call("POST", "/commands", create_body("t"))).json["commandId"]
        held = (await client.call("POST", "/commands", create_body("h"))).json["commandId"]
        lease = (await client.call("POST", "/commands/leases", lease_body("h", leaseSeconds=1))).json["leases"][0]
        service.signal_nats(signal.SIGSTOP)
        created: list[Answer] = []
        async with trio.open_nursery() as nursery:

            async def create() -> None:
                with trio.fail_after(CREATE_SECONDS_MAX):
                    created.append(await other.call("POST", "/commands", create_body("t", idempotencyKey="k")))

            nursery.start_soon(create)
            with trio.fail_after(NOTICE_SECONDS_MAX):
                while (ready := await client.call("GET", "/readyz")).status == 200:  # and its lease ends meanwhile
                    assert (await client.call("GET", "/healthz")).status == 200
                    for command_id, states in ((live, ["PENDING"]), (held, ["DISPATCHED", "PENDING"])):
                        with trio.fail_after(POLL_SECONDS_MAX):
                            status = await client.call("GET", f"/commands/{command_id}")
                        assert status.status == 200, status
                        assert status.json["state"] in states
        assert (ready.status, ready.json["status"]) == (503, "journal unavailable")
        assert [(answer.status, answer.json["code"]) for answer in created] == [(503, "JOURNAL_UNAVAILABLE")]
        assert {name.lower() for name in created[0].headers} >= {"retry-after", "date"}
        service.signal_nats(signal.SIGCONT)
        with trio.fail_after(RECOVER_SECONDS_MAX):
            await until_ready(client, 200)
        again = [await client.call("POST", "/commands", create_body("t", idempotencyKey="k")) for _ in range(2)]
        assert again[0].json["commandId"] == again[1].json["commandId"]
        assert await history(client, again[0].json["commandId"]) == ["CommandCreated"]
        assert (
            await client.call("PUT", submit_path(lease), {"status": "error", "code": "E", "message": ""})
        ).status == 200
        assert await history(client, held) in (
            ["CommandCreated", "CommandLeased", "LeaseExpired", "CommandFailed"],
            ["CommandCreated", "CommandLeased", "LeaseExpired", "CommandLeased", "CommandFailed"],
        )
        queues = (await client.call("GET", "/queues")).json["queues"]
        assert {queue["target"]["resourceId"]: queue["pending"] for queue in queues} == {"t": 2, "h": 0}


@pytest.mark.slow
async def test_a_server_that_dies_again_and_again(service: ServiceProcess) -> None:
    """Each death delays the next start. What is asked meanwhile is done or refused with 503, never half."""
    keys = [f"k{number}" for number in range(12)]
    async with service.client() as client, service.client() as watching:
        live = (await client.call("POST", "/commands", create_body("t"))).json["commandId"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_killing, service, 3)
            with trio.fail_after(RECOVER_SECONDS_MAX):
                await until_ready(watching, 503)
            for key in keys:
                with trio.fail_after(CREATE_SECONDS_MAX):
                    answer = await client.call("POST", "/commands", create_body("t", idempotencyKey=key))
                assert answer.status in (200, 503), answer
                assert (await watching.call("GET", f"/commands/{live}")).json["state"] == "PENDING"
                assert (await watching.call("GET", "/healthz")).status == 200
        with trio.fail_after(RECOVER_SECONDS_MAX):
            await until_ready(watching, 200)
        ids = [
            (await client.call("POST", "/commands", create_body("t", idempotencyKey=key))).json["commandId"]
            for key in keys
        ]
        for command_id in ids:
            assert await history(client, command_id) == ["CommandCreated"]
        leases = (await client.call("POST", "/commands/leases", lease_body("t", maxLeases=100))).json["leases"]
        assert sorted(lease["commandId"] for lease in leases) == sorted([live, *ids])


async def keep_killing(service: ServiceProcess, seconds: float) -> None:
    """Kill nats-server whenever there is one."""
    with trio.move_on_after(seconds):
        while True:
            service.signal_nats(signal.SIGKILL)
            await trio.sleep(0.01)


async def test_agents_wait_through_an_outage(service: ServiceProcess) -> None:
    """A long poll that began before the server died gets the command that is created after it came back."""
    async with service.client() as agent, service.client() as client:
        await client.call("POST", "/commands", create_body("t"))
        await client.call("POST", "/commands/leases", lease_body("t", leaseSeconds=600))
        await agent.send("POST", "/commands/leases", lease_body("t", waitSeconds=30))
        while (await client.call("GET", "/queues")).json["queues"][0]["waiting"] == 0:
            pass
        service.signal_nats(signal.SIGKILL)
        with trio.fail_after(RECOVER_SECONDS_MAX):
            await until_ready(client, 503)
            await until_ready(client, 200)
            created = (await client.call("POST", "/commands", create_body("t"))).json
            leases = (await agent.answer()).json["leases"]
        assert [created["commandId"]] == [lease["commandId"] for lease in leases]


async def test_a_service_whose_stream_was_replaced_ends_and_says_why(tmp_path: Path) -> None:
    """It may not answer from what the journal does not hold. Started again it knows what the journal knows."""
    (tmp_path / "nats").mkdir()
    nats, store = NatsProcess(tmp_path / "nats"), tmp_path / "nats" / "store"
    await nats.start()
    try:
        with trio.fail_after(SECONDS_MAX):
            async with serving(tmp_path / "data", "--nats-url", nats.url) as service:
                async with service.client() as client:
                    first = (await client.call("POST", "/commands", create_body("t"))).json["commandId"]
                    nats.kill()
                    shutil.copytree(store, tmp_path / "copy")
                    await nats.start()
                    await until_ready(client, 200)
                    lost = (await client.call("POST", "/commands", create_body("t"))).json["commandId"]
                nats.kill()
                shutil.rmtree(store)
                shutil.copytree(tmp_path / "copy", store)
                await nats.start()
                assert await service.wait() == 1
                said = service.stderr.read_text()
                assert "arc-es: The stream ARC is not the one that this service has followed" in said
                assert "Traceback" not in said
                await service.start()
                async with service.client() as client:
                    assert (await client.call("GET", f"/commands/{first}")).json["state"] == "PENDING"
                    assert (await client.call("GET", f"/commands/{lost}")).status == 404
    finally:
        nats.kill()
