"""Time passes without anybody polling, also when the wall clock jumps, and through troubles of the journal."""

from __future__ import annotations

import pytest
import trio

from arc_es.domain.state import Expired
from arc_es.journal.memory import Fault, MemoryJournal
from tests.actors.nodes import RunningClock, changed, create, event_types, lease, running
from tests.http.driver import T0, Clock

SECOND = 1_000_000


async def test_a_jump_forward_is_noticed_within_two_seconds() -> None:
    clock = Clock()
    async with running(MemoryJournal(), clock) as (node,):
        command_id = await create(node, deadline=T0 + 86_400 * SECOND)
        clock.advance(86_401)
        with trio.fail_after(2):
            await changed(node, command_id)
        assert await event_types(node, command_id) == ["CommandCreated", "CommandExpired"]


async def test_a_jump_back_lets_nothing_happen_too_early() -> None:
    clock = Clock()
    async with running(MemoryJournal(), clock) as (node,):
        command_id = await create(node, deadline=T0 + 100 * SECOND)
        clock.advance(-3600)
        with trio.move_on_after(10) as waited:
            await changed(node, command_id)
        assert waited.cancelled_caught
        clock.advance(3600 + 101)
        with trio.fail_after(2):
            await changed(node, command_id)
        assert await event_types(node, command_id) == ["CommandCreated", "CommandExpired"]


async def test_something_due_earlier_than_the_planned_sleep_wakes_the_ticker() -> None:
    clock = RunningClock()
    async with running(MemoryJournal(), clock) as (node,):
        late = await create(node, deadline=clock.now() + 3600 * SECOND)
        soon = await create(node, deadline=clock.now() + SECOND // 5)
        before = trio.current_time()
        with trio.fail_after(1):
            await changed(node, soon)
        assert trio.current_time() - before < 0.21
        assert await event_types(node, late) == ["CommandCreated"]


async def test_many_at_once() -> None:
    clock = Clock()
    async with running(MemoryJournal(), clock) as (node,):
        ids = [await create(node, deadline=T0 + SECOND) for _ in range(1200)]
        clock.advance(2)
        with trio.fail_after(2):
            for command_id in ids:  # which batch a command comes in depends on its id
                while (row := node.models.status.get(command_id)) and not isinstance(row.state, Expired):
                    await changed(node, command_id)
        assert node.models.stats.by_state()["EXPIRED"] == 1200
        assert node.models.stats.events == 2400


@pytest.mark.parametrize("fault", [Fault.UNAVAILABLE, Fault.LOST_SEND, Fault.FULL])
async def test_what_could_not_be_stored_is_tried_again(fault: Fault) -> None:
    journal, clock = MemoryJournal(), Clock()
    async with running(journal, clock, append_seconds_max=1.0) as (node,):
        command_id = await create(node, deadline=T0 + SECOND)
        journal.fault = fault
        clock.advance(2)
        with trio.move_on_after(30) as waited:
            await changed(node, command_id)
        assert waited.cancelled_caught
        journal.fault = None
        with trio.fail_after(2):
            await changed(node, command_id)
        assert await event_types(node, command_id) == ["CommandCreated", "CommandExpired"]


async def test_two_nodes_tick_once() -> None:
    clock = Clock()
    async with running(MemoryJournal(), clock, 2) as (one, other):
        ids = [await create(one) for _ in range(20)]
        assert len(await lease(one, leases_max=20, lease_seconds=10)) == 20
        clock.advance(10)
        with trio.fail_after(2):
            await changed(other, ids[-1])
        await one.ticker.tick_due(clock.now())
        await other.ticker.tick_due(clock.now())
        for command_id in ids:
            assert await event_types(other, command_id) == ["CommandCreated", "CommandLeased", "LeaseExpired"]
        assert sorted(await lease(other, leases_max=99)) == sorted(ids)


async def test_agents_that_all_fail_do_not_hand_a_command_round_and_round() -> None:
    """The clock was set back, so a command that was leasable is not any more."""
    clock = Clock()
    async with running(MemoryJournal(), clock) as (node,):
        command_id = await create(node, not_before=T0 + 10 * SECOND)
        clock.advance(10)
        await node.ticker._tick(clock.now())
        clock.advance(-5)
        got: list[str] = []

        async def wait() -> None:
            got.extend(await lease(node, wait_seconds=20))

        before = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
        assert trio.current_time() == before + 20
        assert got == []
        clock.advance(5)
        assert await lease(node) == [command_id]


async def test_the_end_of_a_rest_wakes_a_waiting_agent() -> None:
    clock = Clock()
    async with running(MemoryJournal(), clock) as (node,):
        command_id = await create(node, not_before=T0 + 100 * SECOND)
        got: list[str] = []
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                got.extend(await lease(node, wait_seconds=60))

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            clock.advance(100)
            with trio.fail_after(2):
                await changed(node, command_id)
        assert got == [command_id]
