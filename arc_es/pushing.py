"""Delivering push commands: which target is pushed to next, and each push from its record to its result (`arc.v1` 4.4).

DISPATCHED and the delivery lease are recorded before anything is sent. What cannot be found out afterwards (a crash, a
time-out, a lost connection) is left to the delivery lease: when it ends without an answer, the command is pushed again.

Targets take turns. Each has at most `per_target_max` pushes under way; a target that did not answer in time gets one at
a time until it answers again, and the second half of all slots is for targets that have none. So slow or dead targets
wait for themselves.
"""

from __future__ import annotations

import logging
import math
import random
import uuid
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Final

import orjson
import trio

from arc_es.actors.stepping_in import SteppingIn
from arc_es.actors.turns import Ask, Turns
from arc_es.bodies import Bodies, Missing
from arc_es.domain.errors import Rejected
from arc_es.domain.events import DeclaredTarget
from arc_es.domain.ids import lease_id_of
from arc_es.domain.intents import Dispatch, LoseParams, RejectDelivery, Release
from arc_es.domain.limits import DELIVERY_LEASE_EXTRA_SECONDS, PUSH_SECONDS_MAX, WORKER_TIMEOUT_SECONDS_DEFAULT
from arc_es.domain.recorded import SERVICE
from arc_es.domain.state import Dispatched, Pending, attempt_of, lease_end_max_of
from arc_es.envelopes import Envelopes
from arc_es.leasing import Granted, target_of
from arc_es.ports import BodyStoreError, Clock, JournalError, Overloaded, Pusher, PushOutcome
from arc_es.sealing import CannotUnseal
from arc_es.views import ReadModels, Row

FIRST_RESULT_SECONDS_MAX: Final = PUSH_SECONDS_MAX + 2.0
"""How long a create waits for the result of its push: what a push may take, and a little for the journal."""
REST_SECONDS: Final = 1.0
"""When a command is looked at again that could not be pushed because the journal or the body store had trouble."""
LEFT_SECONDS: Final = 1.0
"""How long a node that is to push a command first has for it: longer than a turn, or being a little behind, takes."""
RESTING_PER_TARGET_MAX: Final = 100
"""So many commands of one target rest because of trouble; then the others of this target wait, too."""
QUIET_SECONDS: Final = 60.0
"""The log tells of such trouble once in so long a time for each target."""
REPORT_SECONDS_MAX: Final = 30.0
REPORT_RETRY_SECONDS: Final = 0.2
"""A rejection that cannot be recorded is tried again, for so long; then the delivery lease sees to the command."""

NO_ANSWER: Final = PushOutcome("unclear", f"no answer within {PUSH_SECONDS_MAX} s")
UNDECLARED: Final = PushOutcome("rejected", "the target is not declared for push any more")

log = logging.getLogger("arc_es.pushing")

EnvelopesFor = Callable[[int], Envelopes]
"""Makes the envelopes of one push, with absolute URLs, from the seconds of its delivery lease."""
TokenOf = Callable[[str, DeclaredTarget], str | None]
"""The bearer token of a target of a deployment, None if it has none. Raises CannotUnseal."""


@dataclass(eq=False, slots=True)
class _Lane:
    """One target. running: pushes under way. answers: whether it answered the last one."""

    deployment_id: str
    target_id: str
    running: int = 0
    resting: int = 0
    answers: bool = True
    quiet_until: float = -math.inf

    def complain(self, trouble: Exception) -> None:
        """Log a trouble that delays pushes, now and then: it may last, and concern many commands."""
        if trio.current_time() >= self.quiet_until:
            log.warning("Cannot push to %s of %s now, will try again: %s", self.target_id, self.deployment_id, trouble)
            self.quiet_until = trio.current_time() + QUIET_SECONDS


@dataclass(frozen=True, slots=True)
class Sending:
    """All that it takes to send a command that was recorded as dispatched."""

    pusher: Pusher
    envelopes: EnvelopesFor
    token_of: TokenOf

    async def send(self, granted: Granted, target: DeclaredTarget | None, lease_seconds: int) -> PushOutcome:
        """One push, by the current settings of its target; None if it has none any more."""
        if target is None or target.push is None:
            return UNDECLARED
        try:
            token = self.token_of(granted.facts.route.deployment_id, target)
        except CannotUnseal as error:
            log.warning("%s", error)
            return PushOutcome("rejected", "the push token cannot be read")
        envelope = orjson.dumps(self.envelopes(lease_seconds).envelope(granted))
        with trio.move_on_after(PUSH_SECONDS_MAX):
            return await self.pusher.push(target.push.url, token, envelope)
        return NO_ANSWER


