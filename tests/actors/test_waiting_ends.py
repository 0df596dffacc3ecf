"""Waiting: who is woken by what, and what waiting leaves behind."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from arc_es.actors.follower import APPLY_SECONDS_MAX
from arc_es.bootstrap import assemble
from arc_es.config import Config
from arc_es.domain.ids import OPERATOR
from arc_es.domain.recorded import CommandKey, Key
from arc_es.journal.memory import MemoryJournal
from arc_es.ports import Handle, JournalClosed, JournalUnavailable
from tests.actors.nodes import BY, create_request, running
from tests.actors.test_waiters import Room
from tests.http.driver import Clock


def test_the_operator_is_woken_though_an_agent_of_all_targets_came_first() -> None:
    room = Room()
    whole = room.join(None)
    operator = room.join(OPERATOR)
    command = room.create(OPERATOR)
    assert operator.handed == [command]
    assert operator.woken.is_set()
    assert not whole.woken.is_set()


async def test_a_wait_that_ended_without_a_change_leaves_nothing_behind() -> None:
    async with running(MemoryJournal(), Clock()) as (node,):
        follower = node.follower
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(follower.changed, CommandKey("dep", "cmd_1"))
        assert not follower._watching


class HalfDeaf(MemoryJournal):
    """The first follower hears everything, later ones nothing."""

    followers = 0

    async def follow(self, after: int, handle: Handle) -> None:
        self.followers += 1
        if self.followers > 1:
            await trio.sleep_forever()
        await super().follow(after, handle)


async def test_a_turn_does_not_wait_for_ever_for_what_is_not_delivered() -> None:
    async with running(HalfDeaf(), Clock(), 2) as (hears, deaf):
        request = create_request(idempotency_key="order:42")
        await hears.service.create(request, BY)
        with trio.fail_after(2 * APPLY_SECONDS_MAX), pytest.raises(JournalUnavailable):
            await deaf.service.create(request, BY)


class FallsSilent(MemoryJournal):
    """Delivers until it is told not to."""

    silent = False

    async def follow(self, after: int, handle: Handle) -> None:
        def unless_silent(position: int, key: Key, payload: bytes) -> None:
            if not self.silent:
                handle(position, key, payload)

        await super().follow(after, unless_silent)


async def test_a_turn_that_waits_for_its_own_event_does_not_hold_up_the_end() -> None:
    journal = FallsSilent()
    started = trio.current_time()
    node = assemble(journal, Config(), clock=Clock())

    async def create() -> None:
        with pytest.raises(JournalClosed):
            await node.service.create(create_request(), BY)

    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        journal.silent = True
        nursery.start_soon(create)
        await wait_all_tasks_blocked()
        assert await journal.end() == 1
        nursery.cancel_scope.cancel()
    assert trio.current_time() - started < 1
