"""Many pushes at once, and pushes through troubles of the journal, restarts and the end of the service."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from arc_es.domain.limits import PUSH_SECONDS_MAX
from arc_es.journal.memory import Fault, MemoryJournal
from arc_es.pushing import RESTING_PER_TARGET_MAX
from arc_es.storage.memory import BodyFault, MemoryBodyStore
from tests.http.driver import Clock, Served, a_command, inline
from tests.http.pushes import ACCEPTED, REJECTED, UNCLEAR, Script, Sent, push_target, pushing

LATER = "2026-03-01T10:01:00Z"
"""A minute after the start of the clock."""


def url_of(target: str) -> str:
    return f"http://{target}.example/push"


async def declare(served: Served, *targets: str, **more: Any) -> None:
    (await served.declare(*(push_target(target, url=url_of(target)) for target in targets), **more)).ok()


async def create(served: Served, target: str = "builder", **more: Any) -> str:
    answer = await served.client.post("/v1/commands", a_command(targetResourceId=target, **more))
    command_id: str = answer.ok()["commandId"]
    return command_id


async def hang(sent: Sent) -> None:
    await trio.sleep_forever()


# --- whose turn it is


async def test_a_target_has_no_more_pushes_at_once_than_the_setting() -> None:
    script = Script()
    script.before = hang
    async with pushing(script, pushes_per_target_max=3) as served, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(create, served)
        await wait_all_tasks_blocked()
        assert len(script.sent) == 3
        nursery.cancel_scope.cancel()


async def test_the_best_goes_first() -> None:
    script = Script()
    async with pushing(script, pushes_per_target_max=1) as served:
        ids = [await create(served, notBefore=LATER, priority=priority) for priority in (0, 5, 0, -5, 5)]
        served.clock.advance(60)
        await script.until(5)
        assert [ids.index(sent.command_id) for sent in script.sent] == [1, 4, 0, 2, 3]


async def test_targets_take_turns() -> None:
    script = Script()
    async with pushing(script, pushes_max=1) as served:
        await declare(served, "a", "b", "c")
        for target, count in (("a", 5), ("b", 2), ("c", 1)):
            for _ in range(count):
                await create(served, target, notBefore=LATER)
        served.clock.advance(60)
        await script.until(8)
        order = "".join(sent.envelope["target"]["resourceId"] for sent in script.sent)
        assert (sorted(order[:3]), sorted(order[3:5]), order[5:]) == (["a", "b", "c"], ["a", "b"], "aaa")


async def test_dead_targets_delay_nobody() -> None:
    """20 dead targets with work for hours; one good one. Pushes to it go on while each dead one holds its own up."""
    script = Script()
    dead = [f"dead{number}" for number in range(20)]

    async def hang_if_dead(sent: Sent) -> None:
        if "dead" in sent.url:
            await trio.sleep_forever()

    script.before = hang_if_dead
    async with pushing(script, pushes_max=64, pushes_per_target_max=8) as served:
        await declare(served, *dead, "good")
        for target in dead:
            for _ in range(10):
                await create(served, target, notBefore=LATER)
        served.clock.advance(60)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        for _ in range(50):
            await create(served, "good")
        assert trio.current_time() == began  # nothing had to wait for a dead one: virtual time stood still
        assert script.at_once_max[url_of("good")] == 1
        assert sum(script.at_once.values()) <= 64
        await trio.sleep(PUSH_SECONDS_MAX * 1.5)
        await wait_all_tasks_blocked()
        assert {script.at_once[url_of(target)] for target in dead} == {1}  # they did not answer: one at a time


async def test_a_target_that_answers_again_gets_all_its_pushes_again() -> None:
    script = Script(UNCLEAR, ACCEPTED)
    async with pushing(script, pushes_per_target_max=4) as served:
        await create(served)
        await create(served)
        script.before = hang
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(create, served)
            await wait_all_tasks_blocked()
            assert sum(script.at_once.values()) == 4
            nursery.cancel_scope.cancel()


# --- troubles


async def test_a_journal_in_trouble_delays_a_push_and_costs_no_attempt() -> None:
    script = Script()
    async with pushing(script, append_seconds_max=0.5) as served:
        command_id = await create(served, notBefore=LATER)
        served.journal.fault = Fault.LOST_SEND
        served.clock.advance(60)
        await trio.sleep(3)
        assert script.sent == []
        served.journal.fault = None
        await script.until(1)
        assert script.attempts() == [1]
        assert await served.types(command_id) == ["CommandCreated", "CommandDispatched"]


async def test_a_rejection_is_recorded_as_soon_as_the_journal_is_back() -> None:
    script = Script(REJECTED)
    async with pushing(script, append_seconds_max=0.5) as served:

        async def break_journal(sent: Sent) -> None:
            served.journal.fault = Fault.UNAVAILABLE

        script.before = break_journal
        async with trio.open_nursery() as nursery:
            nursery.start_soon(create, served)
            await trio.sleep(5)
            served.journal.fault = None
        status = (await served.client.get(f"/v1/commands/{script.sent[0].command_id}?waitSeconds=60")).ok()
        assert status["response"]["code"] == "DELIVERY_FAILED"


async def test_a_rejection_that_cannot_be_recorded_is_left_to_the_delivery_lease() -> None:
    script = Script(REJECTED, ACCEPTED)
    async with pushing(script, append_seconds_max=0.5) as served:

        async def break_journal(sent: Sent) -> None:
            served.journal.fault = Fault.UNAVAILABLE

        script.before = break_journal
        await create(served)
        await trio.sleep(60)
        served.journal.fault, script.before = None, None
        served.clock.advance(240)
        await script.until(2)
        assert script.attempts() == [1, 2]


async def test_params_out_of_reach_hold_up_only_so_many_of_their_target() -> None:
    script, store = Script(), MemoryBodyStore()
    async with pushing(script, store=store, actors_max=1_000) as served:
        await declare(served, "builder", "other")
        for _ in range(RESTING_PER_TARGET_MAX + 20):
            await create(served, params=inline(b"x" * 150_001), notBefore=LATER)
        await create(served, "other", notBefore=LATER)
        store.fault = BodyFault.UNREACHABLE
        served.clock.advance(60)
        await script.until(1)
        assert script.sent[0].url == url_of("other")
        await trio.sleep(5)
        store.fault = None
        await script.until(RESTING_PER_TARGET_MAX + 21)
        assert set(script.attempts()) == {1}


async def test_a_push_token_that_no_key_opens_is_a_rejection() -> None:
    journal, clock, script = MemoryJournal(), Clock(), Script()
    async with pushing(script, journal=journal, clock=clock) as served:
        command_id = await create(served, notBefore=LATER)
    async with pushing(script, declare=False, journal=journal, clock=clock, admin_token="another") as served:
        served.client.token = "another"
        clock.advance(60)
        status = (await served.client.get(f"/v1/commands/{command_id}?waitSeconds=60")).ok()
        assert (status["response"]["code"], script.sent) == ("DELIVERY_FAILED", [])


# --- restarts and the end


async def test_a_restart_pushes_what_is_pending_and_leaves_the_rest_to_its_delivery_lease() -> None:
    journal, clock, script = MemoryJournal(), Clock(), Script()
    script.before = hang
    async with (
        pushing(script, journal=journal, clock=clock, pushes_per_target_max=1) as served,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(create, served)
        await script.until(1)
        nursery.start_soon(create, served)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    (sent,) = script.sent
    script.before = None
    async with pushing(script, declare=False, journal=journal, clock=clock) as served:
        await script.until(2)
        assert script.sent[1].command_id != sent.command_id
        assert (await served.status(sent.command_id))["state"] == "DISPATCHED"
        clock.advance(240)
        await script.until(4)
        again = [found for found in script.sent if found.command_id == sent.command_id]
        assert [found.envelope["attempt"] for found in again] == [1, 2]


async def test_two_nodes_push_each_command_once() -> None:
    journal, clock, script = MemoryJournal(), Clock(), Script()
    async with (
        pushing(script, journal=journal, clock=clock) as one,
        pushing(script, declare=False, journal=journal, clock=clock) as two,
    ):
        ids = [await create(served, notBefore=LATER) for served in (one, two) * 10]
        clock.advance(60)
        await script.until(20)
        await trio.sleep(5)
        assert sorted(sent.command_id for sent in script.sent) == sorted(ids)


async def test_without_a_public_url_push_commands_wait() -> None:
    journal, clock, script = MemoryJournal(), Clock(), Script()
    async with pushing(script, journal=journal, clock=clock) as served:
        waiting = await create(served, notBefore=LATER)
    clock.advance(60)
    async with pushing(script, declare=False, journal=journal, clock=clock, public_url=None) as served:
        began = trio.current_time()
        new = await create(served)
        assert trio.current_time() == began
        assert [(await served.status(one))["state"] for one in (waiting, new)] == ["PENDING", "PENDING"]
    async with pushing(script, declare=False, journal=journal, clock=clock) as served:
        await script.until(2)


async def test_draining_starts_no_pushes_and_waits_for_those_under_way() -> None:
    script, gate = Script(REJECTED), trio.Event()

    async def hold(sent: Sent) -> None:
        await gate.wait()

    script.before = hold
    async with pushing(script, pushes_per_target_max=1) as served:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(create, served)
            nursery.start_soon(create, served)
            await script.until(1)
            served.node.service.drain()  # ends the waiting of both callers
        assert len(script.sent) == 1
        gate.set()
        with trio.fail_after(1):
            await served.node.pushing.drained()
        assert (await served.status(script.sent[0].command_id))["state"] == "FAILED"
        assert len(script.sent) == 1
