"""Long polls: leases that wait for work, statuses that wait for the end (extensions)."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing

from arc_es.config import Config
from tests.http.driver import Answer, Served, a_lease, a_target, serving


class Call:
    """A request under way."""

    def __init__(self) -> None:
        self.gone = trio.Event()
        self.done = trio.Event()
        self.answer = Answer()

    async def lease(self, served: Served, **more: Any) -> None:
        asked = a_lease(waitSeconds=60) | more
        self.answer = await served.client.post("/v1/commands/leases", asked, gone=self.gone)
        self.done.set()

    async def status(self, served: Served, command_id: str, seconds: int = 60) -> None:
        self.answer = await served.client.get(f"/v1/commands/{command_id}?waitSeconds={seconds}", gone=self.gone)
        self.done.set()

    async def ids(self) -> list[str]:
        with trio.fail_after(70):
            await self.done.wait()
        return [lease["commandId"] for lease in self.answer.ok()["leases"]]


async def waiting(nursery: trio.Nursery, served: Served, count: int = 1, **more: Any) -> list[Call]:
    """Calls that wait, in this order."""
    calls = []
    for _ in range(count):
        call = Call()
        nursery.start_soon(lambda call=call: call.lease(served, **more))  # type: ignore[misc]
        await trio.testing.wait_all_tasks_blocked()
        calls.append(call)
    return calls


def room(served: Served) -> int:
    """How many agents the waiting room counts."""
    return len(served.node.service._leasing._waiters)


async def test_a_command_answers_a_waiting_call_at_once(served: Served) -> None:
    async with trio.open_nursery() as nursery:
        (call,) = await waiting(nursery, served)
        before = trio.current_time()
        command_id = await served.create()
        assert await call.ids() == [command_id]
        assert trio.current_time() == before


async def test_without_work_the_answer_is_empty_at_the_end(served: Served) -> None:
    before = trio.current_time()
    assert await served.lease(waitSeconds=7) == []
    assert trio.current_time() == before + 7
    assert await served.lease(waitSeconds=10**9) == []
    assert trio.current_time() == before + 67


async def test_work_that_is_there_is_not_waited_for(served: Served) -> None:
    await served.create()
    before = trio.current_time()
    assert len(await served.lease(waitSeconds=60, maxLeases=5)) == 1
    assert trio.current_time() == before


async def test_a_target_that_cannot_be_leased_waits_too(served: Served) -> None:
    """An answer at once would make its receiver call again at once."""
    before = trio.current_time()
    await served.lease(target=a_target("new", "daemon"))
    assert await served.lease(target=a_target("new", "worker"), waitSeconds=9) == []
    assert trio.current_time() == before + 9


async def test_first_come_first_served_and_one_command_wakes_one(served: Served) -> None:
    async with trio.open_nursery() as nursery:
        calls = await waiting(nursery, served, 3)
        ids = []
        for call, following in zip(calls, [*calls[1:], None], strict=True):
            ids.append(await served.create())
            assert await call.ids() == ids[-1:]
            assert following is None or not following.done.is_set()


async def test_both_generations_wait_in_one_line(served: Served) -> None:
    async with trio.open_nursery() as nursery:
        (old,) = await waiting(nursery, served, target=None)
        (new,) = await waiting(nursery, served)
        first, second = await served.create(), await served.create()
        assert await old.ids() == [first]
        assert await new.ids() == [second]


async def test_a_waiter_that_left_passes_its_command_on_at_once(served: Served) -> None:
    async with trio.open_nursery() as nursery:
        first, second = await waiting(nursery, served, 2)
        first.gone.set()
        await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
        command_id = await served.create()
        assert await second.ids() == [command_id]
        assert trio.current_time() == before
        assert first.answer.status == 0


async def test_a_waiter_that_leaves_as_it_is_served_keeps_nothing_from_the_others(served: Served) -> None:
    async with trio.open_nursery() as nursery:
        first, second = await waiting(nursery, served, 2)
        served.node.follower.on_leasable, offer = lambda command_id: None, served.node.follower.on_leasable
        command_id = await served.create()
        first.gone.set()
        offer(command_id)
        before = trio.current_time()
        assert await second.ids() == [command_id]
        assert trio.current_time() == before


async def test_returned_and_rested_commands_wake_too(served: Served) -> None:
    command_id = await served.create()
    (lease,) = await served.lease(leaseSeconds=30)
    async with trio.open_nursery() as nursery:
        (call,) = await waiting(nursery, served, leaseSeconds=30)
        await served.release(lease["leaseId"])
        assert await call.ids() == [command_id]
        (call,) = await waiting(nursery, served)
        served.clock.advance(30)
        with trio.fail_after(2):
            assert await call.ids() == [command_id]
        later = await served.create(notBefore="2026-03-01T10:10:00Z")
        (call,) = await waiting(nursery, served)
        served.clock.advance(600)
        with trio.fail_after(2):
            assert later in await call.ids()


async def test_the_room_is_empty_when_all_have_left(served: Served) -> None:
    for _ in range(3):
        assert await served.lease(waitSeconds=5) == []
        assert room(served) == 0
    async with trio.open_nursery() as nursery:
        calls = await waiting(nursery, served, 4)
        assert room(served) == 4
        for call in calls[:3]:
            call.gone.set()
        await trio.testing.wait_all_tasks_blocked()
        assert room(served) == 1
        await served.create()
        await calls[3].ids()
    assert room(served) == 0


async def test_a_full_room_refuses_before_anything_is_written() -> None:
    async with serving(waiters_max=2) as served, trio.open_nursery() as nursery:
        await served.lease()
        calls = await waiting(nursery, served, 2)
        end = await served.journal.end()
        answer = await served.client.post("/v1/commands/leases", a_lease(waitSeconds=60))
        answer.refused(503, "OVERLOADED")
        assert answer.headers["retry-after"] == "1"
        assert await served.journal.end() == end
        for call in calls:
            call.gone.set()


async def test_more_commands_than_waiters_and_the_other_way_round(served: Served) -> None:
    async with trio.open_nursery() as nursery:
        calls = await waiting(nursery, served, 5)
        ids = [await served.create() for _ in range(3)]
        got = [await call.ids() for call in calls[:3]]
        assert got == [[command_id] for command_id in ids]
        assert not any(call.done.is_set() for call in calls[3:])
        more = [await served.create() for _ in range(4)]
        assert [await call.ids() for call in calls[3:]] == [[more[0]], [more[1]]]
    assert [lease["commandId"] for lease in await served.lease(maxLeases=9)] == more[2:]


async def test_draining_answers_all_that_wait(served: Served) -> None:
    command_id = await served.create(targetResourceId="other")
    async with trio.open_nursery() as nursery:
        (call,) = await waiting(nursery, served)
        asking = Call()
        nursery.start_soon(asking.status, served, command_id)
        await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
        served.node.service.drain()
        assert await call.ids() == []
        await asking.done.wait()
        assert asking.answer.ok()["state"] == "PENDING"
        assert trio.current_time() == before


# --- status


async def test_a_status_waits_for_the_end(served: Served) -> None:
    command_id = await served.create()
    async with trio.open_nursery() as nursery:
        call = Call()
        nursery.start_soon(call.status, served, command_id)
        await trio.testing.wait_all_tasks_blocked()
        await served.lease()
        await trio.testing.wait_all_tasks_blocked()
        assert not call.done.is_set()
        before = trio.current_time()
        await served.respond(command_id)
        with trio.fail_after(1):
            await call.done.wait()
        assert trio.current_time() == before
        assert call.answer.ok()["state"] == "SUCCEEDED"


async def test_a_status_answers_with_what_is_at_the_end(served: Served) -> None:
    command_id = await served.create()
    before = trio.current_time()
    for seconds, waited in ((0, 0), (7, 7), (10**30, 67)):
        answer = await served.client.get(f"/v1/commands/{command_id}?waitSeconds={seconds}")
        assert answer.ok()["state"] == "PENDING"
        assert trio.current_time() == before + waited


async def test_a_finished_command_is_not_waited_for(served: Served) -> None:
    command_id = await served.create()
    await served.lease()
    await served.respond(command_id)
    before = trio.current_time()
    assert (await served.client.get(f"/v1/commands/{command_id}?waitSeconds=60")).ok()["state"] == "SUCCEEDED"
    assert trio.current_time() == before
    (await served.client.get("/v1/commands/cmd_x?waitSeconds=60")).refused(404, "COMMAND_NOT_FOUND")


async def test_a_waiting_status_sees_the_deadline(served: Served) -> None:
    command_id = await served.create(deadline="2026-03-01T10:00:10Z")
    async with trio.open_nursery() as nursery:
        call = Call()
        nursery.start_soon(call.status, served, command_id)
        await trio.testing.wait_all_tasks_blocked()
        served.clock.advance(11)
        with trio.fail_after(2):
            await call.done.wait()
        assert call.answer.ok()["state"] == "EXPIRED"


def test_the_room_of_the_default_settings_holds_many() -> None:
    assert Config().waiters_max >= 1_000
