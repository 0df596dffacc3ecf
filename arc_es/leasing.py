"""Giving work to agents: which commands a lease request gets, now or as soon as there are some."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

import trio

from arc_es.actors.long_waits import LongWaits
from arc_es.actors.peers import Peers
from arc_es.actors.ticker import Ticker
from arc_es.actors.turns import Ask, Turns
from arc_es.actors.waiters import Waiter, Waiters
from arc_es.bodies import Bodies, Deliverable, Missing
from arc_es.cancellations import Cancellations
from arc_es.domain.events import TargetObserved
from arc_es.domain.ids import OPERATOR, Micros, Target, lease_id_of
from arc_es.domain.intents import Lease, LoseParams, Release
from arc_es.domain.limits import NAME_BYTES_MAX
from arc_es.domain.recorded import SERVICE, Principal
from arc_es.domain.state import Facts, Leased
from arc_es.ports import Clock, JournalError, Overloaded
from arc_es.randomness import uuid4
from arc_es.views import DeploymentsView, ReadModels, Row
from arc_es.wire_leases import LeaseRequest

BUSY_RETRY_SECONDS: Final = 0.1
"""When a waiting agent looks again at a command that it lost to somebody else."""
POLLS_REMEMBERED_MAX: Final = 100_000
T = TypeVar("T")
TAKE_BACK_SECONDS_MAX: Final = 10.0

log = logging.getLogger("arc_es.leasing")


log = logging.getLogger("arc_es.leasing")


@dataclass(frozen=True, slots=True)
class Granted:
    """A delivery that was just recorded: what an envelope is made from."""

    command_id: str
    facts: Facts
    target: Target
    attempt: int
    lease_id: str
    expires_at: Micros
    params: Deliverable


@dataclass(frozen=True, slots=True)
class Poll:
    """When a target was last asked for work, and by which agent."""

    at: Micros
    agent: str | None


def target_of(deployments: DeploymentsView, facts: Facts) -> Target:
    """The target of a command with the type that is known of it by now; an unknown one is shown as worker."""
    route = facts.route
    resource_type = route.target_type or deployments.type_of(route.deployment_id, route.target_id)
    return Target(route.target_id, resource_type or "worker")


class Leasing:
    """Takes commands out of the queues for those who ask."""

    def __init__(  # noqa: PLR0913 - only the service calls it
        self,
        *,
        models: ReadModels,
        turns: Turns,
        waiters: Waiters,
        ticker: Ticker,
        bodies: Bodies,
        long_waits: LongWaits,
        cancellations: Cancellations,
        clock: Clock,
        peers: Peers,
    ) -> None:
        self._models = models
        self._turns = turns
        self._waiters = waiters
        self._ticker = ticker
        self._bodies = bodies
        self._long_waits = long_waits
        self._cancellations = cancellations
        self._clock = clock
        self._peers = peers
        self._polls: OrderedDict[tuple[str, str], Poll] = OrderedDict()
        self._agent_polls: OrderedDict[tuple[str, str], Micros] = OrderedDict()

    def last_poll(self, deployment_id: str, target_id: str) -> Poll | None:
        """When a target was last asked for work, here or, as far as is known, at another node."""
        name = (deployment_id, target_id)
        here, there = self._polls.get(name), self._peers.last_asked(name)
        if there is not None and (here is None or here.at < there.at):
            return Poll(there.at, there.agent)
        return here

    def agent_polled_at(self, deployment_id: str, agent: str) -> Micros | None:
        """When an agent last asked for work of a deployment; None: not since this service started, or long ago."""
        return self._agent_polls.get((deployment_id, agent))

    def waiting(self, deployment_id: str, target_id: str) -> int:
        """How many agents wait for this target, here and, as far as is known, at other nodes."""
        return self._waiters.waiting(deployment_id, target_id) + self._peers.waiting((deployment_id, target_id))

    async def lease(self, request: LeaseRequest, by: Principal) -> list[Granted]:
        """Take up to `leases_max` commands; with `wait_seconds` wait for the first one.

        A target that does not exist, has another type, or is pushed to gives an empty list (`arc.v1` 2.4).
        """
        deadline = trio.current_time() + request.wait_seconds
        if request.leases_max == 0:
            return []
        request = self._capped(request)
        if not await self._may_lease(request, by):
            with self._long_waits.until(deadline):
                await trio.sleep_until(deadline)
            return []
        self._note_poll(request)
        await self._ticker.tick_due(self._clock.now())
        granted, _ = await self._try_lease(request, by, [])
        if granted or not request.wait_seconds:
            return granted
        if self._cancellations.has_news(request.deployment_id, request.agent_id):
            return []
        return await self._lease_when_possible(request, by, deadline)

    async def _lease_when_possible(self, request: LeaseRequest, by: Principal, deadline: float) -> list[Granted]:
        waiter = self._waiters.join(request.deployment_id, *self._queues(request))
        try:
            with self._cancellations.awaited_by(waiter, request.agent_id):
                return await self._lease_when_woken(waiter, request, by, deadline)
        finally:
            self._waiters.leave(waiter)
            self._waiters.give_back(_emptied(waiter))
            self._note_poll(request)

    async def _lease_when_woken(
        self, waiter: Waiter, request: LeaseRequest, by: Principal, deadline: float
    ) -> list[Granted]:
        wake_at = deadline
        while trio.current_time() < deadline and not self._long_waits.draining and not waiter.has_news:
            with self._long_waits.until(wake_at):
                await waiter.woken.wait()
            await trio.lowlevel.checkpoint()  # a client that left in the same moment is noticed first
            self._waiters.leave(waiter)  # what is handed over while it tries would wait until it looks again
            granted, busy = await self._try_lease(request, by, _emptied(waiter))
            if granted:
                return granted
            wake_at = deadline
            if busy:  # pause outside the room: agents that all fail must not hand one command round and round
                wake_at = min(deadline, trio.current_time() + BUSY_RETRY_SECONDS)
                with self._long_waits.until(wake_at):
                    await trio.sleep_until(wake_at)
            self._waiters.rejoin(waiter)
        return []

    async def _try_lease(self, request: LeaseRequest, by: Principal, taken: list[str]) -> tuple[list[Granted], bool]:
        """Grant what was handed over and what else is leasable, until there are enough or there is no more.

        Also says whether some commands could not be had because somebody else was busy with them.
        """
        granted: list[Granted] = []
        reserved = self._not_for(request, taken)
        taken = [one for one in taken if one not in reserved]
        try:
            while (wanted := request.leases_max - len(granted)) > 0:
                missing = wanted - len(taken)
                if missing > 0:
                    taken += self._take(request, missing)
                if not taken:
                    break
                reserved += taken
                trying, taken = taken, []
                try:
                    granted += await self._grant(request, by, trying)
                except (JournalError, Overloaded):
                    if not granted:
                        raise
                    break  # what was granted already reaches its agent
        except trio.Cancelled:
            with trio.move_on_after(TAKE_BACK_SECONDS_MAX, shield=True):
                await self.take_back(granted)
            raise
        finally:
            self._waiters.give_back([*reserved, *taken])  # what was leased has left the queue and stays out
        return granted, len(granted) < len(reserved)

    async def take_back(self, granted: Sequence[Granted]) -> None:
        """Put commands back whose lease nobody has received, at once and as the same attempt."""
        asks = [
            Ask(
                one.command_id,
                one.facts.route.deployment_id,
                Release(lease_id=one.lease_id, undelivered=True),
                SERVICE,
            )
            for one in granted
        ]
        try:
            await self._turns.perform_each(asks)
        except (JournalError, Overloaded) as trouble:
            log.warning("Leases that nobody received last until they end: %s", trouble)

    def _queues(self, request: LeaseRequest) -> tuple[str | None, ...]:
        """Ids of the targets that the request looks at, (None,) for the whole deployment; one or more but for a token
        of exact targets that are all of another type by now."""
        if request.target is not None:
            return (request.target.resource_id,)
        if request.only is None:
            return (None,)
        type_of = partial(self._models.deployments.type_of, request.deployment_id)
        fitting = [one for one in request.only if type_of(one.resource_id) in (None, one.resource_type)]
        return tuple({one.resource_id for one in fitting} - {OPERATOR})

    def _take(self, request: LeaseRequest, count: int) -> list[str]:
        """Reserve `count` commands, first those that no other node is to lease first."""
        if self._peers.alone and not self._waiters.left_to_others:
            return self._best(request, count)
        taken = self._best(request, count, self._is_first)
        if len(taken) < count:  # who can wait leaves what is left to others
            taken += self._best(request, count - len(taken), self._waiters.is_ours if request.wait_seconds else None)
        return taken

    def _is_first(self, row: Row) -> bool:
        first = self._peers.leases_first(row.command_id, row.state.facts.route)
        return first and self._waiters.is_ours(row)

    def _best(self, request: LeaseRequest, count: int, only: Callable[[Row], bool] | None = None) -> list[str]:
        """Reserve the best `count` commands of all queues that the request looks at."""
        pending, now = self._models.pending, self._clock.now()
        queues = self._queues(request)
        taken = [one for queue in queues for one in pending.take(request.deployment_id, queue, count, now, only)]
        if len(queues) > 1:
            taken.sort(key=self._rank)
            pending.give_back(taken[count:])
        return taken[:count]

    def _not_for(self, request: LeaseRequest, handed: Sequence[str]) -> list[str]:
        """What was handed over though the token is not for it: the type of its target was settled meanwhile."""
        if request.only is None:
            return []
        queues = self._queues(request)
        return [one for one in handed if self._row(one).state.facts.route.target_id not in queues]

    def _rank(self, command_id: str) -> tuple[int, int]:
        row = self._row(command_id)
        return -row.state.facts.options.priority, row.params_at

    def _row(self, command_id: str) -> Row:
        row = self._models.status.get(command_id)
        assert row is not None, "a queue holds a command that does not exist"
        return row

    async def _grant(self, request: LeaseRequest, by: Principal, taken: Sequence[str]) -> list[Granted]:
        # Params first: a lease whose params cannot be read would be held by nobody until it ends.
        deliverable = await self._deliverable(taken)
        asks = [self._lease_ask(command_id, request, by) for command_id in deliverable]
        with trio.CancelScope(shield=True):  # or nobody would know what was granted to a caller who leaves now
            outcomes = await self._turns.perform_each(asks)
            granted = [one for one in map(partial(self._granted, deliverable), asks, outcomes) if one is not None]
            excess = [one for one in granted if self._models.pending.is_excess(one.command_id)]
            await self.take_back(excess)  # somebody else was first, or paused the target
        return [one for one in granted if one not in excess]

    def _granted(self, deliverable: Mapping[str, Deliverable], ask: Ask, outcome: Row | Exception) -> Granted | None:
        """The lease that was asked for, None if it was not to be had."""
        state = None if isinstance(outcome, Exception) else outcome.state
        if not isinstance(state, Leased) or not isinstance(ask.intent, Lease) or state.lease_id != ask.intent.lease_id:
            return None
        target = target_of(self._models.deployments, state.facts)
        params = deliverable[ask.command_id]
        return Granted(ask.command_id, state.facts, target, state.attempt, state.lease_id, state.expires_at, params)

    async def _deliverable(self, command_ids: Sequence[str]) -> dict[str, Deliverable]:
        """Which of these have params that can be delivered now. Those whose params are gone for good fail here."""
        rows = {command_id: row for command_id in command_ids if (row := self._models.status.get(command_id))}
        found = dict(zip(rows, await self._bodies.deliverable([*rows.values()]), strict=True))
        gone = [command_id for command_id, params in found.items() if isinstance(params, Missing) and params.gone]
        if gone:
            await self._turns.perform_each(
                [
                    Ask(command_id, rows[command_id].state.facts.route.deployment_id, LoseParams(), SERVICE)
                    for command_id in gone
                ]
            )
        return {command_id: params for command_id, params in found.items() if not isinstance(params, Missing)}

    def _lease_ask(self, command_id: str, request: LeaseRequest, by: Principal) -> Ask:
        resource_type = target_of(self._models.deployments, self._row(command_id).state.facts).resource_type or "worker"
        intent = Lease(
            lease_id=lease_id_of(uuid4()),
            seconds=request.lease_seconds,
            target_type=resource_type,
            agent=request.agent_id,
        )
        return Ask(command_id, request.deployment_id, intent, by)

    def _capped(self, request: LeaseRequest) -> LeaseRequest:
        """The request within its deployment's cap for first-generation receivers (`arc.v1` 4.8)."""
        declared = self._models.deployments.get(request.deployment_id).declared
        cap = None if declared is None or request.target is not None else declared.max_leases_without_target
        return request if cap is None or request.leases_max <= cap else replace(request, leases_max=cap)

    async def _may_lease(self, request: LeaseRequest, by: Principal) -> bool:
        """Whether the target can be leased from; fixes the type of a target that had none yet (`arc.v1` 4.6)."""
        target = request.target
        if len(request.deployment_id.encode()) > NAME_BYTES_MAX or not request.deployment_id:
            return False
        if target is None:
            return bool(self._queues(request))
        if target.resource_id == OPERATOR:
            return target.resource_type == "daemon"
        if not target.resource_id or ":" in target.resource_id or len(target.resource_id.encode()) > NAME_BYTES_MAX:
            return False
        deployment = self._models.deployments.get(request.deployment_id)
        if deployment.declared is not None:
            declared = deployment.declared_target(target.resource_id)
            return (
                declared is not None and declared.resource_type == target.resource_type and declared.delivery == "pull"
            )
        if target.resource_id not in deployment.observed and target.resource_type is not None:
            seen = TargetObserved(resource_id=target.resource_id, resource_type=target.resource_type)
            await self._turns.perform_deployment(request.deployment_id, seen, by)
            deployment = self._models.deployments.get(request.deployment_id)
        return deployment.observed.get(target.resource_id) == target.resource_type

    def _note_poll(self, request: LeaseRequest) -> None:
        now, agent = self._clock.now(), request.agent_id
        for queue in self._queues(request):
            self._peers.asked((request.deployment_id, queue), now, agent)
        if agent is not None:
            _remember(self._agent_polls, (request.deployment_id, agent), now)
        if request.target is not None:
            _remember(self._polls, (request.deployment_id, request.target.resource_id), Poll(now, agent))


def _remember(memory: OrderedDict[tuple[str, str], T], name: tuple[str, str], said: T) -> None:
    """Keep what was said last, and forget what was said longest ago if it is too much."""
    memory[name] = said
    memory.move_to_end(name)
    if len(memory) > POLLS_REMEMBERED_MAX:
        memory.popitem(last=False)


def _emptied(waiter: Waiter) -> list[str]:
    handed, waiter.handed = waiter.handed, []
    return handed
