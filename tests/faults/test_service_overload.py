"""Too much, too slow, too many: refused early, in the one shape of errors, and everybody else is served on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from arc_es.config import Config
from arc_es.domain import limits
from arc_es.http.connection import ClientGone
from tests.faults.edge import JSON, edge, reply_of, said, serving, until_closed

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /commands HTTP/1.1\r\nHost: x\r\n" + JSON
MIB = 1024 * 1024


def lease(target: str, deployment: str = "dep") -> bytes:
    asked = {"deploymentId": deployment, "target": {"resourceId": target, "resourceType": "daemon"}, "waitSeconds": 60}
    body = json.dumps(asked).encode()
    return b"POST /commands/leases HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (JSON, len(body), body)


async def answer(stream: trio.SocketStream, data: bytes) -> bytes:
    """What comes back for a request on a connection that stays open."""
    await stream.send_all(data)
    return await stream.receive_some()


# --- slow clients


@pytest.mark.parametrize("start", [b"G", b"GET / HTTP/1.1\r\n", GET[:-2]])
async def test_a_head_that_does_not_end_is_cut_off(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_SECONDS_MAX", 0.1)
    async with edge() as port:
        reply, rest = reply_of(await said(port, start))
        reply.refused(408, "REQUEST_TIMEOUT")
        assert rest == b""


async def test_a_head_of_one_byte_now_and_then_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_SECONDS_MAX", 0.3)
    async with edge() as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        assert await answer(stream, GET)  # also on a connection that has served already

        async def drip() -> None:
            while True:
                await stream.send_all(b"G")
                await trio.sleep(0.02)  # a slow client is the subject

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            reply_of(await until_closed(stream))[0].refused(408, "REQUEST_TIMEOUT")
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("limit", "first"), [("HEAD_SECONDS_MAX", b""), ("IDLE_SECONDS_MAX", GET)])
async def test_a_connection_without_a_request_is_closed_in_silence(
    limit: str, first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, limit, 0.1)
    async with edge() as port:
        data = await said(port, first)
    assert data.count(b"HTTP/1.1 200") == data.count(b"HTTP/1.1") == len(first[:1])


async def test_a_request_under_way_outlives_the_limits_of_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_SECONDS_MAX", 0.05)
    monkeypatch.setattr(limits, "IDLE_SECONDS_MAX", 0.05)
    body = lease("t").replace(b'"waitSeconds": 60', b'"waitSeconds":  1')
    async with edge() as port:
        reply, _ = reply_of(await said(port, body))
    assert (reply.status, json.loads(reply.body)) == (200, {"leases": []})


async def test_a_body_that_does_not_end_is_cut_off() -> None:
    async with edge(slow_request_seconds_max=0.1) as port:
        reply, _ = reply_of(await said(port, POST + b"Content-Length: 10\r\n\r\n{"))
        reply.refused(408, "REQUEST_TIMEOUT")
        assert reply.headers["connection"] == "close"


async def test_a_client_that_does_not_read_is_cut_off_and_a_slow_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEND_SECONDS_MAX", 0.3)
    made = 0
    ended = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal made
        headers = [(b"content-length", str(64 * MIB).encode())]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            for _ in range(1024):
                await send({"type": "http.response.body", "body": bytes(64 * 1024), "more_body": True})
                made += 64 * 1024
        except Exception:
            ended.set()
            raise

    async with serving(_quiet(app), Config()) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(GET)
        taken = 0
        for _ in range(20):  # slower than the limit as a whole, and never without a step
            with trio.move_on_after(0.05):
                await ended.wait()
            taken += len(await stream.receive_some(256 * 1024))
        assert not ended.is_set()
        await ended.wait()
        assert made - taken < 16 * MIB  # what the system holds for both ends, and not what the answer was


def _quiet(app: Callable[[Any, Any, Any], Any]) -> Any:
    """As `Connection`: a client that is gone is no error."""

    async def handle(scope: Any, receive: Any, send: Any) -> None:
        with suppress(ClientGone):
            await app(scope, receive, send)

    return handle


async def test_an_upload_is_not_read_faster_than_it_is_used() -> None:
    """And what nobody used does not hold the connection."""
    go = trio.Event()
    used = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal used
        while used < MIB:
            used += len((await receive())["body"])
        await go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    sent = 0
    async with serving(app, Config()) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (1024 * MIB))
        while True:
            with trio.move_on_after(0.3) as stalled:
                await stream.send_all(bytes(64 * 1024))
            if stalled.cancelled_caught:
                break
            sent += 64 * 1024
        assert MIB <= sent < 24 * MIB  # what the system holds for both ends
        go.set()
        reply, _ = reply_of(await until_closed(stream))
        assert (reply.status, reply.headers["connection"]) == (200, "close")


# --- too many


async def test_above_connections_max_the_answer_is_503() -> None:
    async with edge(connections_max=2) as port:
        first = await trio.open_tcp_stream("127.0.0.1", port)
        assert (await answer(first, GET)).startswith(b"HTTP/1.1 200")
        async with await trio.open_tcp_stream("127.0.0.1", port) as second:
            assert (await answer(second, GET)).startswith(b"HTTP/1.1 200")
            for request in (b"", GET, POST + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000):
                reply, rest = reply_of(await said(port, request))
                reply.refused(503, "OVERLOADED")
                assert rest == b""
            assert (await answer(second, GET)).startswith(b"HTTP/1.1 200")
            await first.aclose()
            while True:  # until the service has noticed
                data = await said(port, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                if data.startswith(b"HTTP/1.1 200"):
                    break


async def test_a_crowd_above_connections_max_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TURNED_AWAY_MAX", 5)
    async with edge(connections_max=1) as port, await trio.open_tcp_stream("127.0.0.1", port) as first:
        assert (await answer(first, GET)).startswith(b"HTTP/1.1 200")
        before = trio.lowlevel.current_statistics().tasks_living
        crowd = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(100)]
        assert (await answer(first, GET)).startswith(b"HTTP/1.1 200")
        assert trio.lowlevel.current_statistics().tasks_living <= before + 5 + 1
        for stream in crowd:
            await trio.aclose_forcefully(stream)
        while trio.lowlevel.current_statistics().tasks_living > before:
            await trio.lowlevel.checkpoint()
        assert (await answer(first, GET)).startswith(b"HTTP/1.1 200")


@pytest.fixture
async def crowded() -> AsyncIterator[int]:
    async with edge(waiters_max=3, waiters_per_target_max=2) as port:
        yield port


async def test_agents_that_wait_for_one_target_have_a_share(crowded: int) -> None:
    async with trio.open_nursery() as nursery:
        for target, status in (("a", 0), ("a", 0), ("a", 429), ("b", 0), ("c", 503)):
            if status:
                async with await trio.open_tcp_stream("127.0.0.1", crowded) as stream:
                    reply, _ = reply_of(await answer(stream, lease(target)))
                reply.refused(status, "OVERLOADED")
            else:
                nursery.start_soon(said, crowded, lease(target))
                await wait_all_tasks_blocked(0.1)  # it waits, and everything is in this process
        nursery.cancel_scope.cancel()


async def test_the_bodies_of_all_requests_share_a_budget() -> None:
    async with edge(request_bodies_bytes_max=1_000) as port:
        async with await trio.open_tcp_stream("127.0.0.1", port) as first:
            await first.send_all(POST + b"Content-Length: 900\r\nExpect: 100-continue\r\n\r\n")
            assert (await first.receive_some()).startswith(b"HTTP/1.1 100")
            reply, _ = reply_of(await said(port, POST + b"Content-Length: 100000\r\n\r\n"))
            reply.refused(503, "OVERLOADED")
            reply, _ = reply_of(await said(port, POST + b"Transfer-Encoding: chunked\r\n\r\n"))
            reply.refused(503, "OVERLOADED")
            await first.send_all(b" " * 900)
            reply_of(await first.receive_some())[0].refused(400, "INVALID_REQUEST")
        body = b"x" * 990
        reply, _ = reply_of(await said(port, POST + b"Connection: close\r\nContent-Length: 990\r\n\r\n" + body))
        reply.refused(400, "INVALID_REQUEST")
