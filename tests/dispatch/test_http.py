"""What `HttpPusher` sends, and what it makes of every kind of answer, on real sockets."""

from __future__ import annotations

import logging
import socket
import tracemalloc
from collections.abc import AsyncGenerator

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from arc_es.dispatch.http import HttpPusher, open_http_pusher
from arc_es.ports import PushOutcome
from tests.dispatch.worker import Worker, answer, close, endless, hang, raw, working

ENVELOPE = b'{"protocol":"arc.v1"}'
SECONDS_MAX = 20
OK_HEAD = b"HTTP/1.1 202 Accepted\r\n"


@pytest.fixture
async def worker() -> AsyncGenerator[Worker, None]:
    async with working() as found:
        yield found


@pytest.fixture
async def pusher() -> AsyncGenerator[HttpPusher, None]:
    async with open_http_pusher(8) as found:
        yield found


async def push(pusher: HttpPusher, url: str, token: str | None = None) -> PushOutcome:
    with trio.fail_after(SECONDS_MAX):
        return await pusher.push(url, token, ENVELOPE)


async def test_a_worker_gets_the_envelope_with_its_token_at_exactly_its_url(worker: Worker, pusher: HttpPusher) -> None:
    outcome = await push(pusher, f"http://127.0.0.1:{worker.port}/a/../b%2Fc//d;e?x={{1}}&y=%41#part", "s3cret")
    assert outcome == PushOutcome("accepted")
    (received,) = worker.received
    assert (received.method, received.target) == ("POST", "/a/../b%2Fc//d;e?x={1}&y=%41")
    assert received.body == ENVELOPE
    assert received.headers == {
        "host": f"127.0.0.1:{worker.port}",
        "content-type": "application/json",
        "authorization": "Bearer s3cret",
        "content-length": str(len(ENVELOPE)),
    }


async def test_without_a_token_there_is_no_authorization(worker: Worker, pusher: HttpPusher) -> None:
    await push(pusher, f"http://user:password@127.0.0.1:{worker.port}")
    assert "authorization" not in worker.received[0].headers
    assert worker.received[0].target == "/"


async def test_what_http_cannot_carry_is_escaped(worker: Worker, pusher: HttpPusher) -> None:
    assert (await push(pusher, f"http://127.0.0.1:{worker.port}/a b/ü?q")).result == "accepted"
    assert worker.received[0].target == "/a%20b/%C3%BC?q"


@pytest.mark.parametrize("status", [200, 201, 204, 301, 302, 307, 400, 401, 403, 404, 429, 500, 503])
async def test_any_status_but_202_is_a_rejection(worker: Worker, pusher: HttpPusher, status: int) -> None:
    worker.behave = answer(status, b"" if status == 204 else b"why", b"Location: /elsewhere", b"Set-Cookie: a=b")
    assert await push(pusher, worker.url) == PushOutcome("rejected", f"answered {status}")
    await push(pusher, worker.url)
    assert [received.target for received in worker.received] == ["/push", "/push"]
    assert "cookie" not in worker.received[1].headers


