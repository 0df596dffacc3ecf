"""A service that keeps hardly anything in memory answers as one that keeps everything."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from arc_es.domain.errors import ImpossibleHistory
from arc_es.domain.recorded import CommandKey
from arc_es.journal.memory import Fault, MemoryJournal
from arc_es.ports import Append
from tests.http.driver import Answer, Clock, Served, a_command, failure, inline, serving, success
from tests.http.virtual_time import run

DAY = 86_400


async def settled(served: Served) -> None:
    """Everything stored is applied, is in the index, and has left memory if it may."""
    with trio.fail_after(20):
        await served.node.follower.caught_up()
        await served.node.index.reached(served.node.follower.applied)


async def finished(served: Served, **more: Any) -> str:
    """A new command with its answer."""
    command = await served.create(**more)
    await served.lease()
    (await served.respond(command)).ok()
    await settled(served)
    return command


def in_memory(served: Served) -> set[str]:
    return {name for name, _ in served.node.models.status.items()}


@asynccontextmanager
async def forgetful(**settings: Any) -> AsyncGenerator[Served, None]:
    async with serving(finished_in_memory_max=1, **settings) as served:
        yield served


# --- one case after the other


async def test_what_ended_first_leaves_memory_and_live_commands_never_do() -> None:
    async with forgetful() as served:
        live = await served.create(deploymentId="other")
        made = [await finished(served) for _ in range(5)]
        assert in_memory(served) == {live, made[-1]}
        assert (await served.client.get("/v1/commands")).ok()["commands"][0]["commandId"]
        assert sum(served.node.models.stats.by_state().values()) == 6


async def test_an_evicted_command_answers_everything() -> None:
    async with forgetful() as served:
        client = served.client
        command = await finished(served, params=inline(b"asked"), labels={"a": "1"})
        ways = [f"/v1/commands/{command}{way}" for way in ("", "/events", "/payload", "?view=full", "?waitSeconds=5")]
        before = [(await client.get(way)).ok() for way in ways]
        for way, wanted in zip(ways, before, strict=True):
            await finished(served)
            await finished(served)
            assert command not in in_memory(served)
            assert (await client.get(way)).ok() == wanted
        await settled(served)
        assert len(in_memory(served)) <= 2


async def test_late_answers_to_an_evicted_command_are_recorded_once() -> None:
    async with forgetful() as served:
        command = await finished(served)
        for raw in (b"late 1", b"late 2", b"late 1"):
            await finished(served)
            assert command not in in_memory(served)
            (await served.respond(command, success(raw))).ok()
        assert (await served.types(command)).count("LateResponseRecorded") == 2
        assert (await served.status(command))["response"]["response"] == inline(b'{"rows":17}')


async def test_a_late_answer_that_comes_from_another_node_passes_an_evicted_command() -> None:
    journal, clock = MemoryJournal(), Clock()
    async with forgetful(journal=journal, clock=clock) as one, serving(journal=journal, clock=clock) as other:
        command = await finished(one)
        await finished(one)
        await settled(other)
        (await other.respond(command, success(b"late"))).ok()
        await settled(one)
        assert command not in in_memory(one)
        assert await one.types(command) == await other.types(command)
        (await one.respond(command, success(b"later"))).ok()
        assert (await other.types(command)).count("LateResponseRecorded") == 2


class RacingJournal(MemoryJournal):
    """While a history is read, something else may happen first."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: list[Any] = []

    async def history(self, key: Any) -> Any:
        messages = await super().history(key)
        if self.meanwhile:
            await self.meanwhile.pop()()
        return messages


@pytest.mark.parametrize("times", [1, 3])
async def test_what_passes_by_while_a_history_is_read_is_not_lost(times: int) -> None:
    """The row that comes back is never older than what was applied."""
    journal, clock = RacingJournal(), Clock()
    async with forgetful(journal=journal, clock=clock) as one, serving(journal=journal, clock=clock) as other:
        command = await finished(one)
        await finished(one)
        await settled(other)

        async def late() -> None:
            (await other.respond(command, success(b"late %d" % len(journal.meanwhile)))).ok()
            await settled(one)

        journal.meanwhile = [late] * times
        assert (await one.status(command))["state"] == "SUCCEEDED"
        row = one.node.models.status.get(command)
        last = await journal.last(CommandKey("dep", command))
        assert row is not None
        assert last is not None
        assert row.version == last.position
        assert len(row.state.late) == times  # type: ignore[union-attr]


