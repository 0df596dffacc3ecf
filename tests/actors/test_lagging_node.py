"""Behind one address with several nodes: what one has acknowledged, none of the others may deny."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from arc_es.domain.errors import CommandNotFound, InvalidStateTransition, LeaseNotFound
from arc_es.domain.recorded import Key
from arc_es.domain.state import Pending, Succeeded
from arc_es.journal.memory import Fault, MemoryJournal
from arc_es.ports import Handle, JournalUnavailable
from tests.actors.nodes import BY, answer, create, event_types, lease_request, running
from tests.http.driver import Clock


class Behind(MemoryJournal):
    """The second follower hears nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = trio.Event()
        self._followers = 0

    async def follow(self, after: int, handle: Handle) -> None:
        self._followers += 1
        if self._followers > 1:
            await self.let_go.wait()
        await super().follow(after, handle)


@asynccontextmanager
async def letting_go(journal: Behind) -> AsyncGenerator[None, None]:
    """The second node catches up as soon as what is inside waits."""

    async def let_go() -> None:
        await wait_all_tasks_blocked()
        journal.let_go.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(let_go)
        yield


async def test_a_command_of_another_node_is_found() -> None:
    journal = Behind()
    async with running(journal, Clock(), 2) as (first, second):
        command_id = await create(first)
        async with letting_go(journal):
            assert isinstance((await second.service.status(command_id)).state, Pending)


async def test_a_history_of_another_node_is_found() -> None:
    journal = Behind()
    async with running(journal, Clock(), 2) as (first, second):
        command_id = await create(first)
        async with letting_go(journal):
            assert await event_types(second, command_id) == ["CommandCreated"]


async def test_a_lease_of_another_node_is_released() -> None:
    journal = Behind()
    async with running(journal, Clock(), 2) as (first, second):
        await create(first)
        (granted,) = await first.service.lease(lease_request(), BY)
        async with letting_go(journal):
            await second.service.holding.release(granted.lease_id, BY)


@pytest.mark.parametrize("second_knows_it", [True, False])
async def test_the_answer_to_a_lease_of_another_node_is_accepted(second_knows_it: bool) -> None:  # noqa: FBT001
    journal = HearsTheFirst() if second_knows_it else Behind()
    async with running(journal, Clock(), 2) as (first, second):
        command_id = await create(first)
        await first.service.lease(lease_request(), BY)
        async with letting_go(journal):
            await second.service.respond(command_id, answer(b"1"), BY)
        assert isinstance((await second.service.status(command_id)).state, Succeeded)


class HearsTheFirst(Behind):
    """The second follower hears the first message at once, and others when it is let go."""

    async def follow(self, after: int, handle: Handle) -> None:
        def first_only(position: int, key: Key, payload: bytes) -> None:
            if position == 1 and after == 0:
                handle(position, key, payload)

        if self._followers == 1:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(MemoryJournal.follow, self, 0, first_only)
                await super().follow(1, handle)
        else:
            await super().follow(after, handle)


async def test_what_nobody_made_is_unknown_and_what_nobody_leased_has_no_answer() -> None:
    async with running(MemoryJournal(), Clock()) as (node,):
        with pytest.raises(CommandNotFound):
            await node.service.status("cmd_none")
        with pytest.raises(LeaseNotFound):
            await node.service.holding.release("lease_none", BY)
        command_id = await create(node)
        with pytest.raises(InvalidStateTransition):
            await node.service.respond(command_id, answer(b"1"), BY)


async def test_an_answer_is_not_refused_for_good_while_nobody_can_say() -> None:
    journal = MemoryJournal()
    async with running(journal, Clock()) as (node,):
        journal.fault = Fault.UNAVAILABLE
        with pytest.raises(JournalUnavailable):
            await node.service.respond("cmd_of_another_node", answer(b"1"), BY)
        with pytest.raises(JournalUnavailable):
            await node.service.holding.release("lease_of_another_node", BY)
        with pytest.raises(CommandNotFound):
            await node.service.status("cmd_of_another_node")
