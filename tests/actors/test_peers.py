"""Nodes agree on who goes first without asking, and nobody waits for one that is gone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from uuid import uuid4

import pytest
import trio
import trio.testing

from arc_es.actors.peers import ASKED_SECONDS, BEAT_SECONDS, SILENT_SECONDS_MAX, Peers
from arc_es.actors.stepping_in import SteppingIn
from arc_es.domain.state import Route

ROUTE = Route("dep", "indexer", None, "do", "pull", 20, None)
EXACT, WHOLE = ("dep", "indexer"), ("dep", None)
IDS = [f"cmd_{uuid4()}" for _ in range(300)]


def joined(count: int) -> list[Peers]:
    """Nodes that hear each other at once."""
    nodes = [Peers() for _ in range(count)]

    def tell(message: bytes) -> None:
        for node in nodes:
            node.heard(message)

    for node in nodes:
        node.tell = tell
        node.beat()
    return nodes


@pytest.mark.parametrize("count", [1, 2, 3, 5])
async def test_exactly_one_node_is_first_and_each_gets_its_share(count: int) -> None:
    nodes = joined(count)
    first: Counter[str] = Counter()
    for command_id in IDS:
        (one,) = [node for node in nodes if node.is_first(command_id)]
        first[one.node] += 1
    assert len(first) == count
    assert min(first.values()) > len(IDS) / count / 2


async def test_a_node_that_nobody_asks_leases_nothing_first_but_all_of_it_when_asked_alone() -> None:
    one, other = joined(2)
    assert all(one.leases_first(command_id, ROUTE) for command_id in IDS)
    other.asked(EXACT, 1, "a-1")
    assert 0 < sum(one.leases_first(command_id, ROUTE) for command_id in IDS) < len(IDS)
    assert all(other.leases_first(command_id, ROUTE) for command_id in IDS)  # nobody else is asked


@pytest.mark.parametrize("queue", [EXACT, WHOLE])
async def test_a_command_is_left_to_the_node_where_somebody_waits(queue: tuple[str, str | None]) -> None:
    one, other = joined(2)
    assert not any(one.others_wait(command_id, ROUTE, here=False) for command_id in IDS)
    one.asked(queue, 1, None)  # now it is of interest there who waits
    other.waits(queue, 1)
    assert all(one.others_wait(command_id, ROUTE, here=False) for command_id in IDS)
    one.waits(EXACT, 1)
    one.beat()
    for command_id in IDS:  # both wait: exactly one leaves it to the other
        left = one.others_wait(command_id, ROUTE, here=True), other.others_wait(command_id, ROUTE, here=True)
        assert sorted(left) == [False, True]
    other.waits(queue, 0)
    assert not any(one.others_wait(command_id, ROUTE, here=True) for command_id in IDS)


async def test_who_begins_to_be_asked_learns_who_waits_already() -> None:
    one, other = joined(2)
    other.waits(EXACT, 2)
    assert one.waiting(EXACT) == 0
    one.asked(EXACT, 1, None)
    assert one.waiting(EXACT) == 2


async def test_the_operator_is_no_target_of_the_whole_deployment() -> None:
    one, other = joined(2)
    one.asked(WHOLE, 1, None)
    other.waits(WHOLE, 1)
    assert one.others_wait(IDS[0], ROUTE, here=False)
    assert not one.others_wait(IDS[0], replace(ROUTE, target_id="operator"), here=False)


async def test_who_falls_silent_is_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    one, other = joined(2)
    other.waits(EXACT, 3)
    other.beat()
    assert one.waiting(EXACT) == 3
    await trio.sleep(SILENT_SECONDS_MAX + BEAT_SECONDS)
    assert one.waiting(EXACT) == 0
    assert all(one.is_first(command_id) for command_id in IDS)
    one.beat()
    assert one.alone
    other.beat()
    assert not one.alone


async def test_who_leaves_is_forgotten_at_once() -> None:
    one, other = joined(2)
    other.leave()
    other.beat()  # it drains, and says no more
    assert one.alone
    assert not other.alone


async def test_what_was_asked_long_ago_does_not_count_but_is_remembered(autojump_clock: trio.testing.MockClock) -> None:
    one, other = joined(2)
    other.asked(EXACT, 17, "a-1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        nursery.start_soon(other.run)
        await trio.sleep(2 * ASKED_SECONDS + BEAT_SECONDS)
        nursery.cancel_scope.cancel()
    assert all(one.leases_first(command_id, ROUTE) for command_id in IDS)
    found = one.last_asked(EXACT)
    assert found is not None
    assert (found.at, found.agent) == (17, "a-1")


async def test_a_newcomer_learns_at_once_what_there_is() -> None:
    nodes = joined(1)
    newcomer = Peers()
    newcomer.tell = nodes[0].heard
    nodes[0].tell = newcomer.heard
    nodes[0].waits(EXACT, 1)
    newcomer.beat()
    assert newcomer.waiting(EXACT) == 1


async def test_stepping_in_comes_after_its_time_in_order(autojump_clock: trio.testing.MockClock) -> None:
    stepping = SteppingIn(2)
    stepped: list[tuple[float, str]] = []
    began = trio.current_time()
    stepping.step_in = lambda command_id: stepped.append((trio.current_time() - began, command_id))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stepping.run)
        stepping.leave("a")
        await trio.sleep(1)
        stepping.leave("b")
        stepping.leave("a")  # anew: its time begins anew
        assert "a" in stepping
        await trio.sleep(5)
        stepping.leave("c")
        await trio.sleep(3)
        nursery.cancel_scope.cancel()
    assert [(round(at), command_id) for at, command_id in stepped] == [(3, "b"), (3, "a"), (8, "c")]
    assert not stepping
