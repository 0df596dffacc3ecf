"""Large bodies through a real service on real disks: whole, one way and the other, whoever dies meanwhile."""

from __future__ import annotations

import base64
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from arc_es.domain.limits import REQUEST_BODIES_BYTES_MAX
from tests.e2e.http import SUCCESS, Client, create_body, lease_body, submit_path
from tests.e2e.process import ServiceProcess, environ, serving
from tests.e2e.transfer import (
    MIB,
    Body,
    Downloaded,
    Framing,
    complete,
    downloading,
    forget_resident_bytes,
    framed,
    get,
    put,
    resident_bytes_max,
    rest_of,
    target_of,
    uploading,
    waiting_for_upload,
)

GROWTH_BYTES_MAX = 64 * MIB
QUIET = ("--log-level", "WARNING")


def whole(body: Body) -> Downloaded:
    return Downloaded(200, body.size, body.sha256)


async def params_of(service: ServiceProcess, client: Client, command_id: str) -> Downloaded:
    """The params that the payload endpoint leads to."""
    payload = (await client.call("GET", f"/v1/commands/{command_id}/payload")).json
    return await get(service.port, target_of(payload["params"]["storageGetRequest"]))


async def leased(client: Client, target_id: str) -> dict[str, Any]:
    """The one command that waits for a target."""
    answer = await client.call("POST", "/v1/commands/leases", lease_body(target_id))
    (lease,) = answer.json["leases"]
    return dict(lease)


async def round_trip(service: ServiceProcess, body: Body, framing: Framing) -> None:
    """Params up and down, a result up and down, all of them the same bytes."""
    target_id = f"{framing}-{body.size}"
    async with service.client() as client:
        created = await waiting_for_upload(client, target_id)
        command_id, upload = created["commandId"], created["storageUpload"]["putRequest"]
        assert (await put(service.port, target_of(upload), body, framing)).status == 200
        assert (await complete(client, command_id, body.size)).json["state"] == "PENDING"
        lease = await leased(client, target_id)
        envelope = lease["envelope"]
        assert await get(service.port, target_of(envelope["params"]["storageGetRequest"])) == whole(body)
        upload = envelope["responseHandling"]["storageUploadRequest"]
        assert (await put(service.port, target_of(upload), body, framing)).status == 200
        stored = {"mode": "storage", "size": body.size, "storagePutUsed": True}
        answered = await client.call("PUT", f"/v1{submit_path(lease)}", {"status": "success", "response": stored})
        assert answered.status == 200
        status = (await client.call("GET", f"/v1/commands/{command_id}")).json
        assert await get(service.port, target_of(status["response"]["response"]["storageGetRequest"])) == whole(body)
        events = (await client.call("GET", f"/v1/commands/{command_id}/events")).json["events"]
        digests = [data["sha256"] for event in events for data in event["data"].values() if isinstance(data, dict)]
        assert digests.count(body.sha256) == 2, events


async def test_a_mebibyte_goes_up_and_down_whole(tmp_path: Path) -> None:
    framings: tuple[Framing, ...] = ("length", "chunked", "expect")
    async with serving(tmp_path / "data", *QUIET) as service:
        with trio.fail_after(30):
            for framing in framings:
                await round_trip(service, Body(MIB + 1), framing)


@pytest.mark.slow
async def test_sixty_four_mebibytes_go_up_and_down_whole(tmp_path: Path) -> None:
    framings: tuple[Framing, ...] = ("length", "chunked")
    async with serving(tmp_path / "data", *QUIET) as service:
        with trio.fail_after(120):
            for framing in framings:
                await round_trip(service, Body(64 * MIB), framing)


async def begin(port: int, target: str, body: Body, framing: Framing = "length") -> None:
    """Upload the first half and cut the connection."""
    async with uploading(port, target, body.size, framing) as stream:
        for sent, block in enumerate(body.blocks()):
            if sent * len(block) >= body.size // 2:
                return
            await stream.send_all(framed(block, framing))


async def test_a_broken_upload_leaves_the_one_before(tmp_path: Path) -> None:
    first, second = Body(3 * MIB, 1), Body(5 * MIB, 2)
    async with serving(tmp_path / "data", *QUIET) as service, service.client() as client:
        with trio.fail_after(30):
            created = await waiting_for_upload(client, "a")
            command_id, upload = created["commandId"], target_of(created["storageUpload"]["putRequest"])
            await begin(service.port, upload, second)
            assert (await complete(client, command_id, first.size)).status == 400
            assert (await put(service.port, upload, first)).status == 200
            await begin(service.port, upload, second)
            await begin(service.port, upload, second, "chunked")
            assert (await complete(client, command_id, second.size)).status == 400
            assert (await complete(client, command_id, first.size)).status == 200
            assert await params_of(service, client, command_id) == whole(first)
            assert (await put(service.port, upload, second)).status == 409
            assert await params_of(service, client, command_id) == whole(first)


