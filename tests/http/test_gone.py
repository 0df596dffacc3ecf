"""A command leased for a client that is gone by the time of the answer goes back at once (extensions)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing

from arc_es.http.connection import ClientGone
from arc_es.journal.memory import MemoryJournal
from arc_es.ports import Append, AppendOutcome
from tests.http.driver import Answer, Served, a_lease, serving


class Held(MemoryJournal):
    """Holds one append back, so that somebody can leave meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.holding = False
        self.held = trio.Event()
        self.go_on = trio.Event()

    async def append(self, appends: Sequence[Append]) -> list[AppendOutcome]:
        if self.holding:
            self.holding = False
            self.held.set()
            await self.go_on.wait()
        return await super().append(appends)


@pytest.mark.parametrize("more", [{}, {"waitSeconds": 60}, {"maxLeases": 3}, {"agent": {"id": "a"}}])
async def test_a_client_that_leaves_while_its_lease_is_stored(more: dict[str, Any]) -> None:
    journal = Held()
    async with serving(journal) as served:
        await served.lease()
        command_id = await served.create(maxAttempts=1)
        journal.holding, gone, answer = True, trio.Event(), Answer()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: served.client.post("/v1/commands/leases", a_lease(**more), gone=gone, into=answer)
            )
            await journal.held.wait()
            gone.set()
            await trio.testing.wait_all_tasks_blocked()
            journal.go_on.set()
        assert answer.status == 0
        await check_back(served, command_id)


async def check_back(served: Served, command_id: str) -> None:
    """The next who asks gets it, as the first attempt."""
    assert await served.types(command_id) == ["CommandCreated", "CommandLeased", "LeaseReleased"]
    (event,) = [event for event in await served.events(command_id) if event["type"] == "LeaseReleased"]
    assert (event["by"]["kind"], event["data"]["undelivered"]) == ("service", True)
    status = await served.status(command_id)
    assert (status["state"], status["attempt"]) == ("PENDING", 1)
    (lease,) = await served.lease()
    assert (lease["commandId"], lease["attempt"]) == (command_id, 1)


async def test_an_answer_that_cannot_be_written_was_not_received(served: Served) -> None:
    command_id = await served.create(maxAttempts=1)

    async def break_off() -> None:
        raise ClientGone

    await served.client.post("/v1/commands/leases", a_lease(), taking=break_off)
    await check_back(served, command_id)


async def test_it_is_offered_on_to_whoever_waits(served: Served) -> None:
    first, second, gone = Answer(), Answer(), trio.Event()
    asked = a_lease(waitSeconds=60)

    async def leave() -> None:
        raise ClientGone

    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: served.client.post("/v1/commands/leases", asked, gone=gone, into=first, taking=leave)
        )
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(lambda: served.client.post("/v1/commands/leases", asked, into=second))
        await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
        command_id = await served.create()
    assert trio.current_time() == before
    (lease,) = second.ok()["leases"]
    assert (lease["commandId"], lease["attempt"]) == (command_id, 1)


async def test_an_empty_answer_takes_nothing_back(served: Served) -> None:
    await served.lease()
    end = await served.journal.end()
    gone = trio.Event()
    gone.set()
    await served.client.post("/v1/commands/leases", a_lease(), gone=gone)
    assert await served.journal.end() == end
