"""Whatever workers, the journal and restarts do: no delivery is sent twice, and every command comes to its end."""

from __future__ import annotations

from collections import Counter
from typing import Any

import trio
import trio.testing
from hypothesis import event, given, settings
from hypothesis import strategies as st

from arc_es.journal.memory import Fault, MemoryJournal
from arc_es.ports import PushOutcome
from tests.http.driver import Clock, Served, a_command
from tests.http.pushes import ACCEPTED, REJECTED, UNCLEAR, Script, Sent, answer_by_url, push_target, pushing
from tests.http.virtual_time import run

TARGETS = ("a", "b", "c")
DELIVERY_LEASE_SECONDS = 61
ATTEMPTS_MAX = 5
SETTLE_SECONDS = 5
"""Longer than any rest, back-off and answer."""

workers = st.sampled_from(["answers", "accepts", "rejects", "is unclear", "hangs", "answers late"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.sampled_from(TARGETS)),
        st.tuples(st.just("create"), st.just(TARGETS[0])),
        st.tuples(st.just("time"), st.sampled_from([0.5, 3, DELIVERY_LEASE_SECONDS])),
        st.tuples(st.just("fault"), st.sampled_from([None, None, *Fault])),
        st.tuples(st.just("restart"), st.none()),
    ),
    min_size=8,
    max_size=30,
)


class Storm:
    """One run: a journal, and one node after the other on it."""

    def __init__(self, behaviours: list[str], *, retry: bool) -> None:
        self.script = Script()
        self.script.before = self.worker  # it also says what the result is
        self.journal, self.clock = MemoryJournal(), Clock()
        self.behaviours = behaviours
        self.retry = retry
        self.keys: set[str] = set()
        self.served: Served

    async def worker(self, sent: Sent) -> None:
        """What the worker does with one push."""
        behaviour = self.behaviours.pop() if self.behaviours else "answers"
        results: dict[str, PushOutcome] = {"rejects": REJECTED, "is unclear": UNCLEAR, "answers late": UNCLEAR}
        self.script.results = [results.get(behaviour, ACCEPTED)]
        if behaviour == "hangs":
            await trio.sleep_forever()
        if behaviour == "answers late":
            await trio.sleep(1)
        if behaviour.startswith("answers"):
            await answer_by_url(self.served, sent)

    async def create(self, target: str) -> None:
        key = f"key {len(self.keys)}"
        self.keys.add(key)
        await self.ask(key, target)

    async def ask(self, key: str, target: str) -> Any:
        body = a_command(targetResourceId=target, idempotencyKey=key, params={"mode": "inline", "inlineBase64": ""})
        return await self.served.client.post("/v1/commands", body)

    def settings(self) -> dict[str, Any]:
        return {
            "journal": self.journal,
            "clock": self.clock,
            "declare": False,
            "pushes_per_target_max": 2,
            "pushes_max": 4,
            "append_seconds_max": 0.5,
        }

    async def life(self, plan: list[tuple[str, Any]]) -> None:
        """One node, until it is ended in the middle of everything."""
        self.journal.fault = None  # else it would not start
        async with pushing(self.script, **self.settings()) as self.served, trio.open_nursery() as nursery:
            for what, value in plan:
                if what == "create":
                    nursery.start_soon(self.create, value)
                elif what == "time":
                    self.clock.advance(value)
                    await trio.sleep(value)
                else:
                    self.journal.fault = value
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    async def end(self) -> None:
        """All is well again: what was acknowledged, and what was not, can be brought to its end."""
        self.journal.fault, self.behaviours = None, []
        async with pushing(self.script, **self.settings()) as self.served:
            for key in self.keys:
                await self.ask(key, TARGETS[0])  # for the sake of those that were not stored, whatever their target
            for _ in range(ATTEMPTS_MAX):
                await trio.sleep(SETTLE_SECONDS)
                self.clock.advance(DELIVERY_LEASE_SECONDS)
            await trio.sleep(SETTLE_SECONDS)
            states = self.served.node.models.stats.by_state()
            assert set(+Counter(states)) <= {"SUCCEEDED", "FAILED"}, states
            queues = self.served.node.models.pushes.queues(self.clock.now())
            assert all((queue.pending, queue.delayed, queue.leased) == (0, 0, 0) for queue in queues)

    async def declare(self) -> None:
        targets = [push_target(target, timeoutSeconds=1) for target in TARGETS]
        retry: dict[str, Any] = {"retry": {"initialSeconds": 1, "maxSeconds": 4, "factor": 2}} if self.retry else {}
        async with pushing(self.script, **self.settings()) as served:
            (await served.declare(*targets, maxAttempts=ATTEMPTS_MAX, **retry)).ok()


@settings(max_examples=settings().max_examples // 3)  # one is worth many, and takes as long
@given(behaviours=st.lists(workers, min_size=8, max_size=30), plan=steps, retry=st.booleans())
def test_no_delivery_is_sent_twice_and_every_command_ends(
    behaviours: list[str], plan: list[tuple[str, Any]], *, retry: bool
) -> None:
    async def main() -> Storm:
        storm = Storm(behaviours, retry=retry)
        await storm.declare()
        life: list[tuple[str, Any]] = []
        for step in [*plan, ("restart", None)]:
            if step[0] == "restart":
                await storm.life(life)
                life = []
            else:
                life.append(step)
        await storm.end()
        return storm

    storm = run(main)
    sent = Counter((sent.command_id, sent.envelope["attempt"]) for sent in storm.script.sent)
    assert set(sent.values()) <= {1}
    event(f"up to attempt {max((attempt for _, attempt in sent), default=0)}")
    for command_id in {sent.command_id for sent in storm.script.sent}:
        attempts = [one.envelope["attempt"] for one in storm.script.sent if one.command_id == command_id]
        assert attempts == sorted(attempts)