async def restarted(service: ServiceProcess) -> None:
    await service.kill()
    await service.start()


async def test_a_service_killed_during_an_upload(tmp_path: Path) -> None:
    """The half of it is nowhere, and the same URL takes the whole."""
    body = Body(8 * MIB)
    async with serving(tmp_path / "data", *QUIET) as service, service.client() as client:
        with trio.fail_after(60):
            created = await waiting_for_upload(client, "a")
            command_id, upload = created["commandId"], target_of(created["storageUpload"]["putRequest"])
            async with uploading(service.port, upload, body.size) as stream:
                for block in list(body.blocks())[:-1]:
                    await stream.send_all(block)
                await restarted(service)
            client.close()
            assert (await complete(client, command_id, body.size)).status == 400
            status = (await client.call("GET", f"/v1/commands/{command_id}")).json
            assert status["state"] == "PENDING_UPLOAD"
            assert (await put(service.port, upload, body)).status == 200
            assert (await complete(client, command_id, body.size)).status == 200
            assert await params_of(service, client, command_id) == whole(body)


async def test_a_service_killed_after_an_upload(tmp_path: Path) -> None:
    """What was acknowledged is there; completing it works, and downloads go on from other lives of the service."""
    body = Body(8 * MIB)
    async with serving(tmp_path / "data", *QUIET) as service, service.client() as client:
        with trio.fail_after(60):
            created = await waiting_for_upload(client, "a")
            command_id, upload = created["commandId"], target_of(created["storageUpload"]["putRequest"])
            assert (await put(service.port, upload, body)).status == 200
            await restarted(service)
            client.close()
            assert (await complete(client, command_id, body.size)).status == 200
            await restarted(service)
            client.close()
            assert await params_of(service, client, command_id) == whole(body)


def stored_bytes(data_dir: Path) -> int:
    """What the body store has on disk."""
    return sum(path.stat().st_size for path in data_dir.rglob("streams/OBJ_*/msgs/*.blk"))


async def killed_when_stored(service: ServiceProcess, wanted: int) -> None:
    """Kill the service as soon as the body store has so many bytes on disk."""
    while stored_bytes(service.data_dir) < wanted:  # noqa: ASYNC110 - another process cannot set our event
        await trio.sleep(0.0002)
    await service.kill()


@pytest.mark.slow
async def test_a_service_killed_between_promotion_and_event(tmp_path: Path) -> None:
    """A large inline create that nobody acknowledged is made by its repeat, once, with the same bytes."""
    async with serving(tmp_path / "data", *QUIET) as service:
        with trio.fail_after(120):
            for number, size in enumerate((1, 400_000, 512 * 1024, MIB, MIB + 150)):
                body = Body(MIB, number)
                inline = {"mode": "inline", "inlineBase64": base64.b64encode(body.whole()).decode()}
                request = create_body("a", params=inline, idempotencyKey=f"key {number}")
                wanted = stored_bytes(service.data_dir) + size
                async with service.client() as client:
                    await client.send("POST", "/v1/commands", request)
                    await killed_when_stored(service, wanted)
                await service.start()
                async with service.client() as client:
                    created = await client.call("POST", "/v1/commands", request)
                    again = await client.call("POST", "/v1/commands", request)
                    assert (created.status, created.json["state"]) == (200, "PENDING"), created
                    assert again.json == created.json
                    assert await params_of(service, client, created.json["commandId"]) == whole(body)
                    queues = (await client.call("GET", "/v1/queues")).json["queues"]
                    assert [queue["pending"] for queue in queues] == [number + 1]


async def test_a_slow_reader_stops_nobody(tmp_path: Path) -> None:
    body = Body(48 * MIB)
    async with serving(tmp_path / "data", *QUIET) as service, service.client() as client:
        with trio.fail_after(60):
            created = await waiting_for_upload(client, "a")
            command_id = created["commandId"]
            await put(service.port, target_of(created["storageUpload"]["putRequest"]), body)
            await complete(client, command_id, body.size)
            payload = (await client.call("GET", f"/v1/commands/{command_id}/payload")).json
            download = target_of(payload["params"]["storageGetRequest"])
            async with downloading(service.port, download) as (stream, head, rest):
                await short_lives(client, 20)
                assert await get(service.port, download) == whole(body)
                assert await rest_of(stream, head, rest) == whole(body)


