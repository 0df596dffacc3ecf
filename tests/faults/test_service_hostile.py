"""Hostile bytes on the socket hurt their own connection and nothing else."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.e2e.http import SUCCESS, Client, create_body, lease_body, submit_path
from tests.e2e.process import ServiceProcess, serving
from tests.faults.edge import JSON, edge, reply_of, said

SECONDS_MAX = 40
CLOSED_SECONDS = 2
DRAIN_SECONDS = 5
H2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /commands HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
UPGRADE = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
WEBSOCKET = b"GET /%b HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
WEBSOCKET_KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

ATTACKS = {
    "garbage": b"\x00\xff\xfe garbage\r\n\r\n",
    "random": os.urandom(5_000),
    "half a request line": b"POST /comm",
    "half a header": b"POST /commands HTTP/1.1\r\nHost: x\r\nContent-Len",
    "half a body": POST + b"Content-Length: 200\r\n\r\n{}",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "host of bytes": b"GET /commands/x HTTP/1.1\r\nHost: \xff\xfe/../::\r\n\r\n",
    "absolute target": b"GET http://other/healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "star": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "connect": b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "path of bytes": b"GET /commands/%ff%00%2f..%2f HTTP/1.1\r\nHost: x\r\n\r\n",
    "query of bytes": b"GET /commands/x?waitSeconds=%ff&=&&a=%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "headers of bytes": b"GET /queues HTTP/1.1\r\nHost: x\r\nAuthorization: Basic \xff\r\nUser-Agent: \xff\r\n\r\n",
    "large header": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    "many headers": b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    "bad chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello",
    "bad chunk end": POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX",
    "huge chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n" + b"x" * 1_000,
    "chunks and a length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "unknown coding": POST + b"Transfer-Encoding: gzip\r\n\r\n",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "negative length": POST + b"Content-Length: -3\r\n\r\nabcd",
    "huge length": POST + b"Content-Length: 99999999999999\r\n\r\nabcd",
    "length of many digits": POST + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\nabcd",
    "body longer than its length": POST + b"Content-Length: 2\r\n\r\n{}{}{}{}",
    "body over the limit": POST + b"Content-Length: 3000000\r\n\r\n" + b"x" * 3_000_000,
    "chunks over the limit": POST + b"Transfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n%b\r\n" % (b"x" * 65_536)) * 50,
    "deep JSON": POST + b"Content-Length: 100000\r\n\r\n" + b"[" * 100_000,
    "expect": POST + b"Expect: 100-continue\r\nContent-Length: 3000000\r\n\r\n",
    "pipeline": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 200,
    "HTTP/2": H2,
    "HTTP/2 garbage": H2 + b"\xff" * 200,
    "HTTP/2 empty settings": H2 + b"\0\0\0\4\0\0\0\0\0",
    "h2c": UPGRADE + b"HTTP2-Settings: \r\n\r\n",
    "h2c without settings": UPGRADE + b"\r\n",
    "h2c settings of a wrong length": UPGRADE + b"HTTP2-Settings: AAAA\r\n\r\n",
    "h2c settings of bytes": UPGRADE + b"HTTP2-Settings: !!!\xff\r\n\r\n",
    "websocket": WEBSOCKET % b"healthz" + WEBSOCKET_KEY,
    "websocket and garbage": WEBSOCKET % b"%ff" + WEBSOCKET_KEY + b"\xff" * 100,
    "websocket without key": WEBSOCKET % b"healthz" + b"\r\n",
}


UNREADABLE = {
    "garbage": (b"\x00\xff\xfe garbage\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "HTTP/2": (H2, 400),
    "HTTP/3.0": (b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", 400),
    "no host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    "host with a blank": (b"GET /healthz HTTP/1.1\r\nHost: x y\r\n\r\n", 400),
    "host with a quote": (b'GET /healthz HTTP/1.1\r\nHost: x"\r\n\r\n', 400),
    "host with a path": (b"GET /healthz HTTP/1.1\r\nHost: x/../y?\r\n\r\n", 400),
    "host with a user": (b"GET /healthz HTTP/1.1\r\nHost: me@x\r\n\r\n", 400),
    "host of bytes": (b"GET /healthz HTTP/1.1\r\nHost: \xc3\xa4\r\n\r\n", 400),
    "NUL in a header": (b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n", 400),
    "blank in the path": (b"GET /health z HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "folded header": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n A: b\r\n\r\n", 400),
    "blank before the colon": (b"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n", 400),
    "unknown coding": (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    "two lengths": (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    "negative length": (POST + b"Content-Length: -3\r\n\r\nabcd", 400),
    "length of many digits": (POST + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\nabcd", 400),
    "bad chunk size": (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello", 400),
    "bad chunk end": (POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX", 400),
    "long chunk head": (POST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 40_000, 431),
    "large header": (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", 431),
    "header over the limit, in one packet": (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 17_000 + b"\r\n\r\n", 431),
    "many headers": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", 431),
    "endless path": (b"GET /" + b"a" * 200_000, 431),
}
CODES = {400: "INVALID_REQUEST", 404: "ROUTE_NOT_FOUND", 413: "PAYLOAD_TOO_LARGE", 431: "REQUEST_HEADER_TOO_LARGE"}
CLOSE = b"Connection: close\r\n"
DEEP = b"[" * 100_000
ANSWERED = {
    "absolute target": (b"GET http://other/healthz HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n", 200),
    "absolute target without a path": (b"GET http://other HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n", 404),
    "star": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n", 404),
    "connect": (b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n", 404),
    "empty host": (b"GET /healthz HTTP/1.1\r\nHost:\r\n" + CLOSE + b"\r\n", 200),
    "HTTP/1.0": (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    "h2c": (UPGRADE + CLOSE.replace(b"close", b"Upgrade, close") + b"HTTP2-Settings: AAAA\r\n\r\n", 200),
    "path of bytes": (b"GET /%ff%00%2f..%2f HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n", 404),
    "deep JSON": (POST + CLOSE + b"Content-Length: 100000\r\n\r\n" + DEEP, 400),
    "closed deep JSON": (POST + CLOSE + b"Content-Length: 4000\r\n\r\n" + b"[" * 2_000 + b"]" * 2_000, 400),
    "body over the limit": (POST + b"Content-Length: 3000000\r\n\r\n" + b"x" * 3_000_000, 413),
    "huge length": (POST + b"Content-Length: 99999999999999\r\n\r\nabcd", 413),
    "chunks over the limit": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n%b\r\n" % (b"x" * 65_536)) * 50,
        413,
    ),
}


@pytest.mark.parametrize(("data", "status"), UNREADABLE.values(), ids=UNREADABLE)
async def test_what_is_no_request_gets_an_error_in_json_and_the_end(data: bytes, status: int) -> None:
    async with edge() as port:
        reply, rest = reply_of(await said(port, data))
    reply.refused(status, CODES[status])
    assert (rest, reply.headers["connection"]) == (b"", "close")


@pytest.mark.parametrize(("data", "status"), ANSWERED.values(), ids=ANSWERED)
async def test_odd_requests_are_answered_as_any_other(data: bytes, status: int) -> None:
    async with edge() as port:
        reply, rest = reply_of(await said(port, data))
    if status == 200:
        assert (reply.status, reply.body) == (200, b'{"status":"healthy"}')
    else:
        reply.refused(status, CODES[status])
    assert rest == b""


async def test_chunks_and_a_length_are_read_as_chunks_and_nothing_is_smuggled() -> None:
    both = POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    async with edge() as port:
        data = await said(port, both + GET + GET.replace(b"\r\n\r\n", b"\r\n" + CLOSE + b"\r\n"))
    first, rest = reply_of(data)
    first.refused(422, "INVALID_REQUEST")
    assert [reply_of(rest)[0].status, reply_of(reply_of(rest)[1])[0].status] == [200, 200]


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with edge() as port:
        rest = await said(port, (GET + GET.replace(b"healthz", b"nothing")) * 20 + b"garbage\r\n\r\n")
    statuses = []
    while rest:
        reply, rest = reply_of(rest)
        statuses.append(reply.status)
    assert statuses == [200, 404] * 20 + [400]


async def test_a_client_that_expects_continue_gets_it() -> None:
    async with edge() as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 100 ")
        await stream.send_all(b"{}")
        reply_of(await stream.receive_some())[0].refused(422, "INVALID_REQUEST")


async def test_a_small_body_that_nobody_wants_does_not_cost_the_connection() -> None:
    """Clients write the head and the body in two packets, and the answer may be there before the second."""
    async with edge() as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
        await wait_all_tasks_blocked()
        await stream.send_all(b"12345")
        reply_of(await stream.receive_some())[0].refused(404, "ROUTE_NOT_FOUND")
        await stream.send_all(GET)
        assert reply_of(await stream.receive_some())[0].status == 200


@pytest.mark.parametrize("host", ["a.example", "a.example:80", "127.0.0.1:1", "[::1]:8420"])
async def test_own_urls_name_the_host_that_was_asked(host: str) -> None:
    assert await shown_url(f"HTTP/1.1\r\nHost: {host}") == f"http://{host}"


@pytest.mark.parametrize("rest", ["HTTP/1.0", "HTTP/1.1\r\nHost:"])
async def test_without_a_host_own_urls_name_the_address_that_was_asked(rest: str) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", await shown_url(rest))


async def shown_url(rest: str, **settings: Any) -> str:
    """The URL of the service as it says itself to a request line and headers that end so."""
    body = b'{"deploymentId":"d","role":"sender"}'
    head = f"POST /v1/commands/bootstrap {rest}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    async with edge(**settings) as port:
        reply, _ = reply_of(await said(port, head.encode() + JSON + b"\r\n" + body))
    assert reply.status == 200, reply.body
    return str(json.loads(reply.body)["managerUrl"])


FORWARDED = "HTTP/1.1\r\nHost: x\r\nX-Forwarded-Proto: {}\r\nX-Forwarded-Host: {}\r\nX-Forwarded-Prefix: {}"


@pytest.mark.parametrize(
    ("given", "url"),
    [
        (("https", "arc.example", "/arc/"), "https://arc.example/arc"),
        (("HTTPS", "a, b:8443", "/a/b"), "https://b:8443/a/b"),
        (("", "", ""), "http://x"),
        (("javascript", 'x" onload', "//evil?"), "http://x"),
        (("https", "a/b", "../x"), "https://x"),
    ],
)
async def test_forwarded_headers_count_only_if_the_proxy_is_trusted(given: tuple[str, str, str], url: str) -> None:
    assert await shown_url(FORWARDED.format(*given), trust_forwarded=True) == url
    assert await shown_url(FORWARDED.format(*given)) == "http://x"
    fixed = "https://fixed.example/arc"
    for public_url in (fixed, f"{fixed}/", f"{fixed}/v1"):
        assert await shown_url(FORWARDED.format(*given), trust_forwarded=True, public_url=public_url) == fixed


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[ServiceProcess]:
    with trio.fail_after(SECONDS_MAX):
        async with serving(tmp_path / "data") as running:
            yield running


async def attack(service: ServiceProcess, data: bytes, end: str) -> None:
    """Send bytes and leave: after reading what comes (`read`), at once (`close`), or with a reset (`reset`)."""
    stream = await trio.open_tcp_stream("127.0.0.1", service.port)
    with suppress(trio.BrokenResourceError), trio.move_on_after(CLOSED_SECONDS):
        await stream.send_all(data)
        if end == "read":
            await stream.send_eof()
            while await stream.receive_some(65_536):
                pass
    if end == "reset":
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await trio.aclose_forcefully(stream)


async def works(service: ServiceProcess) -> bool:
    """Whether a command goes through its whole life."""
    async with service.client() as client:
        created = (await client.call("POST", "/commands", create_body("whole"))).json
        leases = (await client.call("POST", "/commands/leases", lease_body("whole"))).json["leases"]
        assert [created["commandId"]] == [lease["commandId"] for lease in leases]
        await client.call("PUT", submit_path(leases[0]), SUCCESS)
        status = await client.call("GET", f"/commands/{created['commandId']}")
        return bool(status.json["state"] == "SUCCEEDED")


async def test_no_bytes_end_the_service_or_stay_behind(service: ServiceProcess) -> None:
    """Each attack alone, by each way to leave; then all at once; then a drain that finds nothing left over."""
    async with service.client() as client:
        for end in ("read", "close", "reset"):
            for name, data in ATTACKS.items():
                await attack(service, data, end)
                assert (await client.call("GET", "/healthz")).status == 200, (name, end)
    async with trio.open_nursery() as nursery:
        for data in ATTACKS.values():
            nursery.start_soon(attack, service, data, "close")
    assert await works(service)
    with trio.fail_after(DRAIN_SECONDS):
        assert await service.terminate() == 0
    said = service.stderr.read_text()
    assert " ERROR " not in said, said
    assert "Traceback" not in said, said


@pytest.mark.slow
async def test_a_client_that_does_not_read_its_answers_cannot_stop_a_drain(service: ServiceProcess) -> None:
    async with service.client() as client:
        large = {"mode": "inline", "inlineBase64": "A" * 200_000}
        created = (await client.call("POST", "/commands", {**create_body("t"), "params": large})).json
    request = f"GET /commands/{created['commandId']}/payload HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    async with await trio.open_tcp_stream("127.0.0.1", service.port) as deaf:
        with trio.move_on_after(2):
            await deaf.send_all(request * 200)
            await trio.sleep_forever()
        with trio.fail_after(25):
            assert await service.terminate() == 0


async def test_a_client_that_leaves_in_the_middle_leaves_no_reservation(service: ServiceProcess) -> None:
    """Callers and agents that send their request and go: each command is leasable by the next, once."""
    async with service.client() as client:
        for round_number in range(5):
            target = f"t{round_number}"
            await client.call("POST", "/commands", create_body(target))  # a queue is known by its first command
            assert len(await leased(client, target, leaseSeconds=60)) == 1
            waiting, creating = service.client(), service.client()
            await waiting.send("POST", "/commands/leases", lease_body(target, waitSeconds=60, leaseSeconds=1))
            await until_waiting(client, target)
            await creating.send("POST", "/commands", create_body(target, idempotencyKey="k"))
            waiting.close()
            creating.close()
            created = (await client.call("POST", "/commands", create_body(target, idempotencyKey="k"))).json
            # The agent that left may have been granted the command just before: then the lease has to end.
            with trio.fail_after(10):
                assert [created["commandId"]] == await leased(client, target, waitSeconds=10)
            assert await leased(client, target) == []


async def leased(client: Client, target: str, **more: object) -> list[str]:
    """The commands that a lease call got."""
    answer = await client.call("POST", "/commands/leases", lease_body(target, maxLeases=5, **more))
    return [lease["commandId"] for lease in answer.json["leases"]]


async def until_waiting(client: Client, target: str) -> None:
    with trio.fail_after(5):
        while True:
            queues = (await client.call("GET", "/queues")).json["queues"]
            if [queue["waiting"] for queue in queues if queue["target"]["resourceId"] == target] == [1]:
                return
