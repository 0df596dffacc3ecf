"""Redrives through SIGKILL, and a limit across two services: on real processes, a real stream and a real body store."""

from __future__ import annotations

import base64
import signal
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from tests.contract.nats_process import NatsProcess
from tests.e2e.http import Client, NoAnswer, create_body, lease_body
from tests.e2e.process import ServiceProcess, serving

pytestmark = pytest.mark.slow

COMMANDS = 60
SIZES = (2, 20_000, 200_000)
KILLS = ("service", "nats", "both", "service", "both")


async def insist(client: Client, method: str, path: str, data: object = None) -> Any:
    """Ask until the service answers with success."""
    while True:
        try:
            answer = await client.call(method, path, data)
        except NoAnswer:
            await trio.sleep(0.05)
            continue
        if answer.status == 200:
            return answer.json
        assert answer.status in (429, 503), (path, answer.status, answer.body)
        await trio.sleep(0.05)


def params_of(number: int) -> bytes:
    size = SIZES[number % len(SIZES)]
    return bytes([number]) * size


async def dead_letters(client: Client) -> dict[str, bytes]:
    """Cancelled commands with params of all sizes."""
    made: dict[str, bytes] = {}
    for number in range(COMMANDS):
        raw = params_of(number)
        params = {"mode": "inline", "inlineBase64": base64.b64encode(raw).decode()}
        created = await insist(client, "POST", "/v1/commands", create_body("a", params=params))
        made[created["commandId"]] = raw
        await insist(client, "POST", f"/v1/commands/{created['commandId']}/cancel")
    return made


async def kill(service: ServiceProcess, what: str) -> None:
    if what in ("nats", "both"):
        service.signal_nats(signal.SIGKILL)
    if what in ("service", "both"):
        await service.kill()
        await service.start()


async def params_at(client: Client, command_id: str) -> bytes:
    params = (await insist(client, "GET", f"/v1/commands/{command_id}/payload"))["params"]
    if params["mode"] == "inline":
        return base64.b64decode(params["inlineBase64"])
    path = params["storageGetRequest"]["backend"]["url"].partition("/v1")[2]
    return (await client.call("GET", f"/v1{path}")).body


async def test_no_kill_loses_or_doubles_a_redrive(tmp_path: Path) -> None:
    random = Random(5)
    with trio.fail_after(150):
        async with serving(tmp_path / "data", "--log-level", "WARNING", ARC_APPEND_SECONDS_MAX="2") as service:
            async with service.client() as client:
                made = await dead_letters(client)
            for what in KILLS:
                bomb = service.client()
                await bomb.send("POST", "/v1/commands/redrive?origin=cancel&limit=1000")
                await trio.sleep(random.uniform(0, 0.15))  # anywhere in its work
                await kill(service, what)
                bomb.close()
            async with service.client() as client:
                await check(client, made)
        assert "Traceback" not in service.stderr.read_text()


async def check(client: Client, made: dict[str, bytes]) -> None:
    """Each has exactly one redrive, linked both ways, with the same params."""
    while True:
        page = await insist(client, "POST", "/v1/commands/redrive?origin=cancel&limit=1000")
        if not any("error" in one for one in page["results"]):
            break
    links = {one["commandId"]: one["redrivenAs"] for one in page["results"]}
    assert set(links) == set(made)
    everything = (await insist(client, "GET", "/v1/commands?limit=1000"))["commands"]
    assert {one["commandId"] for one in everything} == {*links, *links.values()}
    assert {one["redriveOf"]: one["commandId"] for one in everything if "redriveOf" in one} == links
    for old, new in links.items():
        events = (await insist(client, "GET", f"/v1/commands/{old}/events"))["events"]
        assert [event["data"] for event in events if event["type"] == "CommandRedriven"] == [{"redrivenAs": new}]
        assert await params_at(client, new) == made[old]
    again = await insist(client, "POST", "/v1/commands/redrive?origin=cancel&limit=1000")
    assert not any(one["redriven"] for one in again["results"])


async def test_two_services_keep_to_one_limit(tmp_path: Path) -> None:
    nats = NatsProcess(tmp_path)
    held = most = 0
    done: set[str] = set()

    async def agent(service: ServiceProcess) -> None:
        nonlocal held, most
        async with service.client(Authorization="Bearer anybody") as client:
            while len(done) < COMMANDS:
                body = lease_body("a", maxLeases=2, waitSeconds=1)
                for lease in (await insist(client, "POST", "/v1/commands/leases", body))["leases"]:
                    held += 1
                    most = max(most, held)
                    await trio.sleep(0.005)
                    held -= 1  # before the answer, which makes room
                    path = f"/v1/commands/{lease['commandId']}/response"
                    await insist(client, "PUT", path, {"status": "error", "code": "E", "message": ""})
                    done.add(lease["commandId"])

    try:
        with trio.fail_after(120):
            await nats.start()
            options = ("--nats-url", nats.url, "--log-level", "WARNING")
            async with serving(tmp_path / "one", *options) as first, serving(tmp_path / "two", *options) as second:
                async with first.client() as client:
                    limit = {"target": "a", "maxConcurrent": 3}
                    await insist(client, "POST", "/v1/deployments/e2e/limit", limit)
                    for _ in range(COMMANDS):
                        await insist(client, "POST", "/v1/commands", create_body("a"))
                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(agent, first)
                        nursery.start_soon(agent, second)
    finally:
        nats.kill()
    assert (most, len(done)) == (3, COMMANDS)
