"""Turns on two nodes that share a journal: however they collide, one of them decides."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from arc_es.actors.turns import CONFLICTS_MAX
from arc_es.domain.errors import InvalidStateTransition, LeaseNotFound
from arc_es.domain.state import Leased
from arc_es.journal.memory import MemoryJournal
from arc_es.ports import Append, AppendOutcome, Conflict, JournalUnavailable, Overloaded
from tests.actors.nodes import BY, answer, create, create_request, event_types, lease, lease_request, running
from tests.http.driver import T0, Clock


class Gate(MemoryJournal):
    """Holds appends back until `hold` of them wait, so that turns of two nodes truly overlap."""

    def __init__(self) -> None:
        super().__init__()
        self.hold = 0
        self._held = 0
        self._open = trio.Event()

    async def append(self, appends: Sequence[Append]) -> list[AppendOutcome]:
        if self.hold:
            self._held += 1
            if self._held >= self.hold:
                self.hold = 0
                self._open.set()
            await self._open.wait()
        return await super().append(appends)


async def test_two_leases_of_one_command_at_the_same_version() -> None:
    journal = Gate()
    async with running(journal, Clock(), 2) as nodes:
        command_id = await create(nodes[0])
        await lease(nodes[0], leases_max=0)
        for node in nodes:
            await lease(node, deployment_id="dep", target=None, leases_max=0)
        journal.hold = 2
        got: list[str] = []

        async def take(index: int) -> None:
            got.extend(await lease(nodes[index], target=None))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, 0)
            nursery.start_soon(take, 1)
        assert got == [command_id]
        assert await event_types(nodes[1], command_id) == ["CommandCreated", "CommandLeased"]


async def test_two_answers_at_the_same_version_give_one_terminal_event() -> None:
    journal = Gate()
    async with running(journal, Clock(), 2) as nodes:
        command_id = await create(nodes[0])
        await lease(nodes[0])
        journal.hold = 2
        async with trio.open_nursery() as nursery:
            for number, node in enumerate(nodes):
                nursery.start_soon(node.service.respond, command_id, answer(str(number).encode()), BY)
        types = await event_types(nodes[0], command_id)
        assert types[2:] == ["CommandSucceeded", "LateResponseRecorded"]


async def test_a_release_and_an_answer_at_the_same_version() -> None:
    journal = Gate()
    async with running(journal, Clock(), 2) as (one, other):
        command_id = await create(one)
        (granted,) = await one.service.lease(lease_request(), BY)
        refused: list[Exception] = []
        journal.hold = 2

        async def release() -> None:
            try:
                await one.service.holding.release(granted.lease_id, BY)
            except LeaseNotFound as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(release)
            nursery.start_soon(other.service.respond, command_id, answer(b"1"), BY)
        types = await event_types(one, command_id)
        assert types[-1] == "CommandSucceeded"
        assert ("LeaseReleased" in types) != bool(refused)


async def test_two_creates_with_one_key_at_the_same_version() -> None:
    journal = Gate()
    async with running(journal, Clock(), 2) as nodes:
        journal.hold = 2
        ids: list[str] = []

        async def make(index: int) -> None:
            ids.append(await create(nodes[index], idempotency_key="k"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(make, 0)
            nursery.start_soon(make, 1)
        assert len(set(ids)) == 1
        assert await event_types(nodes[0], ids[0]) == ["CommandCreated"]


async def test_what_is_overdue_is_stored_even_if_the_intent_is_refused() -> None:
    clock = Clock()
    async with running(MemoryJournal(), clock) as (node,):
        command_id = await create(node)
        (granted,) = await node.service.lease(lease_request(), BY)
        clock.advance(30)
        with pytest.raises(LeaseNotFound):
            await node.service.holding.release(granted.lease_id, BY)
        assert await event_types(node, command_id) == ["CommandCreated", "CommandLeased", "LeaseExpired"]


async def test_a_refused_intent_stores_nothing() -> None:
    journal = MemoryJournal()
    async with running(journal, Clock()) as (node,):
        command_id = await create(node)
        end = await journal.end()
        with pytest.raises(InvalidStateTransition):
            await node.service.respond(command_id, answer(b"1"), BY)
        assert await journal.end() == end
        assert len(node.service._turns.directory) == 0


class Rival(MemoryJournal):
    """Every append loses, though nobody wrote: a rival who is always faster."""

    losing = False

    async def append(self, appends: Sequence[Append]) -> list[AppendOutcome]:
        if self.losing:
            return [Conflict("You lose") for _ in appends]
        return await super().append(appends)


async def test_losing_is_bounded() -> None:
    journal = Rival()
    async with running(journal, Clock(), append_seconds_max=1.0) as (node,):
        command_id = await create(node)
        await lease(node)
        journal.losing = True
        with trio.fail_after(CONFLICTS_MAX * 3), pytest.raises(JournalUnavailable):
            await node.service.respond(command_id, answer(b"1"), BY)
        journal.losing = False
        await node.service.respond(command_id, answer(b"1"), BY)
        assert len(node.service._turns.directory) == 0


async def test_a_caller_who_leaves_in_the_middle_leaves_a_state_that_is_applied() -> None:
    journal = Gate()
    async with running(journal, Clock()) as (node,):
        command_id = await create(node)
        await lease(node)
        journal.hold = 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.service.respond, command_id, answer(b"1"), BY)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            journal.hold = 0
            journal._open.set()
        assert len(node.service._turns.directory) == 0
        assert await event_types(node, command_id) == ["CommandCreated", "CommandLeased", "CommandSucceeded"]
        row = node.models.status.get(command_id)
        assert row is not None
        assert not isinstance(row.state, Leased)


async def test_too_many_turns_are_refused_before_anything_is_written() -> None:
    journal = Gate()
    async with running(journal, Clock(), actors_max=1) as (node,):
        journal.hold = 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(create, node)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Overloaded):
                await node.service.create(create_request(), BY)
            journal.hold = 0
            journal._open.set()
        assert len(node.models.status) == 1


async def test_a_lease_of_many_takes_what_it_can_get() -> None:
    """Another node took some meanwhile; the rest is granted in the same call."""
    journal = Gate()
    async with running(journal, Clock(), 2) as (one, other):
        ids = [await create(one) for _ in range(6)]
        await lease(one, leases_max=0)
        mine: list[str] = []
        journal.hold = 2

        async def take() -> None:
            mine.extend(await lease(one, target=None, leases_max=6))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await trio.testing.wait_all_tasks_blocked()
            journal.hold = 0
            theirs = await lease(other, target=None, leases_max=2)
            journal._open.set()
        assert theirs == ids[:2]
        assert mine == ids[2:]


async def test_a_deadline_that_two_nodes_see_expires_once() -> None:
    journal, clock = Gate(), Clock()
    async with running(journal, clock, 2) as nodes:
        command_id = await create(nodes[0], deadline=T0 + 5_000_000)
        clock.advance(6)
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(node.service.status, command_id)
        assert await event_types(nodes[0], command_id) == ["CommandCreated", "CommandExpired"]
