"""Cancelling commands (extensions, "Creating and waiting"; `arc.v1` 4.1)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.http.driver import Answer, Served, serving


async def cancel(served: Served, command_id: str, body: Any = None, **more: Any) -> Answer:
    return await served.client.post(f"/v1/commands/{command_id}/cancel", body, **more)


async def test_a_cancelled_command_has_failed_with_the_reason(served: Served) -> None:
    command_id = await served.create()
    status = (await cancel(served, command_id, {"reason": "no longer needed"})).ok()
    assert status == await served.status(command_id)
    assert set(status) == {"commandId", "state", "attempt", "target", "response"}
    assert status["state"] == "FAILED"
    assert status["response"] == {"status": "error", "code": "CANCELLED", "message": "no longer needed"}
    assert await served.lease() == []
    assert await served.types(command_id) == ["CommandCreated", "CommandFailed"]


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"reason":null}', b'{"other":1}'])
async def test_a_reason_is_not_needed(served: Served, raw: bytes) -> None:
    command_id = await served.create()
    headers = {"Content-Type": "application/json"} if raw else {}
    status = (await cancel(served, command_id, raw=raw, headers=headers)).ok()
    assert status["response"]["message"] == "The command was cancelled"


@pytest.mark.parametrize("body", [[], {"reason": 5}, "x"])
async def test_a_body_of_another_shape_is_422_and_changes_nothing(served: Served, body: Any) -> None:
    command_id = await served.create()
    (await cancel(served, command_id, body)).refused(422, "INVALID_REQUEST")
    assert (await served.status(command_id))["state"] == "PENDING"


async def test_a_long_reason_is_cut(served: Served) -> None:
    command_id = await served.create()
    status = (await cancel(served, command_id, {"reason": "ä" * 5_000})).ok()
    assert status["response"]["message"] == "ä" * 512


async def test_again_or_too_late_nothing_changes(served: Served) -> None:
    done, cancelled = await served.create(), await served.create()
    await served.lease()
    await served.respond(done)
    first = (await cancel(served, cancelled, {"reason": "one"})).ok()
    end = await served.journal.end()
    assert (await cancel(served, cancelled, {"reason": "two"})).ok() == first
    assert (await cancel(served, done)).ok()["state"] == "SUCCEEDED"
    assert await served.journal.end() == end
    (await cancel(served, "cmd_unknown")).refused(404, "COMMAND_NOT_FOUND")


async def test_every_live_state_can_be_cancelled(served: Served) -> None:
    uploading = await served.create(params={"mode": "storage", "size": 3})
    resting = await served.create(notBefore="2026-03-01T11:00:00Z")
    held = await served.create()
    await served.lease()
    for command_id in (uploading, resting, held):
        assert (await cancel(served, command_id)).ok()["state"] == "FAILED"


async def test_a_passed_deadline_comes_first(served: Served) -> None:
    command_id = await served.create(deadline="2026-03-01T10:00:05Z")
    served.clock.advance(6)
    assert (await cancel(served, command_id)).ok()["state"] == "EXPIRED"


async def test_the_answer_of_a_holder_comes_too_late(served: Served) -> None:
    command_id = await served.create()
    (lease,) = await served.lease()
    await cancel(served, command_id)
    assert (await served.respond(command_id)).status == 200
    assert (await served.release(lease["leaseId"])).status == 404
    assert (await served.status(command_id))["state"] == "FAILED"
    assert (await served.types(command_id))[-2:] == ["CommandFailed", "LateResponseRecorded"]


async def test_of_a_cancel_and_an_answer_exactly_one_wins(served: Served) -> None:
    for _ in range(5):
        command_id = await served.create()
        await served.lease()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.respond, command_id)
            nursery.start_soon(cancel, served, command_id)
        types = await served.types(command_id)
        assert types[2:] in (["CommandSucceeded"], ["CommandFailed", "LateResponseRecorded"])


async def test_a_waiting_sender_learns_it_at_once(served: Served) -> None:
    command_id = await served.create()
    answers: list[Answer] = []

    async def wait() -> None:
        answers.append(await served.client.get(f"/v1/commands/{command_id}?waitSeconds=60"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
        await cancel(served, command_id)
    assert trio.current_time() == before
    assert answers[0].ok()["response"]["code"] == "CANCELLED"


async def test_a_command_that_has_left_memory_stays_as_it_ended() -> None:
    async with serving(finished_in_memory_max=1) as served:
        ids = [await served.create() for _ in range(4)]
        for command_id in ids:
            await served.lease()
            await served.respond(command_id)
        await trio.testing.wait_all_tasks_blocked()
        assert (await cancel(served, ids[0])).ok()["state"] == "SUCCEEDED"
