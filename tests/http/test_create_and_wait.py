"""Creating a command and waiting for its end in one call (extensions, "Creating and waiting")."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.http.driver import Answer, Served, a_command, a_target, success


class Waiting:
    """A create under way."""

    def __init__(self) -> None:
        self.gone = trio.Event()
        self.answer = Answer()
        self.seconds = 0.0

    async def run(self, served: Served, **more: Any) -> None:
        before = trio.current_time()
        self.answer = await served.client.post("/v1/commands", a_command(**more), gone=self.gone)
        self.seconds = trio.current_time() - before


async def test_the_answer_comes_with_the_end_and_says_what_a_status_says(served: Served) -> None:
    call = Waiting()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: call.run(served, waitSeconds=60))
        await trio.testing.wait_all_tasks_blocked()
        (lease,) = await served.lease()
        await served.respond(lease["commandId"])
    assert call.seconds == 0
    assert call.answer.ok() == {
        "commandId": lease["commandId"],
        "state": "SUCCEEDED",
        "inlineAllowedUpTo": 150_000,
        "next": "poll",
        "attempt": 1,
        "target": a_target(),
        "response": success(),
    }


@pytest.mark.parametrize(("seconds", "waited"), [(None, 0), (0, 0), (7, 7), (10**30, 60)])
async def test_or_at_the_end_of_the_wait_with_what_there_is(served: Served, seconds: int | None, waited: int) -> None:
    call = Waiting()
    await call.run(served, waitSeconds=seconds)
    assert call.seconds == waited
    answer = call.answer.ok()
    assert answer["state"] == "PENDING"
    assert ("attempt" in answer) == bool(waited)


async def test_an_upload_is_not_waited_for(served: Served) -> None:
    call = Waiting()
    await call.run(served, params={"mode": "storage", "size": 3}, waitSeconds=60)
    assert (call.seconds, call.answer.ok()["next"]) == (0, "upload")


async def test_a_repeated_create_waits_for_the_first_command(served: Served) -> None:
    command_id = await served.create(idempotencyKey="k")
    await served.lease()
    call = Waiting()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: call.run(served, idempotencyKey="k", waitSeconds=60))
        await trio.testing.wait_all_tasks_blocked()
        await served.respond(command_id)
    assert (call.answer.ok()["commandId"], call.answer.ok()["state"]) == (command_id, "SUCCEEDED")


async def test_a_caller_who_leaves_leaves_a_command_behind(served: Served) -> None:
    call = Waiting()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: call.run(served, waitSeconds=60))
        await trio.testing.wait_all_tasks_blocked()
        call.gone.set()
    assert (call.seconds, call.answer.status) == (0, 0)
    assert len(await served.lease()) == 1


@pytest.mark.parametrize("value", [-1, 1.5, "1", True])
async def test_a_wait_that_is_no_number_is_422(served: Served, value: Any) -> None:
    (await served.client.post("/v1/commands", a_command(waitSeconds=value))).refused(422, "INVALID_REQUEST")
