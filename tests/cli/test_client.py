"""`ArcClient` itself: on both event loops, signed URLs, clocks, rests between attempts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import trio

from arc_es.client import ArcClient, ArcError, Backoff, BadAnswer, ServerUnreachable, retrying
from arc_es.client.transport import api_base
from arc_es.domain.ids import Target
from tests.cli.fake import Answer, FakeService, problem
from tests.cli.test_work import lease

Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


@pytest.fixture(params=["trio", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs an async function on either loop."""
    return trio.run if request.param == "trio" else lambda function: asyncio.run(function())


def test_a_lease_is_answered_on_either_loop(run: Run, fake: FakeService) -> None:
    fake.on("POST /p/v1/commands/leases", Answer(200, {"leases": [lease()]}))
    fake.on("PUT /p/v1/commands/cmd_1/response", Answer(200))
    fake.on("PUT /p/v1/storage/cmd_1", Answer(200))

    async def work() -> None:
        async with ArcClient(f"{fake.url}/p/?tenant=a", "t0k") as client:
            (taken,) = await client.lease("demo", Target("greeter", "daemon"), wait_seconds=1)
            assert await client.body(taken.params) == b"hello"
            await client.put_object(taken.upload_request, b"result")
            await client.submit(taken.submit_url, {"status": "error", "code": "C", "message": "m"})

    run(work)
    leased, uploaded, submitted = fake.requests
    assert (leased.query, leased.headers["authorization"]) == ("tenant=a", "Bearer t0k")
    assert (uploaded.query, uploaded.body) == ("signature=s", b"result")
    assert submitted.query == "response_token=t&expires=1"
    assert "authorization" not in uploaded.headers
    assert "authorization" not in submitted.headers


def test_retrying_rests_on_either_loop_and_stops_at_a_refusal(run: Run, fake: FakeService) -> None:
    answers = iter(
        [Answer(503, b"busy"), problem(429, "OVERLOADED", retryable=True), problem(403, "NO", retryable=False)]
    )
    fake.on("GET /v1/queues", lambda _: next(answers))
    told: list[int] = []

    async def ask() -> None:
        async with ArcClient(fake.url) as client:
            backoff = Backoff(initial_seconds=0.001)
            await retrying(client.queues, backoff=backoff, on_retry=lambda error, _: told.append(error.status))

    with pytest.raises(ArcError) as refused:
        run(ask)
    assert (refused.value.status, refused.value.code, refused.value.retryable) == (403, "NO", False)
    assert told == [503, 429]


def test_no_listener_means_that_nothing_was_sent() -> None:
    async def ask() -> None:
        async with ArcClient("http://127.0.0.1:1") as client:
            await client.health()

    with pytest.raises(ServerUnreachable) as nobody:
        trio.run(ask)
    assert (nobody.value.connected, nobody.value.retryable) == (False, True)


def test_a_malformed_envelope_is_worth_another_try(fake: FakeService) -> None:
    fake.on("POST /v1/commands/leases", Answer(200, {"leases": [{"leaseId": "l"}]}))

    async def ask() -> None:
        async with ArcClient(fake.url) as client:
            await client.lease("demo")

    with pytest.raises(BadAnswer) as bad:
        trio.run(ask)
    assert bad.value.retryable


def test_rests_grow_to_a_bound_and_obey_the_server() -> None:
    backoff = Backoff(initial_seconds=1, factor=2, max_seconds=8)
    assert 0.5 <= backoff.delay_seconds(1) <= 1
    assert 4 <= backoff.delay_seconds(1000) <= 8
    assert backoff.delay_seconds(1, ArcError("later", retry_after_seconds=20)) == 20
    assert backoff.delay_seconds(1, ArcError("much later", retry_after_seconds=9e9)) == 60


@pytest.mark.parametrize("url", ["nowhere", "ftp://h", "http://", "127.0.0.1:8420", "http://h:port"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        api_base(url)


@pytest.mark.parametrize("given", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_the_base_is_with_v1_once(given: str) -> None:
    assert str(api_base(given)) == "http://h:1/v1"