async def test_many_may_ask_for_one_evicted_command_at_once() -> None:
    async with forgetful() as served:
        command = await finished(served)
        await finished(served)
        answers: list[Answer] = []

        async def ask() -> None:
            answers.append(await served.client.get(f"/v1/commands/{command}"))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
        assert {answer.status for answer in answers} == {200}
        assert len({answer.body for answer in answers}) == 1


async def test_a_key_finds_its_evicted_command() -> None:
    async with forgetful() as served:
        command = await finished(served, idempotencyKey="k")
        await finished(served)
        assert command not in in_memory(served)
        again = (await served.client.post("/v1/commands", a_command(idempotencyKey="k"))).ok()
        assert (again["commandId"], again["state"]) == (command, "SUCCEEDED")
        await finished(served)
        other = a_command(idempotencyKey="k", params=inline(b"other"))
        (await served.client.post("/v1/commands", other)).refused(409, "CONFLICT")
        assert (await served.types(command)) == ["CommandCreated", "CommandLeased", "CommandSucceeded"]


async def test_generations_of_a_key_are_found_however_many_there_were() -> None:
    async with forgetful() as served:
        made = []
        for _ in range(6):
            made.append(await finished(served, idempotencyKey="daily"))
            await finished(served)
            assert made[-1] not in in_memory(served)
            again = await served.create(idempotencyKey="daily")
            assert again == made[-1]
            served.clock.advance(DAY)
        assert len(set(made)) == 6


async def test_a_key_is_found_when_there_is_no_room_for_anything_new() -> None:
    async with forgetful() as served:
        command = await finished(served, idempotencyKey="k")
        await finished(served)
        served.journal.bytes_max = 1
        again = (await served.client.post("/v1/commands", a_command(idempotencyKey="k"))).ok()
        assert again["commandId"] == command
        (await served.client.post("/v1/commands", a_command(idempotencyKey="new"))).refused(507, "JOURNAL_FULL")


async def test_nothing_is_stored_under_the_id_of_an_evicted_command() -> None:
    async with forgetful() as served:
        command = await finished(served)
        await finished(served)
        payload = {"params": inline(b"{}")}
        (await served.client.put(f"/v1/commands/{command}/payload", payload)).refused(400, "INVALID_STATE_TRANSITION")


async def test_without_the_journal_an_evicted_command_is_out_of_reach_and_not_unknown() -> None:
    async with forgetful() as served:
        command = await finished(served)
        recent = await finished(served)
        served.journal.fault = Fault.UNAVAILABLE
        (await served.client.get(f"/v1/commands/{command}")).refused(503, "JOURNAL_UNAVAILABLE")
        assert recent in in_memory(served)
        assert len((await served.client.get("/v1/commands")).ok()["commands"]) == 2


async def test_a_create_without_a_key_asks_nobody() -> None:
    """Random ids are new."""
    async with forgetful() as served:
        await finished(served)
        asked: list[str] = []
        index = served.node.index
        ask = index.deployment_of

        async def deployment_of(command_id: str) -> str | None:
            asked.append(command_id)
            return await ask(command_id)

        index.deployment_of = deployment_of  # type: ignore[method-assign]
        await served.create()
        await served.create(idempotencyKey="new")
        assert asked == []


async def test_a_replay_evicts_as_it_goes() -> None:
    journal = MemoryJournal()
    async with forgetful(journal=journal) as served:
        made = [await finished(served, idempotencyKey=str(number)) for number in range(5)]
        (await served.respond(made[0], success(b"late"))).ok()
        counts = served.node.models.stats.by_state()
    async with forgetful(journal=journal) as served:
        await settled(served)
        assert len(in_memory(served)) == 1
        assert served.node.models.stats.by_state() == counts
        assert (await served.types(made[0]))[-1] == "LateResponseRecorded"
        assert len(served.node.models.idempotency) <= 2  # type: ignore[arg-type]


async def test_a_history_that_cannot_be_still_ends_the_service() -> None:
    """Only a late response may come to a command that is not in memory."""
    with pytest.RaisesGroup(ImpossibleHistory, flatten_subgroups=True):
        async with forgetful() as served:
            command = await finished(served)
            await finished(served)
            key = CommandKey("dep", command)
            _, lease, last = await served.journal.history(key)
            await served.journal.append([Append(key, last.position, "x", lease.payload)])
            await trio.sleep_forever()


# --- any story


