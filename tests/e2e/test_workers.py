"""Several workers are one service: nobody can tell which one answered, and a dead one is missed by nobody."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.http import Client, NoAnswer, create_body, lease_body, submit_path
from tests.e2e.process import POLL_SECONDS, ServiceProcess, gone, serving

pytestmark = pytest.mark.slow

SECONDS_MAX = 90


@asynccontextmanager
async def two(tmp_path: Path, *options: str, **env: str) -> AsyncIterator[ServiceProcess]:
    with trio.fail_after(SECONDS_MAX):
        async with serving(tmp_path / "data", "--workers", "2", *options, **env) as service:
            yield service


async def answered_by(service: ServiceProcess, client: Client) -> int:
    """Process id of the worker that has a client's connection."""
    assert (await client.call("GET", "/readyz")).status == 200
    assert client.local_port is not None
    return next(pid for pid in service.worker_pids() if holds_connection(pid, service.port, client.local_port))


def holds_connection(pid: int, local: int, remote: int) -> bool:
    """Whether a process has the socket between these two ports."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ends = f":{local:04X}", f":{remote:04X}"
    inodes = {line[9] for line in lines if line[1].endswith(ends[0]) and line[2].endswith(ends[1])}
    links = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
    return any(f"socket:[{inode}]" in links for inode in inodes)


@asynccontextmanager
async def one_each(service: ServiceProcess) -> AsyncIterator[dict[int, Client]]:
    """A connection to each of two workers, by process id."""
    found: dict[int, Client] = {}
    with ExitStack() as opened:
        while len(found) < 2:
            client = service.client()
            opened.callback(client.close)
            found.setdefault(await answered_by(service, client), client)
        yield found


async def test_connections_are_shared_evenly(tmp_path: Path) -> None:
    """Also when they come all at once."""
    async with two(tmp_path) as service:
        clients = [service.client() for _ in range(32)]
        owners: Counter[int] = Counter()

        async def connect(client: Client) -> None:
            owners[await answered_by(service, client)] += 1

        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(connect, client)
        for client in clients:
            client.close()
        print(owners)
        assert len(owners) == 2
        assert min(owners.values()) >= 8


async def test_what_one_worker_answered_the_other_knows(tmp_path: Path) -> None:
    """Nothing that was acknowledged is missing a moment later on another connection, whatever is asked."""
    async with two(tmp_path, ARC_ADMIN_TOKEN="secret-of-tests") as service, one_each(service) as clients:
        first, second = clients.values()
        admin = {"Authorization": "Bearer secret-of-tests"}
        for number in range(100):
            here, there = (first, second) if number % 2 else (second, first)
            target = f"t{number}"
            body = create_body(target, idempotencyKey=target)
            command_id = (await here.call("POST", "/commands", body, **admin)).json["commandId"]
            assert (await there.call("GET", f"/commands/{command_id}", None, **admin)).status == 200
            again = await there.call("POST", "/commands", body, **admin)
            assert again.json["commandId"] == command_id
            listed = (await there.call("GET", "/commands?limit=1", None, **admin)).json["commands"]
            assert [one["commandId"] for one in listed] == [command_id]
            await lived(here, there, target, admin)
            status = (await here.call("GET", f"/commands/{command_id}", None, **admin)).json
            assert (status["state"], status["attempt"]) == ("SUCCEEDED", 2)


async def lived(here: Client, there: Client, target: str, admin: dict[str, str]) -> None:
    """Lease here, release there, lease there, answer here."""
    (lease,) = (await here.call("POST", "/commands/leases", lease_body(target), **admin)).json["leases"]
    assert (await there.call("POST", f"/commands/leases/{lease['leaseId']}/release", None, **admin)).status == 200
    (lease,) = (await there.call("POST", "/commands/leases", lease_body(target), **admin)).json["leases"]
    result = {"status": "success", "response": {"mode": "inline", "inlineBase64": "e30="}}
    assert (await here.call("PUT", submit_path(lease), result, **admin)).status == 200


async def test_a_declaration_and_a_token_hold_everywhere_at_once(tmp_path: Path) -> None:
    async with two(tmp_path, ARC_ADMIN_TOKEN="secret-of-tests") as service, one_each(service) as clients:
        first, second = clients.values()
        admin = {"Authorization": "Bearer secret-of-tests"}
        for number in range(50):
            here, there = (first, second) if number % 2 else (second, first)
            targets = [{"resourceId": f"t{number}", "resourceType": "daemon"}]
            declared = await here.call("PUT", "/deployments/dep", {"model": "pull", "targets": targets}, **admin)
            assert declared.status == 200
            before = create_body(f"t{number - 1}", deploymentId="dep")
            assert (await there.call("POST", "/commands", before, **admin)).status == 404
            minted = await here.call("POST", "/tokens", {"scope": "sender", "deployments": ["dep"]}, **admin)
            sender = {"Authorization": f"Bearer {minted.json['token']}"}
            body = create_body(f"t{number}", deploymentId="dep")
            assert (await there.call("POST", "/commands", body, **sender)).status == 200
            assert (await here.call("DELETE", f"/tokens/{minted.json['id']}", None, **admin)).status == 204
            assert (await there.call("POST", "/commands", body, **sender)).status == 401


async def test_an_agent_that_waits_at_one_worker_gets_what_the_other_one_creates(tmp_path: Path) -> None:
    async with two(tmp_path) as service, one_each(service) as clients:
        first, second = clients.values()
        for number in range(20):
            here, there = (first, second) if number % 2 else (second, first)
            leased: list[Any] = []

            async def wait(agent: Client, found: list[Any]) -> None:
                answer = await agent.call("POST", "/commands/leases", lease_body("a", waitSeconds=20))
                found.extend(answer.json["leases"])

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, there, leased)
                command_id = (await here.call("POST", "/commands", create_body("a"))).json["commandId"]
            assert [lease["commandId"] for lease in leased] == [command_id]


async def test_a_killed_worker_is_replaced_and_the_other_one_does_not_notice(tmp_path: Path) -> None:
    async with two(tmp_path) as service, one_each(service) as clients:
        (dead, lost), (alive, kept) = clients.items()
        created = await lost.call("POST", "/commands", create_body("a"))
        os.kill(dead, signal.SIGKILL)
        for _ in range(50):
            assert (await kept.call("GET", f"/commands/{created.json['commandId']}")).status == 200
            async with service.client() as fresh:  # nothing that waits to be accepted dies with a worker
                assert (await fresh.call("GET", f"/commands/{created.json['commandId']}")).status == 200
        with pytest.raises(NoAnswer):
            await lost.call("GET", "/readyz")
        while len(service.worker_pids()) < 2:  # noqa: ASYNC110 - another process cannot set our event
            await trio.sleep(POLL_SECONDS)
        assert dead not in service.worker_pids()
        async with one_each(service) as fresh_ones:
            assert set(fresh_ones) == {alive, *service.worker_pids()}


async def test_a_frozen_worker_holds_up_only_its_own_connections(tmp_path: Path) -> None:
    async with two(tmp_path) as service, one_each(service) as clients:
        (frozen, _), (_, kept) = clients.items()
        os.kill(frozen, signal.SIGSTOP)
        try:
            for number in range(10):
                async with service.client() as fresh:
                    created = await fresh.call("POST", "/commands", create_body("a", idempotencyKey=str(number)))
                    assert created.status == 200
                (lease,) = (await kept.call("POST", "/commands/leases", lease_body("a"))).json["leases"]
                assert lease["commandId"] == created.json["commandId"]
            await leases_end(kept)
        finally:
            os.kill(frozen, signal.SIGCONT)
        assert await service.terminate() == 0


async def leases_end(client: Client) -> None:
    """All short leases are seen to end, also those that the frozen worker would be first to see to."""
    for _ in range(10):
        await client.call("POST", "/commands", create_body("b"))
    short = lease_body("b", leaseSeconds=1, maxLeases=10)
    leases = (await client.call("POST", "/commands/leases", short)).json["leases"]
    assert len(leases) == 10
    for lease in leases:
        path = f"/commands/{lease['commandId']}/events"
        while "LeaseExpired" not in {event["type"] for event in (await client.call("GET", path)).json["events"]}:  # noqa: ASYNC110 - another process cannot set our event
            await trio.sleep(POLL_SECONDS)


async def test_kill_9_of_the_supervisor_leaves_nothing_alive(tmp_path: Path) -> None:
    async with two(tmp_path) as service:
        nats = service.nats_pid()
        assert nats is not None
        left = [*service.worker_pids(), nats]
        assert len(left) == 3
        await service.kill()
        for pid in left:
            await gone(pid)
        await service.start()


async def test_sigterm_drains_all_also_one_that_is_frozen(tmp_path: Path) -> None:
    async with two(tmp_path) as service, one_each(service) as clients, one_each(service) as watchers:
        left = service.worker_pids()
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        await watchers[left[0]].call("POST", "/commands", create_body("a", notBefore=later))
        answers: list[int] = []

        async def wait(client: Client) -> None:
            answers.append((await client.call("POST", "/commands/leases", lease_body("a", waitSeconds=40))).status)

        async with trio.open_nursery() as nursery:
            for pid in left:
                nursery.start_soon(wait, clients[pid])
                await until_one_waits(watchers[pid])
            os.kill(left[0], signal.SIGSTOP)
            assert await service.terminate() == 0
        assert answers == [200, 200]
        for pid in left:
            await gone(pid)
        assert service.stdout.read_text().count("\n") == 1


async def until_one_waits(client: Client) -> None:
    while not any(queue["waiting"] for queue in (await client.call("GET", "/queues")).json["queues"]):  # noqa: ASYNC110 - another process cannot set our event
        await trio.sleep(POLL_SECONDS)


async def test_a_second_sigterm_stops_at_once(tmp_path: Path) -> None:
    async with (
        two(tmp_path, ARC_DRAIN_SECONDS_MAX="50") as service,
        await trio.open_tcp_stream("127.0.0.1", service.port) as stream,
    ):
        head = b"POST /commands HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
        await stream.send_all(head)  # and never the body
        service.process.send_signal(signal.SIGTERM)
        while "draining" not in service.stderr.read_text():  # noqa: ASYNC110 - another process cannot set our event
            await trio.sleep(POLL_SECONDS)
        assert await service.terminate() == 0


async def test_a_service_whose_worker_cannot_start_ends_and_says_why(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS_MAX):
        async with serving(tmp_path / "data") as service:
            assert await service.terminate() == 0
        (tmp_path / "data" / "index" / "worker-2").write_text("in the way")
        service = ServiceProcess(tmp_path / "data", "--workers", "2")
        await service.spawn()
        assert await service.wait() == 1
        said = service.stderr.read_text().splitlines()
        assert any("worker-2" in line for line in said)
        assert said[-1].startswith("arc-es: worker 2 ended with status 1 before it was ready")
        assert service.stdout.read_text().count("ready") == 1


async def test_a_worker_that_cannot_start_again_ends_the_service(tmp_path: Path) -> None:
    async with two(tmp_path) as service:
        index = tmp_path / "data" / "index" / "worker-2"
        index.rename(index.with_name("moved"))
        index.write_text("in the way")
        for pid in service.worker_pids():
            os.kill(pid, signal.SIGKILL)
        assert await service.process.wait() == 1
        assert "5 times in a row" in service.stderr.read_text().splitlines()[-1]
