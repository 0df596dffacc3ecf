"""Whatever happens, a service that archives answers as one that does not."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from arc_es.journal.memory import MemoryJournal
from tests.archive.told import archived, archiving
from tests.http.driver import Clock, failure, serving, success
from tests.http.test_eviction import READS, STEPS, World

NODE = 0
MORE_READS = (*READS, "/explain")
step = st.tuples(st.sampled_from((*STEPS, "wait", "wait", *MORE_READS)), st.integers(0, 50))
create = st.tuples(st.sampled_from(["create", "create with key", "create labelled"]), st.integers(0, 50))
finish = st.tuples(st.just("finish"), st.integers(0, 50))
story = st.lists(st.one_of(create, finish, finish, step, st.just(("archive", 0))), min_size=20, max_size=60)


@asynccontextmanager
async def two_worlds(folder: Path) -> AsyncGenerator[tuple[World, World, MemoryJournal, Clock], None]:
    """One that archives, and one that keeps everything in its stream."""
    stream, one, other = MemoryJournal(), Clock(), Clock()
    async with (
        archiving(folder, stream, one, finished_in_memory_max=1) as mine,
        serving(clock=other, finished_in_memory_max=100_000) as plain,
    ):
        yield World([mine], one), World([plain], other), stream, one


def without_archived(answer: Any) -> Any:
    """What the archive adds is one event."""
    if isinstance(answer, tuple | list):
        return [without_archived(one) for one in answer]
    if isinstance(answer, dict):
        kept = {name: without_archived(value) for name, value in answer.items() if name != "events"}
        events = answer.get("events", [])
        return kept | {"events": [event for event in events if event["type"] != "CommandArchived"]}
    return answer


@settings(max_examples=20, deadline=None)
@given(story)
def test_whatever_happens_all_answers_are_those_of_a_service_without_an_archive(told: list[tuple[str, int]]) -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with two_worlds(Path(folder) / "archive") as (small, large, stream, clock):
                for what, number in told:
                    if what == "archive":
                        await archived(small.nodes[NODE])
                    elif what == "finish":
                        for world in (small, large):
                            await finish_one(world, number)
                    else:
                        await both(small, large, what, number)
                small.clock.advance(86_400)
                large.clock.advance(86_400)
                await archived(small.nodes[NODE])
                for number in range(len(large.commands)):
                    for read in MORE_READS:
                        await both(small, large, read, number)
                live = dict(small.nodes[NODE].node.models.stats.by_state())
                async with archiving(Path(folder) / "archive", stream, clock) as again:
                    assert again.node.models.stats.by_state() == live

    trio.run(main)


async def finish_one(world: World, number: int) -> None:
    """Answer the command that is leased next, if there is one."""
    served = world.nodes[NODE]
    for lease in await served.lease(limit=1):
        world._name(lease["leaseId"], world.leases, "lease")
        command = lease["envelope"]["commandId"]
        (await served.respond(command, success(b"%d" % number) if number % 3 else failure(f"CODE_{number}"))).ok()


async def both(small: World, large: World, what: str, number: int) -> None:
    answers = [without_archived(await world.do(NODE, what, number)) for world in (small, large)]
    assert answers[0] == answers[1], (what, number)