async def test_nobody_there_is_a_rejection(pusher: HttpPusher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert await push(pusher, f"http://127.0.0.1:{port}/push") == PushOutcome("rejected", "no connection")


@pytest.mark.parametrize(
    "url", ["", "push", "http://", "ftp://127.0.0.1/", "http://127.0.0.1:99999/", "http://[::1", "http://a\0b/"]
)
async def test_what_is_no_url_is_a_rejection(pusher: HttpPusher, url: str) -> None:
    assert (await push(pusher, url)).result == "rejected"


async def test_a_token_that_no_header_can_hold_is_a_rejection(worker: Worker, pusher: HttpPusher) -> None:
    outcome = await push(pusher, worker.url, "two\r\nX-Other: lines")
    assert outcome == PushOutcome("rejected", "the request cannot be built")
    assert worker.received == []


@given(st.text(), st.none() | st.text())
@settings(max_examples=100)
def test_no_url_and_no_token_make_it_raise(rest: str, token: str | None) -> None:
    async def main() -> PushOutcome:
        async with open_http_pusher(1) as pusher:
            return await push(pusher, f"http://127.0.0.1:1/{rest}", token)

    assert trio.run(main).result == "rejected"


async def test_a_connection_closed_before_reading_is_unclear(worker: Worker, pusher: HttpPusher) -> None:
    worker.reads = False
    assert (await push(pusher, worker.url)).result == "unclear"


@pytest.mark.parametrize(
    "behave",
    [
        close,
        raw(b"\x00\xff garbage\r\n\r\n"),
        raw(b"HTTP/1.1 xyz\r\n\r\n"),
        raw(b"HTTP/1.1 202 Acc"),
        raw(b"HTTP/1.1 202 Accepted\r\nno colon\r\n\r\n"),
        endless(OK_HEAD, b"X-Pad: 0123456789\r\n"),
        endless(OK_HEAD + b"X-Pad: ", b"0123456789" * 100),
    ],
    ids=["closed", "garbage", "bad status", "half a status", "bad header", "endless headers", "endless header"],
)
async def test_a_broken_answer_is_unclear(worker: Worker, pusher: HttpPusher, behave: object) -> None:
    worker.behave = behave  # type: ignore[assignment]
    assert (await push(pusher, worker.url)).result == "unclear"


@pytest.mark.parametrize(
    "behave",
    [
        hang,
        endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["silent", "always goes on"],
)
async def test_an_answer_that_never_comes_can_be_given_up(worker: Worker, pusher: HttpPusher, behave: object) -> None:
    worker.behave = behave  # type: ignore[assignment]
    with trio.fail_after(SECONDS_MAX), trio.move_on_after(0.2) as scope:
        await pusher.push(worker.url, None, ENVELOPE)
    assert scope.cancelled_caught
    worker.behave = answer(202)
    assert await push(pusher, worker.url) == PushOutcome("accepted")


@pytest.mark.parametrize(
    "behave",
    [
        raw(OK_HEAD + b"Content-Length: 100\r\n\r\nshort"),
        raw(OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n"),
        raw(OK_HEAD + b"\r\nuntil the end"),
        endless(OK_HEAD + b"\r\n", b"x" * 65_536),
        endless(OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["cut off", "bad chunks", "closed", "endless body", "endless chunks"],
)
async def test_the_status_counts_whatever_the_body_is(worker: Worker, pusher: HttpPusher, behave: object) -> None:
    worker.behave = behave  # type: ignore[assignment]
    tracemalloc.start()
    try:
        assert await push(pusher, worker.url) == PushOutcome("accepted")
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()


async def test_a_body_that_drips_is_not_waited_for(worker: Worker, pusher: HttpPusher) -> None:
    async def drip(stream: trio.SocketStream, request: object) -> None:
        await stream.send_all(OK_HEAD + b"Content-Length: 1000\r\n\r\nx")
        await trio.sleep_forever()

    worker.behave = drip
    assert await push(pusher, worker.url) == PushOutcome("accepted")


async def test_a_connection_is_used_again(worker: Worker, pusher: HttpPusher) -> None:
    worker.behave = answer(202, b"thanks")
    for _ in range(5):
        assert await push(pusher, worker.url) == PushOutcome("accepted")
    assert (len(worker.received), worker.connections) == (5, 1)


async def test_secrets_are_not_logged(worker: Worker, pusher: HttpPusher, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await push(pusher, f"{worker.url}?key=s3cret-in-url", "s3cret-token")
    worker.behave = answer(500, b"s3cret-body", b"X-Echo: s3cret-token")
    await push(pusher, f"{worker.url}?key=s3cret-in-url", "s3cret-token")
    assert "s3cret" not in caplog.text
