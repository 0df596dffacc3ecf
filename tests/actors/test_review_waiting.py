"""Waiting: who is woken by what, and what waiting leaves behind."""

from __future__ import annotations

import pytest
import trio

from arc_es.actors.turns import APPLY_SECONDS_MAX
from arc_es.domain.ids import OPERATOR
from arc_es.domain.recorded import CommandKey
from arc_es.journal.memory import MemoryJournal
from arc_es.ports import Handle, JournalUnavailable
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