class World:
    """Two nodes on one journal, and the names that ids have in it."""

    def __init__(self, nodes: list[Served], clock: Clock) -> None:
        self.nodes = nodes
        self.clock = clock
        self.commands: list[str] = []
        self.leases: list[str] = []
        self.names: dict[str, str] = {}

    async def do(self, node: int, what: str, number: int) -> Any:
        """One step, and what was answered, with names in place of ids."""
        served = self.nodes[node]
        answer = await self._ask(served, what, number)
        for one in self.nodes:
            await settled(one)
        counts = [one.node.models.stats.by_state() for one in self.nodes]
        return None if answer is None else (answer.status, self._named(answer)), counts

    async def _ask(self, served: Served, what: str, number: int) -> Answer | None:  # noqa: C901 - one case a step
        client = served.client
        command = self.commands[number % len(self.commands)] if self.commands else "cmd_none"
        match what:
            case "create" | "create with key" | "create labelled":
                more: dict[str, Any] = {"idempotencyKey": f"k{number % 2}"} if what == "create with key" else {}
                more |= {"labels": {"n": str(number % 3)}} if what == "create labelled" else {}
                answer = await client.post("/v1/commands", a_command(**more))
                self.clock.advance(0.001)
                if answer.status == 200:
                    self._name(answer.json["commandId"], self.commands, "command")
            case "lease":
                answer = await client.post("/v1/commands/leases", {"deploymentId": "dep", "maxLeases": number % 3})
                for lease in answer.json["leases"]:
                    self._name(lease["leaseId"], self.leases, "lease")
                answer.body = b""  # it holds signed URLs
            case "release":
                lease = self.leases[number % len(self.leases)] if self.leases else "lease_none"
                answer = await client.post(f"/v1/commands/leases/{lease}/release")
            case "succeed":
                answer = await served.respond(command, success(b"%d" % (number % 5)))
            case "fail":
                answer = await served.respond(command, failure(f"CODE_{number % 5}"))
            case "wait":
                self.clock.advance((1, 61, DAY // 2, DAY)[number % 4])
                await served.node.ticker.tick_due(self.clock.now())
                return None
            case "store":
                answer = await client.put(f"/v1/commands/{command}/payload", {"params": inline(b"{}")})
            case "list":
                query = ("", "?state=SUCCEEDED", "?label=n:1", "?order=asc&limit=2", "?deploymentId=dep&state=FAILED")
                answer = await client.get(f"/v1/commands{query[number % len(query)]}")
            case _:
                answer = await client.get(f"/v1/commands/{command}{what}")
        return answer

    def _name(self, name: str, kept: list[str], kind: str) -> None:
        if name not in self.names:
            self.names[name] = f"{kind} {len(kept)}"
            kept.append(name)

    def _named(self, answer: Answer) -> Any:
        return self._renamed(answer.json) if answer.body else None

    def _renamed(self, value: Any) -> Any:
        if isinstance(value, dict):
            random = ("id", "prev", "hash", "nextCursor", "seq")
            return {name: self._renamed(item) for name, item in value.items() if name not in random}
        if isinstance(value, list):
            return [self._renamed(item) for item in value]
        return self.names.get(value, value) if isinstance(value, str) else value


@asynccontextmanager
async def world(finished_max: int) -> AsyncGenerator[World, None]:
    journal, clock = MemoryJournal(), Clock()
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(serving(journal=journal, clock=clock, finished_in_memory_max=finished_max))
            for _ in range(2)
        ]
        yield World(nodes, clock)


STEPS = ("create", "create with key", "create labelled", "lease", "succeed", "fail", "release", "wait", "store", "list")
READS = ("", "/events", "/payload", "?view=full")
step = st.tuples(st.integers(0, 1), st.sampled_from((*STEPS, *STEPS, *READS)), st.integers(0, 50))


@settings(max_examples=40, deadline=None)
@given(st.lists(step, min_size=10, max_size=60), st.sampled_from([1, 2]))
def test_whatever_happens_all_answers_are_those_of_a_service_that_keeps_everything(
    story: list[tuple[int, str, int]], finished_max: int
) -> None:
    async def main() -> None:
        async with world(finished_max) as small, world(100_000) as large:
            for one_step in story:
                assert await small.do(*one_step) == await large.do(*one_step), one_step
            for number in range(len(large.commands)):
                for read in READS:
                    for node in (0, 1):
                        assert await small.do(node, read, number) == await large.do(node, read, number)
            for one in small.nodes:
                live = sum(count for name, count in one.node.models.stats.by_state().items() if name in LIVE)
                assert len(in_memory(one)) <= live + finished_max

    run(main)


LIVE = {"PENDING", "PENDING_UPLOAD", "DISPATCHED"}
