"""Waiting: who is woken by what, and what waiting leaves behind."""

from __future__ import annotations

import trio

from arc_es.domain.ids import OPERATOR
from arc_es.domain.recorded import CommandKey
from arc_es.journal.memory import MemoryJournal
from tests.actors.nodes import running
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
