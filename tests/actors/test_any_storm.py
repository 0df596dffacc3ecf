"""What must never happen (design, section 9), under random schedules of two nodes and a journal that loses messages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from random import Random

import trio
from hypothesis import given
from hypothesis import strategies as st

from arc_es.bootstrap import Node
from arc_es.codec import decode, decode_recorded, digest
from arc_es.domain.errors import LeaseNotFound, Rejected
from arc_es.domain.events import (
    CommandExpired,
    CommandFailed,
    CommandLeased,
    CommandSucceeded,
    LeaseExpired,
    LeaseReleased,
)
from arc_es.domain.recorded import CommandKey
from arc_es.domain.state import TERMINAL
from arc_es.journal.memory import Fault, MemoryJournal
from arc_es.ports import Append, AppendOutcome, JournalError, JournalUnavailable, OutcomeUnknown, Overloaded
from arc_es.wire_leases import Completion, Renewal
from projections import Projections
from tests.actors.nodes import BY, RunningClock, answer, create_request, lease_request, running
from tests.http.driver import T0
from tests.http.virtual_time import run

SECOND = 1_000_000
FAULTS = [Fault.LOST_ACK, Fault.LOST_SEND, Fault.UNAVAILABLE]


class Storm(MemoryJournal):
    """Loses acknowledgements, loses messages, delivers some of them late, and is away at times."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random
        self._late: list[Append] = []
        self.calm = False

    def _append(self, item: Append) -> AppendOutcome:
        if self._late and self._random.random() < 0.5:
            super()._append(self._late.pop())
        if self.calm or (roll := self._random.random()) > 0.4:
            return super()._append(item)
        if roll < 0.1:
            self._late.append(item)
            return OutcomeUnknown("It is still on its way")
        self.fault = self._random.choice(FAULTS)
        try:
            return super()._append(item)
        finally:
            self.fault = None

    async def _reach(self) -> None:
        await super()._reach()
        if not self.calm and self._random.random() < 0.1:
            raise JournalUnavailable("Away for a moment")

    def messages(self) -> Sequence[tuple[int, CommandKey, bytes]]:
        found = enumerate(self._messages, start=1)
        return [(at, key, payload) for at, (key, payload) in found if isinstance(key, CommandKey)]


class Crowd:
    """Callers and agents that remember what they were promised."""

    def __init__(self, nodes: list[Node], random: Random) -> None:
        self.nodes = nodes
        self.random = random
        self.created: list[str] = []
        self.by_key: defaultdict[str, set[str]] = defaultdict(set)
        self.granted: list[tuple[str, str]] = []
        self.answered: list[str] = []

    async def act(self, node: Node, what: str, pause_seconds: float) -> None:
        """One request after a pause; what the storm refuses was promised to nobody."""
        await trio.sleep(pause_seconds)
        try:
            await getattr(self, what)(node)
        except (JournalError, Overloaded, Rejected):
            return

    async def create(self, node: Node) -> None:
        deadline = node.service.now() + 45 * SECOND if self.random.random() < 0.3 else None
        command_id, _ = await node.service.create(create_request(deadline=deadline, max_attempts=3), BY)
        self.created.append(command_id)

    async def create_with_key(self, node: Node) -> None:
        key = self.random.choice("ab")
        command_id, _ = await node.service.create(create_request(idempotency_key=key), BY)
        self.created.append(command_id)
        self.by_key[key].add(command_id)

    async def lease(self, node: Node) -> None:
        wait_seconds = self.random.choice([0, 5])
        request = lease_request(leases_max=self.random.randint(1, 3), wait_seconds=wait_seconds)
        self.granted += [(lease.command_id, lease.lease_id) for lease in await node.service.lease(request, BY)]

    async def respond(self, node: Node) -> None:
        if self.granted:
            command_id, _ = self.random.choice(self.granted)
            await node.service.respond(command_id, answer(b"%d" % self.random.randint(0, 9)), BY)
            self.answered.append(command_id)

    async def release(self, node: Node) -> None:
        if self.granted:
            await node.service.holding.release(self.random.choice(self.granted)[1], BY)

    async def create_many(self, node: Node) -> None:
        requests = [create_request(max_attempts=3), create_request(idempotency_key="a"), create_request()]
        for made in await node.service.create_each(requests, BY):
            if not isinstance(made, Exception):
                self.created.append(made[0])

    async def cancel(self, node: Node) -> None:
        if self.created:
            command_id = self.random.choice(self.created)
            await node.service.holding.cancel(command_id, "no longer needed", BY)
            self.answered.append(command_id)

    async def settle(self, node: Node) -> None:
        """Answers and renewals of up to four leases in one call, some of them twice, one that never was."""
        held = [self.random.choice(self.granted) for _ in range(4)] if self.granted else []
        completions = [Completion(*lease, answer(b"%d" % self.random.randint(0, 9))) for lease in held[:3]]
        renewals = [Renewal(lease_id, 30) for _, lease_id in held[2:]] + [Renewal("lease_none", 30)]
        completed, renewed = await node.service.settling.settle(completions, renewals, BY, lambda row: None)
        assert isinstance(renewed[-1], LeaseNotFound)
        for completion, outcome in zip(completions, completed, strict=True):
            if not isinstance(outcome, Exception):
                assert isinstance(outcome.state, TERMINAL)
                self.answered.append(completion.command_id)

    async def lose(self, node: Node) -> None:
        """Lease for somebody who has left by the time of the answer, or leaves in the middle."""
        request = lease_request(leases_max=3, wait_seconds=self.random.choice([0, 1]))
        with trio.move_on_after(self.random.choice([0, 0.01, 0.5, 9])):
            await node.service.take_back(await node.service.lease(request, BY))


