"""Idempotency keys (`arc.v1` 4.5)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from arc_es.journal.memory import MemoryJournal
from tests.http.driver import Clock, Served, a_command, a_target, inline, serving, success

DAY = 86_400


async def again(served: Served, **more: Any) -> Any:
    return (await served.client.post("/v1/commands", a_command(idempotencyKey="order:42", **more))).ok()


async def test_a_replay_answers_with_the_first_command_and_its_state(served: Served) -> None:
    first = await again(served)
    end = await served.journal.end()
    assert await again(served) == first
    assert await served.journal.end() == end
    (lease,) = await served.lease()
    assert await again(served) == first | {"state": "DISPATCHED"}
    await served.respond(lease["commandId"])
    assert await again(served) == first | {"state": "SUCCEEDED"}


async def test_deadline_and_trace_are_not_compared_and_the_first_ones_stay(served: Served) -> None:
    first = await again(served, deadline="2026-03-01T10:05:00Z")
    assert (await again(served, deadline="2026-03-01T11:00:00Z")) == first
    assert (await again(served)) == first
    (lease,) = await served.lease()
    assert lease["envelope"]["deadline"] == "2026-03-01T10:05:00Z"


async def test_other_params_are_409(served: Served) -> None:
    await again(served)
    end = await served.journal.end()
    other = a_command(idempotencyKey="order:42", params=inline(b"[]"))
    (await served.client.post("/v1/commands", other)).refused(409, "CONFLICT")
    assert await served.journal.end() == end


async def test_a_deployment_may_answer_like_a_replay_instead(served: Served) -> None:
    (await served.declare(a_target(), idempotencyConflict="replay")).ok()
    first = await again(served)
    assert await again(served, params=inline(b"[]")) == first
    (lease,) = await served.lease()
    assert lease["envelope"]["params"] == inline(b"{}")


async def test_every_part_of_the_scope_counts(served: Served) -> None:
    scopes = [
        {"deploymentId": "a", "targetResourceId": "b", "command": "c", "idempotencyKey": "d"},
        {"deploymentId": "x", "targetResourceId": "b", "command": "c", "idempotencyKey": "d"},
        {"deploymentId": "a", "targetResourceId": "x", "command": "c", "idempotencyKey": "d"},
        {"deploymentId": "a", "targetResourceId": "b", "command": "x", "idempotencyKey": "d"},
        {"deploymentId": "a", "targetResourceId": "b", "command": "c", "idempotencyKey": "x"},
        {"deploymentId": "ab", "targetResourceId": "c", "command": "d", "idempotencyKey": ""},
        {"deploymentId": "a", "targetResourceId": "bc", "command": "d", "idempotencyKey": ""},
        {"deploymentId": "a", "targetResourceId": "b", "command": "cd", "idempotencyKey": ""},
    ]
    ids = [await served.create(**scope) for scope in scopes]
    assert len(set(ids)) == len(scopes)
    assert [await served.create(**scope) for scope in scopes] == ids


@pytest.mark.parametrize("key", ["", " ", "a/b", "a:b:c", "ключ", "\0", "*.>", "\n", "é" * 512])
async def test_any_string_is_a_key(served: Served, key: str) -> None:
    assert await served.create(idempotencyKey=key) == await served.create(idempotencyKey=key)
    assert await served.create(idempotencyKey=key + "x" if len(key) < 512 else "x") != await served.create(
        idempotencyKey=key
    )


async def test_the_key_is_free_after_a_day(served: Served) -> None:
    first = await again(served)
    served.clock.advance(DAY - 0.000001)
    assert await again(served) == first
    served.clock.advance(0.000001)
    second = await again(served, params=inline(b"[]"))
    assert second["commandId"] != first["commandId"]
    assert await again(served, params=inline(b"[]")) == second
    served.clock.advance(DAY)
    third = await again(served)
    assert len({first["commandId"], second["commandId"], third["commandId"]}) == 3


async def test_a_replay_fails_where_a_create_fails(served: Served) -> None:
    await again(served)
    past = a_command(idempotencyKey="order:42", deadline="2026-03-01T10:00:00Z")
    (await served.client.post("/v1/commands", past)).refused(400, "INVALID_COMMAND")
    (await served.declare(a_target("other"))).ok()
    gone = a_command(idempotencyKey="order:42")
    (await served.client.post("/v1/commands", gone)).refused(404, "COMMAND_TARGET_NOT_FOUND")


async def test_a_passed_deadline_is_applied_first(served: Served) -> None:
    first = await again(served, deadline="2026-03-01T10:05:00Z")
    served.clock.advance(300.000001)
    assert await again(served) == first | {"state": "EXPIRED"}


async def test_concurrent_creates_with_one_key_give_one_command() -> None:
    """On two nodes that share a journal, all at once."""
    journal, clock = MemoryJournal(), Clock()
    answers: list[Any] = []
    async with serving(journal, clock) as one, serving(journal, clock) as other:

        async def create(served: Served) -> None:
            answers.append(await again(served))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(create, one)
                nursery.start_soon(create, other)
        assert len(answers) == 20
        assert len({answer["commandId"] for answer in answers}) == 1
        assert await one.types(answers[0]["commandId"]) == ["CommandCreated"]


async def test_concurrent_creates_with_other_params_give_one_command_and_conflicts(served: Served) -> None:
    statuses: list[int] = []

    async def create(number: int) -> None:
        data = a_command(idempotencyKey="k", params=inline(str(number).encode()))
        statuses.append((await served.client.post("/v1/commands", data)).status)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(create, number)
    assert sorted(statuses) == [200, *[409] * 7]
    assert len(await served.lease(maxLeases=10)) == 1


async def test_a_finished_command_still_holds_its_key(served: Served) -> None:
    first = await again(served)
    await served.lease()
    await served.respond(first["commandId"], success())
    assert (await again(served))["commandId"] == first["commandId"]
    assert await served.lease() == []
