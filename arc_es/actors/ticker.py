"""The loop that makes time pass: deadlines, lease ends and delayed commands act without anybody polling."""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from arc_es.actors.peers import Peers
from arc_es.actors.turns import Ask, Turns
from arc_es.domain.ids import Micros
from arc_es.domain.intents import Tick
from arc_es.domain.limits import SECOND
from arc_es.domain.recorded import SERVICE
from arc_es.domain.state import next_due
from arc_es.ports import Clock, JournalError, Overloaded
from arc_es.views import ReadModels, Row

BATCH_MAX: Final = 500
SLEEP_SECONDS_MAX: Final = 0.5
"""Also without anything due: a wall clock that was set forward is noticed within this time."""
BUSY_SECONDS: Final = 0.1
"""Before the next look at commands that somebody has a turn of."""
TROUBLE_SECONDS_MAX: Final = 1.0
"""Before the next try while the journal is full or away; at first as short as for busy commands."""

LEFT_MICROS: Final = SECOND // 2
"""How long the node that is to tick a command first has for it."""

log = logging.getLogger("arc_es.ticker")


class Ticker:
    """Sleeps to the head of `due`, then sends Tick to what is due."""

    def __init__(self, turns: Turns, models: ReadModels, clock: Clock, peers: Peers) -> None:
        self._turns = turns
        self._models = models
        self._clock = clock
        self._peers = peers
        self._left: deque[tuple[Micros, str]] = deque()
        """What another node is to tick first, and when it should have."""
        self.on_leasable: Callable[[str], None] = lambda command_id: None
        """Told of commands whose rest is over."""
        self._nudged = trio.Event()
        self._sleeping_until: Micros = 0
        self._reported = ""
        self._pause_seconds = BUSY_SECONDS

    def nudge(self) -> None:
        """Look again if something is due earlier than the planned end of sleep."""
        next_at = self._next_at()
        if next_at is not None and next_at < self._sleeping_until:
            self._nudged.set()

    async def run(self) -> None:
        """Tick for ever."""
        while True:
            now = self._clock.now()
            next_at = self._next_at()
            if next_at is not None and next_at <= now:
                await self._tick(now)
                continue
            wait = SLEEP_SECONDS_MAX * SECOND if next_at is None else min(next_at - now, SLEEP_SECONDS_MAX * SECOND)
            self._sleeping_until = now + int(wait)
            with trio.move_on_after(wait / SECOND):
                await self._nudged.wait()
            self._nudged = trio.Event()

    def _next_at(self) -> Micros | None:
        models = self._models
        left_at = self._left[0][0] if self._left else None
        times = (models.due.next_at(), models.pending.next_available_at(), models.pushes.next_available_at(), left_at)
        return min((at for at in times if at is not None), default=None)

    async def _tick(self, now: Micros) -> None:
        for queue in (self._models.pending, self._models.pushes):
            for command_id in queue.wake_delayed(now):
                self.on_leasable(command_id)
        if not await self.tick_due(now):
            await trio.sleep(self._pause_seconds)

    async def tick_due(self, now: Micros) -> bool:
        """Apply all lease ends and deadlines that are due at `now`, in batches; False if some have to wait.

        A command that somebody has a turn of right now waits: every turn begins with what is due.
        """
        waiting: list[str] = []
        while self._left and self._left[0][0] <= now:
            self._models.due.put_back([self._left.popleft()[1]])
        try:
            while taken := self._models.due.take_due(now, BATCH_MAX):
                ids = taken if self._peers.alone else [one for one in taken if self._is_ours(one, now)]
                waiting.extend(ids)
                done = await self._turns.perform_each([self._ask(command_id) for command_id in ids], skip_busy=True)
                del waiting[-len(ids) :]
                waiting += [one for one, outcome in zip(ids, done, strict=True) if _still_due(outcome, now)]
            self._reported = ""
            self._pause_seconds = BUSY_SECONDS
        except (JournalError, Overloaded) as trouble:
            if str(trouble) != self._reported:
                log.warning("Cannot apply due changes now, will try again: %s", trouble)
            self._reported = str(trouble)
            self._pause_seconds = min(2 * self._pause_seconds, TROUBLE_SECONDS_MAX)
        finally:
            self._models.due.put_back(waiting)
        return not waiting

    def _is_ours(self, command_id: str, now: Micros) -> bool:
        """Whether this node is the first to tick a command, or the one that is has had its time."""
        row = self._models.status.get(command_id)
        due_at = None if row is None else next_due(row.state)
        if due_at is None or due_at + LEFT_MICROS <= now or self._peers.is_first(command_id):
            return True
        self._left.append((due_at + LEFT_MICROS, command_id))
        return False

    def _ask(self, command_id: str) -> Ask:
        row = self._models.status.get(command_id)
        assert row is not None, "due names a command that does not exist"
        deployment_id = row.state.facts.route.deployment_id
        return Ask(command_id, deployment_id, Tick(jitter=random.random()), SERVICE)  # noqa: S311 - jitter, no secret


def _still_due(outcome: Row | Exception, now: Micros) -> bool:
    """Whether a Tick has changed nothing: somebody has a turn, or the clock was set back meanwhile."""
    if isinstance(outcome, Exception):
        return True
    due_at = next_due(outcome.state)
    return due_at is not None and due_at <= now
