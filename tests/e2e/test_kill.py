"""SIGKILL at any moment, of the service, its nats-server, or both: nothing acknowledged is lost, doubled or changed."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from arc_es.codec import decode_recorded
from arc_es.domain.recorded import Key
from arc_es.domain.state import PUBLIC_STATE, attempt_of
from arc_es.journal.jetstream import open_journal
from arc_es.journal.server import run_server
from arc_es.nats_access import Access
from arc_es.nats_bridge import open_bridge
from arc_es.ports import SystemClock
from projections import Projections
from tests.e2e.audit import promised_but_not_told
from tests.e2e.crowd import Crowd, Log
from tests.e2e.http import Client, create_body, lease_body
from tests.e2e.process import ServiceProcess, serving
from tests.e2e.transfer import target_of

CALLERS, AGENTS = 4, 4
SETTLE_SECONDS = 60
READ_SECONDS = 30
FOLD_SECONDS = 20
FIRST_START_SECONDS = 0.8
"""About how long a start takes."""


async def test_three_kills(tmp_path: Path) -> None:
    with trio.fail_after(90):
        await kill_and_audit(tmp_path, kills=["service", "nats", "both"], progress_per_kill=400, seed=1)


@pytest.mark.slow
async def test_many_kills(tmp_path: Path) -> None:
    random = Random()
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    random.seed(seed)
    kills = [*random.choices(["service", "nats", "both", "twice"], k=22), "freeze", "freeze", "freeze"]
    random.shuffle(kills)
    with trio.fail_after(240):
        await kill_and_audit(tmp_path, kills=kills, progress_per_kill=300, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
async def test_many_kills_of_workers(tmp_path: Path, workers: int) -> None:
    """One at a time, all at once, frozen for a while: the others go on, and those that come back know everything."""
    random = Random()
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    random.seed(seed)
    kills = ["worker"] * 5 + ["freeze worker"] * 2 + ["workers", "service", "nats"]
    random.shuffle(kills)
    with trio.fail_after(240):
        await kill_and_audit(tmp_path, kills=kills, progress_per_kill=200, seed=seed, workers=workers)


async def kill_and_audit(
    tmp_path: Path, *, kills: list[str], progress_per_kill: int, seed: int, workers: int = 1
) -> None:
    random, log = Random(seed), Log()
    quick = {"ARC_APPEND_SECONDS_MAX": "1"}  # so that a frozen server is noticed soon
    options = ("--log-level", "WARNING", "--workers", str(workers))
    async with serving(tmp_path / "data", *options, **quick) as service:
        async with trio.open_nursery() as nursery:
            crowd = Crowd(service, log, random)
            for _ in range(CALLERS):
                nursery.start_soon(crowd.caller)
            for _ in range(AGENTS):
                nursery.start_soon(crowd.agent)
            for kill in kills:
                await log.until(log.progress + random.randint(progress_per_kill // 2, progress_per_kill))
                await kill_now(service, kill, crowd, log)
            await log.until(log.progress + progress_per_kill // 2)
            crowd.callers_stop = True
            await settle(service)
            crowd.agents_stop = True
        await check_histories(service, log)
        await check_replay(service, log)
    assert log.violations == []
    assert log.troubles > 0, "no client noticed anything: nothing was tested"
    shown = (
        f"{len(log.created)} created, {len(log.leases)} leased, {len(log.answered)} answered, {log.troubles} troubles,"
        f" {len(log.params)} uploaded params, {len(log.stored)} uploaded results"
    )
    print(shown)
    assert "Traceback" not in service.stderr.read_text()


async def kill_now(service: ServiceProcess, what: str, crowd: Crowd, log: Log) -> None:
    """Do harm right after a create was sent; the same create afterwards finds what became of it."""
    key = f"{what} {log.progress}"
    body = create_body("a", idempotencyKey=key)
    bomb = service.client()
    await bomb.send("POST", "/commands", body)
    if what == "freeze":
        await frozen(service)
    if what in ("worker", "workers", "freeze worker"):
        await harm_workers(service, what, log)
    if what in ("nats", "both"):
        service.signal_nats(signal.SIGKILL)
    if what in ("service", "both", "twice"):
        await service.kill()
    if what == "twice":
        await kill_in_start(service)
    if what in ("service", "both", "twice"):
        await service.start()
    bomb.close()
    async with service.client() as client:
        answer = await crowd.insist(client, "POST", "/commands", body)
        log.create(answer.json["commandId"], key)


async def frozen(service: ServiceProcess) -> None:
    """Stop nats-server until the service has refused something: then all that was under way has an unclear outcome."""
    service.signal_nats(signal.SIGSTOP)
    async with service.client() as client:
        while (await client.call("POST", "/commands", create_body("a"))).status == 200:
            pass
    service.signal_nats(signal.SIGCONT)


async def harm_workers(service: ServiceProcess, what: str, log: Log) -> None:
    """Kill one worker, or all, or freeze one until the others have got on without it."""
    pids = service.worker_pids()
    for pid in pids if what == "workers" else pids[:1]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP if what == "freeze worker" else signal.SIGKILL)
    if what == "freeze worker":
        await log.until(log.progress + 30)
        os.kill(pids[0], signal.SIGCONT)


async def kill_in_start(service: ServiceProcess) -> None:
    """Start, and kill as soon as nats-server is there: while the journal is being read."""
    await service.spawn()
    while service.nats_pid() is None:
        assert service.process.poll() is None
        await trio.sleep(0.001)
    await service.kill()


@pytest.mark.slow
async def test_kills_at_any_moment_of_the_first_start(tmp_path: Path) -> None:
    """Whatever a start leaves half-made, the next one completes."""
    service = ServiceProcess(tmp_path / "data")
    try:
        with trio.fail_after(60):
            for part in range(1, 9):
                await service.spawn()
                with trio.move_on_after(part * FIRST_START_SECONDS / 8):
                    await service.wait()
                assert service.process.poll() is None, service.stderr.read_text()
                await service.kill()
            await service.start()
            async with service.client() as client:
                assert (await client.call("POST", "/commands", create_body("a"))).status == 200
            assert await service.terminate() == 0
    finally:
        with trio.CancelScope(shield=True):
            await service.kill()


async def settle(service: ServiceProcess) -> None:
    """Wait until nothing waits and nothing is held."""
    with trio.fail_after(SETTLE_SECONDS):
        async with service.client() as client:
            # another process cannot set our event
            while any(queue["pending"] + queue["delayed"] + queue["leased"] for queue in await queues(client)):  # noqa: ASYNC110 - another process cannot set our event
                await trio.sleep(0.1)


async def queues(client: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.call("GET", "/queues")).json["queues"]
    return found


async def check_histories(service: ServiceProcess, log: Log) -> None:
    commands = log.created | {command_id for command_id, _ in log.leases.values()}
    with trio.fail_after(READ_SECONDS):
        async with service.client() as client:
            for command_id in sorted(commands):
                status = await client.call("GET", f"/commands/{command_id}")
                log.read(command_id, status)
                events = await client.call("GET", f"/commands/{command_id}/events")
                assert events.status == 200, events
                succeeded = status.json["state"] == "SUCCEEDED"
                result = await body_of(client, status.json["response"]["response"]) if succeeded else None
                log.violations += promised_but_not_told(command_id, status.json, events.json["events"], log, result)
                if command_id in log.params:
                    payload = (await client.call("GET", f"/commands/{command_id}/payload")).json
                    params = await body_of(client, payload["params"])
                    if hashlib.sha256(params).hexdigest() != log.params[command_id]:
                        log.violations.append(f"{command_id} has other params than were uploaded: {payload['params']}")


async def body_of(client: Client, spec: Mapping[str, Any]) -> bytes:
    """The bytes of a BodySpec."""
    if spec["mode"] == "inline":
        return base64.b64decode(spec["inlineBase64"])
    return (await client.call("GET", target_of(spec["storageGetRequest"]))).body


async def check_replay(service: ServiceProcess, log: Log) -> None:
    """Fold the stopped service's journal from zero: it is what the live service answered, live commands included."""
    async with service.client() as client:
        for target in ("left", "left", "left", "held", "held", "other"):
            await client.call("POST", "/commands", create_body(target))
        for target, seconds in (("held", 600), ("left", 600)):
            await client.call("POST", "/commands/leases", lease_body(target, leaseSeconds=seconds))
        ends = {**log.ends}
        live_queues = await queues(client)
    assert await service.terminate() == 0
    with trio.fail_after(FOLD_SECONDS):
        models = await folded(service.data_dir)
    for command_id, end in ends.items():
        row = models.status.get(command_id)
        assert row is not None, command_id
        assert (PUBLIC_STATE[type(row.state)], attempt_of(row.state)) == (end["state"], end["attempt"])
    assert {shape(queue) for queue in live_queues} == {
        (found.deployment_id, found.target_id, found.pending, found.delayed, found.leased)
        for found in models.pending.queues(SystemClock().now())
    }


def shape(queue: Mapping[str, Any]) -> tuple[object, ...]:
    counts = (queue["pending"], queue["delayed"], queue["leased"])
    return queue["deploymentId"], queue["target"]["resourceId"], *counts


async def folded(data_dir: Path) -> Projections:
    """All events of a data directory, in projections that never saw a service."""
    models = Projections()
    async with run_server(data_dir) as server:
        endpoint = server.endpoint
        async with open_bridge(Access([endpoint.url], endpoint.user, endpoint.password)) as bridge:
            await bridge.wait_available()
            async with open_journal(bridge) as journal:
                end = await journal.end()
                done = trio.Event()

                def apply(position: int, key: Key, payload: bytes) -> None:
                    models.apply(decode_recorded(position, key, payload))
                    if position == end:
                        done.set()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(journal.follow, 0, apply)
                    await done.wait()
                    nursery.cancel_scope.cancel()
    return models