async def short_lives(client: Client, count: int) -> None:
    """Commands from create to end."""
    for _ in range(count):
        created = await client.call("POST", "/v1/commands", create_body("quick"))
        lease = await leased(client, "quick")
        assert (await client.call("PUT", f"/v1{submit_path(lease)}", SUCCESS)).status == 200
        status = await client.call("GET", f"/v1/commands/{created.json['commandId']}")
        assert status.json["state"] == "SUCCEEDED"


@pytest.mark.slow
async def test_a_gibibyte_moves_in_little_memory(tmp_path: Path) -> None:
    large = Body(1024 * MIB)
    settings = {"ARC_STORAGE_BYTES_MAX": str(2048 * MIB)}
    async with serving(tmp_path / "data", *QUIET, **settings) as service, service.client() as client:
        with trio.fail_after(240):
            await round_trip(service, Body(8 * MIB), "length")
            pid = service.process.pid
            began = forget_resident_bytes(pid)
            created = await waiting_for_upload(client, "large")
            assert (await put(service.port, target_of(created["storageUpload"]["putRequest"]), large)).status == 200
            up = resident_bytes_max(pid) - began
            assert (await complete(client, created["commandId"], large.size)).status == 200
            assert await params_of(service, client, created["commandId"]) == whole(large)
            growth = resident_bytes_max(pid) - began
        print(f"growth: {up / MIB:.1f} MiB up, {growth / MIB:.1f} MiB up and down")
        assert growth < GROWTH_BYTES_MAX


UPLOADS = 300


@pytest.mark.slow
async def test_hundreds_of_uploads_at_once_stay_in_bounds(tmp_path: Path) -> None:
    """Those for which there is no room are told so before they are read, and come again."""
    async with serving(tmp_path / "data", *QUIET) as service:
        with trio.fail_after(120):
            await round_trip(service, Body(MIB), "length")
            began = forget_resident_bytes(service.process.pid)
            refused = 0

            async def upload(number: int) -> None:
                nonlocal refused
                body = Body(MIB, number)
                async with service.client() as client:
                    created = await waiting_for_upload(client, f"t{number % 7}")
                    target = target_of(created["storageUpload"]["putRequest"])
                    while (answer := await put(service.port, target, body)).status == 503:
                        refused += 1
                        await trio.sleep(float(answer.headers["retry-after"]))
                    assert answer.status == 200, answer
                    assert (await complete(client, created["commandId"], body.size)).status == 200
                    assert await params_of(service, client, created["commandId"]) == whole(body)

            async with trio.open_nursery() as nursery:
                for number in range(UPLOADS):
                    nursery.start_soon(upload, number)
            growth = resident_bytes_max(service.process.pid) - began
            print(f"{UPLOADS} uploads: growth {growth / MIB:.0f} MiB, {refused} refused for a while")
            assert growth < 2 * REQUEST_BODIES_BYTES_MAX  # what they share, and what the allocator keeps


# --- our own clients, behind a proxy with a path prefix


PREFIX = b"/arc"


async def pass_on(to_port: int, client: trio.SocketStream) -> None:
    """A reverse proxy's side of a connection: one request, without its prefix."""
    head = b""
    while b"\r\n" not in head:
        if not (data := await client.receive_some()):
            return
        head += data
    line, _, rest = head.partition(b"\r\n")
    assert PREFIX in line, line
    async with await trio.open_tcp_stream("127.0.0.1", to_port) as service:
        await service.send_all(line.replace(PREFIX, b"", 1) + b"\r\nConnection: close\r\n" + rest)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, client, service)
            await pump(service, client)
            nursery.cancel_scope.cancel()
    with suppress(trio.BrokenResourceError):
        await client.send_eof()


async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):
        while data := await source.receive_some(65_536):
            await sink.send_all(data)


@pytest.mark.slow
async def test_call_and_work_move_large_bodies_through_a_proxy_with_a_prefix(tmp_path: Path) -> None:
    body = Body(3 * MIB)
    (tmp_path / "params").write_bytes(body.whole())
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}{PREFIX.decode()}"
    arc = partial(trio.run_process, cwd=tmp_path, env=environ({"ARC_URL": url}), capture_stderr=True)
    work = [sys.executable, "-m", "arc_es", "work", "demo", "copier", "--once", "--", "cat"]
    call = [sys.executable, "-m", "arc_es", "call", "demo", "copy", "@params", "--target", "copier", "--output", "got"]
    with trio.fail_after(60):
        async with serving(tmp_path / "data", *QUIET, ARC_PUBLIC_URL=url) as service, trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, partial(pass_on, service.port), listeners)
            async with trio.open_nursery() as both:
                both.start_soon(arc, work)
                both.start_soon(arc, call)
            nursery.cancel_scope.cancel()
    assert (tmp_path / "got").read_bytes() == body.whole()
