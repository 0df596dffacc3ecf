"""A real process from its start to its end: what the README promises, and what it refuses."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import Any

import trio

from tests.contract.nats_process import NatsProcess
from tests.e2e.http import SUCCESS, Client, create_body, lease_body, submit_path
from tests.e2e.process import ServiceProcess, gone, serving

SECONDS_MAX = 40
DRAIN_SECONDS = 3
REFUSED_SECONDS = 10
TOKEN = "an-admin-token-that-nobody-may-see"


async def walk(client: Client, target: str) -> str:
    """Create, lease, answer; the id of the command."""
    created = await client.call("POST", "/v1/commands", create_body(target, idempotencyKey="walk"))
    assert (created.status, created.json["state"], created.json["next"]) == (200, "PENDING", "poll")
    command_id: str = created.json["commandId"]
    leases = (await client.call("POST", "/v1/commands/leases", lease_body(target))).json["leases"]
    assert [command_id] == [lease["commandId"] for lease in leases]
    assert (await client.call("GET", f"/v1/commands/{command_id}")).json["state"] == "DISPATCHED"
    assert (await client.call("PUT", "/v1" + submit_path(leases[0]), SUCCESS)).status == 200
    return command_id


async def seen(client: Client, command_id: str) -> tuple[Any, Any]:
    """Status and history of a command."""
    status = await client.call("GET", f"/v1/commands/{command_id}")
    history = await client.call("GET", f"/v1/commands/{command_id}/events")
    return status.json, history.json["events"]


async def test_a_command_from_create_to_answer_survives_a_restart(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS_MAX):
        async with serving(tmp_path / "data") as service:
            assert service.ready_line == f"arc-es ready on http://{service.bind}\n"
            async with service.client() as client:
                command_id = await walk(client, "t")
                before = await seen(client, command_id)
            assert (before[0]["state"], before[0]["response"]) == ("SUCCEEDED", SUCCESS)
            assert [event["type"] for event in before[1]] == ["CommandCreated", "CommandLeased", "CommandSucceeded"]
            assert await service.terminate() == 0
            await service.start()
            async with service.client() as client:
                assert await seen(client, command_id) == before
                again = await client.call("POST", "/commands", create_body("t", idempotencyKey="walk"))
                assert (again.json["commandId"], again.json["state"]) == (command_id, "SUCCEEDED")


async def test_sigterm_answers_what_is_under_way_and_takes_nats_along(tmp_path: Path) -> None:
    """A create that waits for a frozen nats-server is answered when it thaws, a long poll gets its [] at once."""
    async with serving(tmp_path / "data") as service:
        with trio.fail_after(SECONDS_MAX):
            nats_pid = service.nats_pid()
            assert nats_pid is not None
            async with service.client() as waiting, service.client() as creating, service.client() as looking:
                await looking.call("POST", "/commands", create_body("t"))
                await looking.call("POST", "/commands/leases", lease_body("t", leaseSeconds=600))
                await waiting.send("POST", "/commands/leases", lease_body("t", waitSeconds=60))
                while (await looking.call("GET", "/queues")).json["queues"][0]["waiting"] == 0:
                    pass
                service.signal_nats(signal.SIGSTOP)
                await creating.send("POST", "/commands", create_body("u"))
                for _ in range(3):  # by then the service has read what was sent before
                    assert (await looking.call("GET", "/healthz")).status == 200
                service.process.terminate()
                with trio.fail_after(DRAIN_SECONDS):
                    polled = await waiting.answer()
                    service.signal_nats(signal.SIGCONT)
                    created = await creating.answer()
                    assert await service.wait() == 0
            assert (polled.status, polled.json) == (200, {"leases": []})
            assert (created.status, created.json["state"]) == (200, "PENDING")
            await gone(nats_pid)
            assert service.stdout.read_text() == service.ready_line
            await service.start()
            async with service.client() as client:
                assert (await client.call("GET", f"/commands/{created.json['commandId']}")).json["state"] == "PENDING"


async def test_a_second_service_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS_MAX):
        async with serving(tmp_path / "data") as service:
            said = await refused(ServiceProcess(tmp_path / "data", bind="127.0.0.1:0"), tmp_path, 1)
            assert f"is in use by python (pid {service.process.pid})" in said.replace("python3.11", "python"), said
            async with service.client() as client:
                assert (await client.call("GET", "/readyz")).status == 200


async def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS_MAX), socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        assert f"cannot listen on {bind}" in await refused(ServiceProcess(tmp_path / "data", bind=bind), tmp_path, 1)
        assert not (tmp_path / "data" / "store").exists()


async def test_an_open_service_refuses_to_be_reached_from_elsewhere(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS_MAX):
        said = await refused(ServiceProcess(tmp_path / "data", bind="0.0.0.0:0"), tmp_path, 2)
    assert "ARC_ADMIN_TOKEN" in said
    assert not (tmp_path / "data").exists()


async def refused(service: ServiceProcess, tmp_path: Path, exit_status: int) -> str:
    """Start what must not start; what it says on stderr."""
    service.stderr, service.stdout = tmp_path / "refused.stderr", tmp_path / "refused.stdout"
    await service.spawn()
    try:
        with trio.fail_after(REFUSED_SECONDS):
            assert await service.wait() == exit_status
    finally:
        with trio.CancelScope(shield=True):
            await service.kill()
    said = service.stderr.read_text()
    assert service.stdout.read_text() == ""
    assert "Traceback" not in said
    return said


async def test_a_nats_server_of_somebody_else_is_used_and_left_alone(tmp_path: Path) -> None:
    nats = NatsProcess(tmp_path)
    try:
        with trio.fail_after(SECONDS_MAX):
            await nats.start()
            async with serving(tmp_path / "data", "--nats-url", nats.url) as service:
                assert service.nats_pid() is None
                async with service.client() as client:
                    command_id = await walk(client, "t")
                    before = await seen(client, command_id)
                assert await service.terminate() == 0
                async with await trio.open_tcp_stream("127.0.0.1", nats.port) as stream:
                    assert (await stream.receive_some(5)) == b"INFO "
                await service.start()
                async with service.client() as client:
                    assert await seen(client, command_id) == before
    finally:
        nats.kill()


async def test_no_secret_is_said_or_written_where_it_does_not_belong(tmp_path: Path) -> None:
    """Admin token, signatures and the password of NATS: not on the console, not in any file others may read."""
    (tmp_path / "token").write_text(TOKEN + "\n")
    with trio.fail_after(SECONDS_MAX):
        async with serving(
            tmp_path / "data", "--log-level", "DEBUG", ARC_ADMIN_TOKEN_FILE=str(tmp_path / "token")
        ) as service:
            async with service.client() as nobody:
                assert (await nobody.call("GET", "/queues")).status == 401
                assert (await nobody.call("GET", "/queues", Authorization="Bearer wrong")).status == 401
            async with service.client(Authorization=f"Bearer {TOKEN}") as client:
                command_id = await walk(client, "t")
                await client.call("POST", "/commands", create_body("t"))
                lease = (await client.call("POST", "/commands/leases", lease_body("t"))).json["leases"][0]
                handling = lease["envelope"]["responseHandling"]
                urls = [submit_path(lease), handling["storageUploadRequest"]["backend"]["url"]]
                signatures = [field.partition("=")[2] for url in urls for field in url.partition("?")[2].split("&")]
                async with service.client() as unknown:  # a wrong signature is no reason to quote the right one
                    assert (await unknown.call("PUT", urls[0].replace("=", "=0"), SUCCESS)).status in (400, 401)
                    assert (await unknown.call("PUT", urls[0], SUCCESS)).status == 200
                shown = str(await seen(client, command_id))
            service.signal_nats(signal.SIGKILL)
            async with service.client() as client:
                while (await client.call("GET", "/readyz")).status == 200:
                    pass
                while (await client.call("GET", "/readyz")).status != 200:
                    pass
            secrets = [TOKEN, nats_password(service.data_dir), *(text for text in signatures if len(text) == 64)]
            assert len(secrets) == 4
            assert await service.terminate() == 0
    said = service.stdout.read_text() + service.stderr.read_text() + shown
    written = {path: path.read_bytes() for path in service.data_dir.rglob("*") if path.is_file()}
    for secret in secrets:
        assert secret not in said
        assert {path.name for path, data in written.items() if secret.encode() in data} <= {"nats.env"}
    assert (service.data_dir / "nats.env").stat().st_mode & 0o077 == 0


def nats_password(data_dir: Path) -> str:
    """The password that the service made for its nats-server."""
    lines = (data_dir / "nats.env").read_text().splitlines()
    return next(line.partition("=")[2].strip("'\"") for line in lines if "PASSWORD" in line)
