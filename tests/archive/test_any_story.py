"""Whatever happens, a service that archives answers as one that does not, and of what both erase nothing is left."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from arc_es.journal.memory import MemoryJournal
from arc_es.journal.subjects import event_subject
from arc_es.ports import Message
from arc_es.proof.audit import Audit
from arc_es.proof.tiles import Tiles
from tests.archive.told import archived, archiving
from tests.http.driver import Clock, Served, failure, serving, success
from tests.http.test_eviction import READS, STEPS, World, settled

pytestmark = pytest.mark.slow
NODE = 0
A_DAY = 3
"""The number of the longest wait. What is due then is done before anything is compared: the tickers are not in step."""
MORE_READS = (*READS, "/explain")
step = st.tuples(st.sampled_from((*STEPS, "wait", "wait", *MORE_READS)), st.integers(0, 50))
create = st.tuples(st.sampled_from(["create", "create with key", "create labelled"]), st.integers(0, 50))
finish = st.tuples(st.just("finish"), st.integers(0, 50))
erase = st.tuples(st.just("erase"), st.integers(0, 50))
story = st.lists(st.one_of(create, finish, finish, step, erase, st.just(("archive", 0))), min_size=20, max_size=60)


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
    """What the archive adds is one event: so positions are others, and an erasure finds one message more."""
    if isinstance(answer, tuple | list):
        kept = [one for one in answer if not (isinstance(one, dict) and one.get("type") == "CommandArchived")]
        return [without_archived(one) for one in kept]
    if isinstance(answer, dict):
        return {
            name: without_archived(value) for name, value in answer.items() if name not in ("appliedSeq", "messages")
        }
    return answer


@settings(max_examples=20, deadline=None)
@given(story)
def test_whatever_happens_all_answers_are_those_of_a_service_without_an_archive(told: list[tuple[str, int]]) -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with two_worlds(Path(folder) / "archive") as (small, large, stream, clock):
                for what, number in told:
                    await one_step(small, large, what, number)
                await both(small, large, "wait", A_DAY)
                await archived(small.nodes[NODE])
                for number in range(len(large.commands)):
                    for read in MORE_READS:
                        await both(small, large, read, number)
                live = dict(small.nodes[NODE].node.models.stats.by_state())
                for world in (small, large):
                    await check_proof(world.nodes[NODE])
                async with archiving(Path(folder) / "archive", stream, clock) as again:
                    assert again.node.models.stats.by_state() == live

    trio.run(main)


async def one_step(small: World, large: World, what: str, number: int) -> None:
    if what == "archive":
        await archived(small.nodes[NODE])
    elif what == "finish":
        for world in (small, large):
            await finish_one(world, number)
    elif what == "erase":
        answers = [without_archived(await erase_one(world, number)) for world in (small, large)]
        assert answers[0] == answers[1]
    else:
        await both(small, large, what, number)


async def finish_one(world: World, number: int) -> None:
    """Answer the command that is leased next, if there is one."""
    served = world.nodes[NODE]
    for lease in await served.lease(limit=1):
        world._name(lease["leaseId"], world.leases, "lease")
        command = lease["envelope"]["commandId"]
        (await served.respond(command, success(b"%d" % number) if number % 3 else failure(f"CODE_{number}"))).ok()


async def erase_one(world: World, number: int) -> Any:
    """Erase a command if it has ended; of what it was, nothing is left in the stream, nor in a file."""
    served = world.nodes[NODE]
    command = world.commands[number % len(world.commands)] if world.commands else "cmd_none"
    answer = await served.client.post(f"/v1/commands/{command}/erase", {"reason": f"case {number}"})
    await settled(served)
    if answer.status == 200:
        assert answer.json["gone"]
        for event in await served.events(command):
            assert event["type"] == "CommandErased" or set(event["by"]) == {"id", "kind"}, event
    return answer.status, world._named(answer)


async def both(small: World, large: World, what: str, number: int) -> None:
    answers = [without_archived(await world.do(NODE, what, number)) for world in (small, large)]
    assert answers[0] == answers[1], (what, number)


async def check_proof(served: Served) -> None:
    """Every chain holds, and nothing is missing that was not erased."""
    messages: list[Message] = await served.node.journal.page(0, 10_000, 1 << 30)
    audit = Audit(Tiles())
    audit.take([(one.position, event_subject(one.key), one.payload) for one in messages])
    assert audit.end().problems == []