class Pushing:
    """Takes push commands out of their queues and delivers them; without `sending` all of them wait."""

    def __init__(
        self,
        *,
        models: ReadModels,
        turns: Turns,
        bodies: Bodies,
        sending: Sending | None,
        clock: Clock,
        per_target_max: int,
        pushes_max: int,
    ) -> None:
        self._models = models
        self._turns = turns
        self._bodies = bodies
        self._sending = sending
        self._clock = clock
        self._per_target_max = per_target_max
        self._pushes_max = pushes_max
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._eager: dict[_Lane, None] = {}
        self._underway: set[str] = set()
        self._results: dict[str, trio.Event] = {}
        self._nudged = trio.Event()
        self._draining = False
        self._ended = trio.Event()
        self.left_to_others = SteppingIn(LEFT_SECONDS)
        """What another node is to push first."""

    # --- what others tell and ask

    def offer(self, command_id: str) -> None:
        """A command may be pushed from now on."""
        row = self._models.status.get(command_id)
        if row is not None:
            route = row.state.facts.route
            self._wake(self._lane(route.deployment_id, route.target_id))

    def reopened(self, deployment_id: str) -> None:
        """Targets of a deployment may be open again."""
        for lane in self._lanes.values():
            if lane.deployment_id == deployment_id:
                self._wake(lane)

    async def first_result(self, command_id: str) -> None:
        """Wait until the first push of a command has its result and that is applied; bounded in time."""
        if self._sending is None or self._draining or not self._is_before_result(command_id):
            return
        event = self._results.setdefault(command_id, trio.Event())
        try:
            with trio.move_on_after(FIRST_RESULT_SECONDS_MAX):
                await event.wait()
        finally:
            if self._results.get(command_id) is event and not event.statistics().tasks_waiting:
                del self._results[command_id]

    def _is_before_result(self, command_id: str) -> bool:
        row = self._models.status.get(command_id)
        if row is None:
            return False
        state = row.state
        if command_id in self._underway:
            return attempt_of(state) == 1
        if not isinstance(state, Pending) or lease_end_max_of(state) > 0:
            return False
        if not self._models.pushes.is_open(state.facts.route.deployment_id, state.facts.route.target_id):
            return False
        return state.available_at is None or state.available_at <= self._clock.now()

    def drain(self) -> None:
        """Start no more pushes: the service is about to stop."""
        self._draining = True
        self._nudged.set()

    async def drained(self) -> None:
        """Wait, after `drain`, until no push is under way any more."""
        if self._underway:
            await self._ended.wait()

    # --- whose turn it is

    async def run(self) -> None:
        """Push until `drain`; what is pending already comes first."""
        try:
            waiting = [queue for queue in self._models.pushes.queues(self._clock.now()) if queue.pending]
            if self._sending is None:
                if waiting:
                    log.warning("Push commands wait: without a public URL (--public-url) nothing is pushed")
                return
            for queue in waiting:
                self._wake(self._lane(queue.deployment_id, queue.target_id))
            async with trio.open_nursery() as nursery:
                while not self._draining:
                    self._start_pushes(nursery, self._sending)
                    await self._nudged.wait()
                    self._nudged = trio.Event()
        finally:
            self._ended.set()

    def _lane(self, deployment_id: str, target_id: str) -> _Lane:
        lane = self._lanes.get((deployment_id, target_id))
        if lane is None:
            lane = self._lanes[deployment_id, target_id] = _Lane(deployment_id, target_id)
        return lane

    def _wake(self, lane: _Lane) -> None:
        """There may be something to do for a target."""
        self._eager[lane] = None
        self._nudged.set()

    def _start_pushes(self, nursery: trio.Nursery, sending: Sending) -> None:
        """One push for each target that wants and may have one, round and round."""
        while self._eager and len(self._underway) < self._pushes_max:
            lane = next(iter(self._eager))
            del self._eager[lane]
            if not self._has_room(lane):
                continue  # it comes back when one of its own pushes or rests ends
            only = self._is_ours if self.left_to_others else None
            now = self._clock.now()
            for command_id in self._models.pushes.take(lane.deployment_id, lane.target_id, 1, now, only):
                lane.running += 1
                self._underway.add(command_id)
                nursery.start_soon(self._deliver, lane, command_id, sending)
                self._eager[lane] = None

    def _is_ours(self, row: Row) -> bool:
        return row.command_id not in self.left_to_others

    def _has_room(self, lane: _Lane) -> bool:
        is_roomy = lane.answers and 2 * len(self._underway) < self._pushes_max
        return lane.running < (self._per_target_max if is_roomy else 1) and lane.resting < RESTING_PER_TARGET_MAX

    # --- one push

    async def _deliver(self, lane: _Lane, command_id: str, sending: Sending) -> None:
        """One push from start to end, and the rest that follows if there was trouble."""
        is_done = await self._try_push(lane, command_id, sending)
        lane.running -= 1
        self._underway.discard(command_id)
        result = self._results.pop(command_id, None)
        if result is not None:
            result.set()
        self._wake(lane)
        if not is_done:
            lane.resting += 1
            await trio.sleep(REST_SECONDS)
            lane.resting -= 1
        self._models.pushes.give_back([command_id])  # what was dispatched has left the queue and stays out
        self._wake(lane)

    async def _try_push(self, lane: _Lane, command_id: str, sending: Sending) -> bool:
        """Push one command; False if nothing could be recorded now, so that nothing has changed."""
        declared = self._models.deployments.get(lane.deployment_id).declared_target(lane.target_id)
        target = declared if declared is not None and declared.delivery == "push" else None
        timeout_seconds = target.push.timeout_seconds if target and target.push else WORKER_TIMEOUT_SECONDS_DEFAULT
        lease_seconds = timeout_seconds + DELIVERY_LEASE_EXTRA_SECONDS
        try:
            granted = await self._grant(command_id, lease_seconds)
        except Rejected:
            return True  # it was answered, cancelled, or pushed by another node a moment ago
        except (JournalError, Overloaded, BodyStoreError) as trouble:
            lane.complain(trouble)
            return False
        if granted is not None:
            outcome = await sending.send(granted, target, lease_seconds)
            lane.answers = outcome.result != "unclear"
            level = logging.DEBUG if outcome.result == "accepted" else logging.INFO
            log.log(level, "Push of %s, attempt %d: %s, %s", command_id, granted.attempt, *astuple(outcome))
            if outcome.result == "rejected":
                await self._report(granted, outcome.reason)
        return True

    async def _grant(self, command_id: str, lease_seconds: int) -> Granted | None:
        """Record that the command is about to be pushed; None if it cannot be, for good.

        Raises:
            Rejected, JournalError, Overloaded: as `Turns.perform`.
            BodyStoreError: the params are out of reach now.
        """
        row = self._models.status.get(command_id)
        assert row is not None, "a queue holds a command that does not exist"
        deployment_id = row.state.facts.route.deployment_id
        (params,) = await self._bodies.deliverable([row])  # first: see `Leasing`
        if isinstance(params, Missing):
            if not params.gone:
                raise BodyStoreError("The params are out of reach")
            await self._turns.perform(Ask(command_id, deployment_id, LoseParams(), SERVICE))
            return None
        intent = Dispatch(lease_id=lease_id_of(uuid.uuid4()), seconds=lease_seconds)
        state = (await self._turns.perform(Ask(command_id, deployment_id, intent, SERVICE))).state
        if not isinstance(state, Dispatched) or state.lease_id != intent.lease_id:
            return None
        if self._models.pushes.is_excess(command_id):
            back = Release(lease_id=state.lease_id, undelivered=True)
            await self._turns.perform(Ask(command_id, deployment_id, back, SERVICE))
            return None
        target = target_of(self._models.deployments, state.facts)
        return Granted(command_id, state.facts, target, state.attempt, state.lease_id, state.expires_at, params)

    async def _report(self, granted: Granted, reason: str) -> None:
        """Record a definite rejection, through troubles of the journal."""
        intent = RejectDelivery(
            lease_id=granted.lease_id,
            reason=reason,
            jitter=random.random(),  # noqa: S311 - jitter, no secret
        )
        ask = Ask(granted.command_id, granted.facts.route.deployment_id, intent, SERVICE)
        deadline = trio.current_time() + REPORT_SECONDS_MAX
        while True:
            try:
                await self._turns.perform(ask)
            except (JournalError, Overloaded) as trouble:
                if trio.current_time() >= deadline:
                    log.warning("Cannot record that %s was rejected: %s", granted.command_id, trouble)
                    return
                await trio.sleep(REPORT_RETRY_SECONDS)
            else:
                return
