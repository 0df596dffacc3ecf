"""Bodies in pieces: sizes, slow clients and the shared budget, in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
import trio

from arc_es.domain import limits
from arc_es.http.connection import BodyBudget, BodyLimits, ClientGone, RequestBody
from arc_es.http.problems import Refusal
from arc_es.ports import Overloaded

KIB = 1024
BYTES_MAX = 10_000 * KIB
Piece = tuple[float, bytes]
"""A pause in seconds, and what comes after it."""


def body(
    pieces: Iterator[Piece], announced: int | None = None, budget: int = 2**30, seconds_max: float = 30.0
) -> tuple[RequestBody, BodyBudget]:
    shared = BodyBudget(budget)
    return RequestBody(sending(pieces), BodyLimits(1_000, 1_000, seconds_max, shared), announced), shared


def sending(pieces: Iterator[Piece]) -> Callable[[], Awaitable[Any]]:
    """What a client sends, and then it leaves; a last piece that is empty ends the body."""

    async def receive() -> Any:
        for pause, data in pieces:
            await trio.sleep(pause)
            return {"type": "http.request", "body": data, "more_body": data != b""}
        return {"type": "http.disconnect"}

    return receive


def steadily(pause: float, piece: bytes, times: int) -> Iterator[Piece]:
    for _ in range(times):
        yield pause, piece
    yield 0, b""


async def size_of(given: RequestBody, bytes_max: int = BYTES_MAX, pause: float = 0) -> int:
    """How many bytes came, taken by somebody who pauses after each piece."""
    size = 0
    async with aclosing(given.chunks(bytes_max)) as chunks:
        async for chunk in chunks:
            size += len(chunk)
            await trio.sleep(pause)
    return size


@pytest.mark.parametrize(("pause", "piece"), [(0, 64 * KIB), (1, KIB), (29, 30 * KIB), (20, 20 * KIB)])
async def test_a_steady_client_may_be_slow(pause: float, piece: int) -> None:
    given, _ = body(steadily(pause, bytes(piece), 100))
    assert await size_of(given) == 100 * piece


@pytest.mark.parametrize(
    ("pause", "piece", "seconds"),
    [(1, 1, 30), (31, 10_000 * KIB - 1, 30), (10, 5 * KIB, 60), (1, KIB // 2, 60)],
)
async def test_a_client_below_the_least_speed_is_cut_off(pause: float, piece: int, seconds: float) -> None:
    given, _ = body(steadily(pause, bytes(piece), 1_000))
    began = trio.current_time()
    with pytest.raises(Refusal) as refused:
        await size_of(given)
    assert refused.value.code == "REQUEST_TIMEOUT"
    assert trio.current_time() - began == pytest.approx(seconds, abs=10)


async def test_the_time_of_who_takes_the_pieces_does_not_count() -> None:
    given, _ = body(steadily(0.5, b"x", 50))
    assert await size_of(given, pause=100) == 50


@pytest.mark.parametrize("announced", [None, 5])
async def test_a_body_above_its_limit_is_refused_as_soon_as_it_shows(announced: int | None) -> None:
    given, _ = body(steadily(0, b"xyz", 3), announced)
    with pytest.raises(Refusal) as refused:
        await size_of(given, 5)
    assert refused.value.code == "PAYLOAD_TOO_LARGE"
    given, _ = body(iter([]), 6)
    with pytest.raises(Refusal):
        await size_of(given, 5)


async def test_a_client_that_leaves_early_is_gone() -> None:
    given, _ = body(iter([(0, b"x")]))
    with pytest.raises(ClientGone):
        await size_of(given)
    given, _ = body(iter([(0, b"x")]))
    with pytest.raises(ClientGone):
        await given.whole()


async def test_what_a_body_reserves_is_given_back_with_its_request() -> None:
    given, budget = body(steadily(0, bytes(100), 3), announced=300, budget=1_000)
    assert await given.whole() == bytes(300)
    with pytest.raises(Overloaded):
        budget.take(701)
    budget.take(700)
    given.close()
    budget.take(300)
    given.close()
    with pytest.raises(Overloaded):
        budget.take(1)


async def test_a_body_of_unknown_length_reserves_the_most_and_keeps_what_it_was() -> None:
    given, budget = body(steadily(0, bytes(100), 3), budget=1_100)
    with pytest.raises(Overloaded):
        await body(steadily(0, b"x", 1), budget=999)[0].whole()
    await given.whole()
    budget.take(800)
    given.close()


async def test_an_upload_reserves_its_buffer_and_leaves_a_quarter_to_json() -> None:
    room = 2 * limits.UPLOAD_BUFFER_BYTES
    given, budget = body(steadily(0, bytes(64 * KIB), 100), budget=room)
    async with aclosing(given.chunks(BYTES_MAX)) as chunks:
        assert len(await anext(chunks)) == 64 * KIB
        with pytest.raises(Overloaded):
            budget.take(limits.UPLOAD_BUFFER_BYTES, is_upload=True)
        budget.take(limits.UPLOAD_BUFFER_BYTES)
    given.close()
    budget.take(limits.UPLOAD_BUFFER_BYTES)