ACTS = ["create", "create_with_key", "create_many", "lease", "lease", "respond", "settle", "release", "lose", "cancel"]
STEPS = st.sampled_from([*ACTS, "time"])


@given(st.lists(STEPS, min_size=5, max_size=40), st.integers(0, 2**32))
def test_no_promise_is_broken(steps: list[str], seed: int) -> None:
    run(_storm, ["create", *steps], Random(seed))  # no drawn randomness: the order of draws depends on random ids


async def _storm(steps: list[str], random: Random) -> None:
    journal, clock = Storm(random), RunningClock()  # one that stands still makes the ticker look without end
    journal.calm = True
    async with running(journal, clock, 2, append_seconds_max=2.0) as nodes:
        crowd = Crowd(nodes, random)
        journal.calm = False
        async with trio.open_nursery() as nursery:
            for step in steps:
                if step == "time":
                    clock.advance(random.choice([1, 20, 31]))
                    await trio.sleep(0.3)
                else:
                    nursery.start_soon(crowd.act, random.choice(nodes), step, random.choice([0, 0, 0.01, 0.1, 1]))
                    if random.random() < 0.3:
                        await trio.testing.wait_all_tasks_blocked()
        journal.calm = True
        for node in nodes:
            await node.ticker.tick_due(clock.now())
        end = await journal.end()
        with trio.fail_after(10):
            for node in nodes:
                await node.follower.reached(end)
        _check(journal, crowd)


def _check(journal: Storm, crowd: Crowd) -> None:
    zero = Projections()
    previous: dict[str, str] = {}
    terminals: defaultdict[str, int] = defaultdict(int)
    leases: dict[str, CommandLeased] = {}
    holder: dict[str, str] = {}
    for position, key, payload in journal.messages():
        zero.apply(decode_recorded(position, key, payload))
        decision, command_id = decode(payload), key.command_id
        assert decision.prev == previous.get(command_id)
        previous[command_id] = digest(payload)
        for event in decision.events:
            if isinstance(event, CommandSucceeded | CommandFailed | CommandExpired):
                terminals[command_id] += 1
                holder.pop(command_id, None)
            elif isinstance(event, CommandLeased):
                assert command_id not in holder
                assert event.lease_id not in leases
                holder[command_id] = event.lease_id
                leases[event.lease_id] = event
            elif isinstance(event, LeaseReleased | LeaseExpired):
                assert holder.pop(command_id) == event.lease_id
                if isinstance(event, LeaseExpired):
                    assert decision.at >= leases[event.lease_id].expires_at
    assert set(crowd.created) <= set(previous)
    assert all(len(ids) == 1 for ids in crowd.by_key.values())
    assert {lease_id for _, lease_id in crowd.granted} <= set(leases)
    assert max(terminals.values(), default=0) <= 1
    assert all(terminals[command_id] == 1 for command_id in crowd.answered)
    for node in crowd.nodes:
        _same(node, zero, previous)


def _same(node: Node, zero: Projections, ids: dict[str, str]) -> None:
    """What a node knows is what a replay from zero knows."""
    assert len(node.models.status) == len(zero.status) == len(ids)
    for command_id in ids:
        live, replayed = node.models.status.get(command_id), zero.status.get(command_id)
        assert live is not None
        assert replayed is not None
        assert (live.state, live.version, live.params_at, live.answer_at) == (
            replayed.state,
            replayed.version,
            replayed.params_at,
            replayed.answer_at,
        )
    now = T0 + 10**9 * SECOND
    assert node.models.pending.queues(now) == zero.pending.queues(now)
    assert node.models.due.next_at() == zero.due.next_at()
    assert node.models.stats.by_state() == zero.stats.by_state()
