"""Several nodes on one journal: one goes first, nobody loses a race for nothing, and nobody waits for a dead one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from arc_es.actors.peers import BEAT_SECONDS, SILENT_SECONDS_MAX
from arc_es.actors.ticker import LEFT_MICROS
from arc_es.actors.waiters import LEFT_SECONDS
from arc_es.bootstrap import Node
from arc_es.domain.limits import SECOND
from arc_es.journal.memory import MemoryJournal
from tests.actors.nodes import RunningClock, create, event_types, lease, running

COMMANDS = 40


@asynccontextmanager
async def talking(count: int, *, silent: bool = False) -> AsyncGenerator[list[Node], None]:
    """Nodes that share a journal and hear each other, or not."""
    async with running(MemoryJournal(), RunningClock(), count) as nodes:

        def tell(message: bytes) -> None:
            for node in nodes:
                node.peers.heard(message)

        for node in nodes if not silent else []:
            node.peers.tell = tell
            node.peers.beat()
        yield nodes


def conflicts(nodes: list[Node]) -> int:
    return sum(node.turns.conflicts for node in nodes)


async def work(node: Node, found: list[str]) -> None:
    while leased := await lease(node, wait_seconds=5):
        found += leased


@pytest.mark.parametrize("count", [2, 3])
async def test_agents_who_wait_at_all_nodes_get_each_command_once_and_hardly_ever_race(count: int) -> None:
    """A node's last waiter may have left when the others have not heard of it yet."""
    assert await races_of_waiting_agents(count) <= COMMANDS // 5
    assert await races_of_waiting_agents(count, silent=True) >= COMMANDS // 2  # this is what it is for


async def races_of_waiting_agents(count: int, *, silent: bool = False) -> int:
    async with talking(count, silent=silent) as nodes:
        found: list[str] = []
        async with trio.open_nursery() as nursery:
            for node in nodes:
                for _ in range(3):
                    nursery.start_soon(work, node, found)
            await wait_all_tasks_blocked()
            ids = [await create(nodes[number % count]) for number in range(COMMANDS)]
        assert sorted(found) == sorted(ids)
        return conflicts(nodes)


async def test_agents_who_find_a_backlog_share_it() -> None:
    """Who is done with its own share helps with the rest, and may lose a race for that."""
    assert await races_for_a_backlog() <= COMMANDS // 2
    assert await races_for_a_backlog(silent=True) >= COMMANDS // 2


async def races_for_a_backlog(*, silent: bool = False) -> int:
    async with talking(2, silent=silent) as nodes:
        ids = [await create(nodes[0]) for _ in range(COMMANDS)]
        found: list[str] = []
        for node in nodes:
            node.peers.asked(("dep", "indexer"), 0, None)
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(work, node, found)
        assert sorted(found) == sorted(ids)
        return conflicts(nodes)


async def test_an_agent_who_waits_alone_gets_a_command_at_once_wherever_it_was_made() -> None:
    async with talking(3) as nodes:
        for maker in nodes:
            for agent in nodes:
                found: list[str] = []
                async with trio.open_nursery() as nursery:

                    async def wait(node: Node = agent, found: list[str] = found) -> None:
                        found += await lease(node, wait_seconds=5)

                    nursery.start_soon(wait)
                    await wait_all_tasks_blocked()
                    began = trio.current_time()
                    command_id = await create(maker)
                assert found == [command_id]
                assert trio.current_time() == began  # no step-in was waited for, in virtual time


async def test_in_order_as_long_as_one_node_is_asked() -> None:
    async with talking(2) as nodes:
        ids = [await create(nodes[0], priority=number % 3) for number in range(30)]
        expected = sorted(ids, key=lambda one: (-(ids.index(one) % 3), ids.index(one)))
        assert [(await lease(nodes[1]))[0] for _ in ids] == expected


async def test_what_is_left_to_a_node_that_died_is_taken_up() -> None:
    async with talking(2) as nodes:
        one, dead = nodes
        dead.peers.waits(("dep", "indexer"), 1)  # and it will never take anything
        dead.peers.beat()
        found: list[str] = []

        async def wait() -> None:
            while len(found) < COMMANDS:
                found.extend(await lease(one, wait_seconds=5, leases_max=COMMANDS))

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            ids = [await create(one) for _ in range(COMMANDS)]
        assert sorted(found) == sorted(ids)
        assert trio.current_time() - began <= 2 * LEFT_SECONDS


async def test_who_does_not_wait_takes_what_there_is() -> None:
    async with talking(2) as nodes:
        one, other = nodes
        other.peers.waits(("dep", "indexer"), 1)
        other.peers.beat()
        command_id = await create(one)
        assert await lease(one) == [command_id]


async def test_each_lease_end_is_decided_by_one_node_and_by_another_if_that_is_dead() -> None:
    async with talking(2) as nodes:
        ids = [await create(nodes[0]) for _ in range(COMMANDS)]
        assert len(await lease(nodes[0], leases_max=COMMANDS, lease_seconds=10)) == COMMANDS
        await trio.sleep(10 + LEFT_MICROS / SECOND / 2)
        assert [(await event_types(nodes[1], one))[2:] for one in ids] == [["LeaseExpired"]] * COMMANDS
        assert conflicts(nodes) == 0


async def test_lease_ends_do_not_wait_for_a_node_that_does_nothing() -> None:
    """Another one is heard, and never ticks: frozen a moment ago."""
    async with running(MemoryJournal(), RunningClock()) as (node,):
        node.peers.heard(b'{"node":"frozen","queues":[]}')
        await create(node, deadline=None)
        for _ in range(COMMANDS):
            await create(node)
        await lease(node, leases_max=COMMANDS, lease_seconds=1)
        assert not node.peers.alone
        with trio.fail_after(1 + LEFT_MICROS / SECOND + 0.1):
            while any(queue.counts.leased for queue in node.service.queues()):  # noqa: ASYNC110 - virtual time
                await trio.sleep(0.05)


async def test_a_node_that_falls_silent_is_not_waited_for() -> None:
    async with running(MemoryJournal(), RunningClock()) as (node,):
        node.peers.heard(b'{"node":"frozen","queues":[]}')
        await trio.sleep(SILENT_SECONDS_MAX + 1.5 * BEAT_SECONDS)
        assert node.peers.alone
