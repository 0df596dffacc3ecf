"""Whatever `decide` lets happen to several commands: the projections equal naive models, and a replay equals them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arc_es.domain.deployments import DeploymentIntent
from arc_es.domain.events import (
    Body,
    ConcurrencyLimited,
    DeclaredTarget,
    DeliveryPaused,
    DeliveryResumed,
    DeploymentDeclared,
    TargetObserved,
)
from arc_es.domain.ids import Delivery, Micros, Target
from arc_es.domain.intents import Cancel, Create, Intent, Release, Renew, RespondSuccess
from arc_es.domain.limits import IDEMPOTENCY_WINDOW, SECOND
from arc_es.domain.state import PUBLIC_STATE, Dispatched, Failed, Leased, Pending, State, next_due
from projections import Projections, due, pending
from projections.pending import PendingProjection
from tests.domain.strategies import LEASE_IDS, PAUSES, intents
from tests.projections.world import World

DEPLOYMENTS = ("dep_a", "dep_b")
TARGETS = ("one", "two", "operator")
DELIVERIES: tuple[Delivery, ...] = ("pull", "push")
COMMANDS = ("report/build", "reboot")
COMMAND_IDS = tuple(f"cmd_{n}" for n in range(5))
FAR = 2**60
ALL = 1_000

# --- naive models: everything is computed anew from the states, by sorting


class Naive:
    """What the projections should say, given a world and what was reserved and taken from it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.params_at: dict[str, int] = {}
        self.reserved: set[str] = set()
        self.taken: set[str] = set()
        self.creates: list[tuple[tuple[str, str, str, str | None], str]] = []
        self.excess: set[str] = set()
        self.paused: set[tuple[str, str | None]] = set()
        self.leases_max: dict[tuple[str, str], int] = {}
        self.cancelled: dict[str, tuple[str, Micros]] = {}

    def follow(self, command_id: str, before: State | None) -> None:
        """Something was stored for this command."""
        facts = self.world.states[command_id].facts
        if before is None:
            route, key = facts.route, facts.options.idempotency_key
            self.creates.append(((route.deployment_id, route.target_id, route.command, key), command_id))
        after = self.world.states[command_id]
        if isinstance(before, Leased) and isinstance(after, Failed) and after.origin == "cancel":
            self.cancelled[before.lease_id] = (command_id, before.expires_at)
        if command_id not in self.params_at and facts.params_place is not None:
            self.params_at[command_id] = self.world.versions[command_id]
        self.reserved.discard(command_id)
        self.taken.discard(command_id)
        self._follow_grant(command_id, before)

    def waiting(self, delivery: Delivery) -> list[tuple[str, Pending]]:
        """Commands of one kind of delivery in state Pending, best first."""
        found = [
            (command_id, state)
            for command_id, state in self.world.states.items()
            if isinstance(state, Pending) and state.facts.route.delivery == delivery
        ]
        return sorted(found, key=lambda item: (-item[1].facts.options.priority, self.params_at[item[0]]))

    def _follow_grant(self, command_id: str, before: State | None) -> None:
        after = self.world.states[command_id]
        if not isinstance(after, Leased | Dispatched):
            self.excess.discard(command_id)
        elif isinstance(before, Pending):
            name = _queue_of(after)
            held = self.held(after.facts.route.delivery, name) - 1
            if self.is_paused(name) or held >= self.leases_max.get(name, ALL):
                self.excess.add(command_id)

    def is_paused(self, name: tuple[str, str]) -> bool:
        return name in self.paused or (name[0], None) in self.paused

    def held(self, delivery: Delivery, name: tuple[str, str]) -> int:
        kind = Leased if delivery == "pull" else Dispatched
        return sum(1 for state in self.world.states.values() if isinstance(state, kind) and _queue_of(state) == name)

    def room(self, delivery: Delivery, name: tuple[str, str]) -> int:
        """How many may be taken of a target."""
        states = self.world.states
        reserved = [one for one in self.reserved if states[one].facts.route.delivery == delivery]
        mine = sum(1 for one in reserved if _queue_of(states[one]) == name)
        return 0 if self.is_paused(name) else max(0, self.leases_max.get(name, ALL) - self.held(delivery, name) - mine)

    def takes(self, delivery: Delivery, deployment_id: str, target_id: str | None, count: int) -> list[str]:
        """What a take gets now: the best first, of targets that have room."""
        rooms: dict[tuple[str, str], int] = {}
        taken: list[str] = []
        for command_id in self.offered(delivery, deployment_id, target_id):
            name = _queue_of(self.world.states[command_id])
            left = rooms.setdefault(name, self.room(delivery, name))
            if left and len(taken) < count:
                rooms[name] = left - 1
                taken.append(command_id)
        return taken

    def offered(self, delivery: Delivery, deployment_id: str, target_id: str | None) -> list[str]:
        """What a take of everything would get now, if no target was paused or full."""
        return [
            command_id
            for command_id, state in self.waiting(delivery)
            if state.facts.route.deployment_id == deployment_id
            and command_id not in self.reserved
            and not self.rests(state)
            and (state.facts.route.target_id == target_id if target_id else state.facts.route.target_id != "operator")
        ]

    def rests(self, state: Pending) -> bool:
        return state.available_at is not None and state.available_at > self.world.now

    def due(self) -> list[tuple[Micros, str]]:
        """Everything that is due some day, the earliest first."""
        armed = [(next_due(state), name) for name, state in self.world.states.items() if name not in self.taken]
        return sorted((at, name) for at, name in armed if at is not None)

    def holder(self, scope: tuple[str, str, str, str | None], newest_at: Micros) -> str | None:
        """The newest command with this key whose window is not over."""
        found = [name for known, name in self.creates if known == scope]
        if not found:
            return None
        facts = self.world.states[found[-1]].facts
        if facts.options.is_erased:  # the key with it
            return None
        created_at = facts.created_at
        return found[-1] if newest_at < created_at + IDEMPOTENCY_WINDOW else None


# --- what may happen

answers = st.builds(Body, place=st.just("event"), size=st.just(3), sha256=st.just("1" * 64))


@st.composite
def creates(draw: st.DrawFn, now: Micros) -> Create:
    """A create that is accepted at `now`."""
    uploads = draw(st.integers(0, 4)) == 0
    target = draw(st.sampled_from(TARGETS))
    delivery: Delivery = "push" if target != "operator" and draw(st.integers(0, 2)) == 0 else "pull"
    return Create(
        deployment_id=draw(st.sampled_from(DEPLOYMENTS)),
        command=draw(st.sampled_from(COMMANDS)),
        target=Target(target),
        delivery=delivery,
        params=None if uploads else draw(answers),
        deadline=draw(st.sampled_from([None, None, now + 1, now + 2 * SECOND, now + 90 * SECOND])),
        idempotency_key=draw(st.sampled_from([None, "key_1", "key_2"])),
        params_digest="d" * 64,
        max_attempts=draw(st.sampled_from([1, 3, 20])),
        priority=draw(st.sampled_from([0, 0, 0, -100, -1, 1, 100])),
        not_before=draw(st.sampled_from([None, None, now, now + 1, now + SECOND])),
    )


declarations: st.SearchStrategy[DeploymentIntent] = st.one_of(
    st.builds(TargetObserved, resource_id=st.sampled_from(TARGETS), resource_type=st.just("container")),
    st.builds(
        DeploymentDeclared,
        model=st.just("pull"),
        targets=st.sampled_from([(), (DeclaredTarget(resource_id="one", resource_type="worker"),)]),
    ),
)


class Run:
    """One random run; every method draws, acts on the projections and compares with the naive model."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.world = World()
        self.naive = Naive(self.world)
        self.newest_at: Micros = 0

    def draw(self, strategy: st.SearchStrategy[Any]) -> Any:
        return self.data.draw(strategy)

    def ask(self) -> None:
        command_id = self.draw(st.sampled_from(COMMAND_IDS))
        before = self.world.states.get(command_id)
        intent: Intent = self.draw(creates(self.world.now) if before is None else intents)
        if self._lease_id_in_use(intent):
            return
        if self.world.ask(command_id, intent):
            self.newest_at = self.world.now
            self.naive.follow(command_id, before)

    def _lease_id_in_use(self, intent: Intent) -> bool:
        """The service makes a new id for every lease; the pool of ids here is small on purpose."""
        wanted = getattr(intent, "lease_id", None)
        return wanted in self.naive.cancelled or any(
            isinstance(state, Leased) and state.lease_id == wanted for state in self.world.states.values()
        )

    def end_lease(self) -> None:
        command_id = self.draw(st.sampled_from(COMMAND_IDS))
        before = self.world.states.get(command_id)
        if isinstance(before, Leased) and self.world.ask(command_id, self.draw(intents_of(before.lease_id))):
            self.newest_at = self.world.now
            self.naive.follow(command_id, before)

    def declare(self) -> None:
        self.world.ask_deployment(self.draw(st.sampled_from(DEPLOYMENTS)), self.draw(declarations))

    def control(self) -> None:
        deployment_id, target_id = self.draw(st.sampled_from(DEPLOYMENTS)), self.draw(st.sampled_from(TARGETS))
        name = (deployment_id, self.draw(st.sampled_from([target_id, target_id, None])))
        is_known = self._is_known((deployment_id, target_id))
        what = self.draw(st.sampled_from(["pause", "resume", "limit"]))
        if what == "resume":
            self.world.ask_deployment(deployment_id, DeliveryResumed(target_id=name[1]))
            self.naive.paused.discard(name)
        elif what == "pause" and (is_known or name[1] is None):
            self.world.ask_deployment(deployment_id, DeliveryPaused(target_id=name[1]))
            self.naive.paused.add(name)
        elif what == "limit" and is_known:
            most = self.draw(st.sampled_from([1, 1, 2, None]))
            self.world.ask_deployment(deployment_id, ConcurrencyLimited(target_id=target_id, leases_max=most))
            self.naive.leases_max[deployment_id, target_id] = most or ALL

    def _is_known(self, name: tuple[str, str]) -> bool:
        deployment = self.world.models.deployments.get(name[0])
        is_open = deployment.declared is None or name[1] == "operator"
        return is_open or deployment.declared_target(name[1]) is not None

    def take(self) -> None:
        deployment_id = self.draw(st.sampled_from(DEPLOYMENTS))
        target_id = self.draw(st.sampled_from([None, *TARGETS]))
        count = self.draw(st.sampled_from([1, 2, ALL]))
        delivery = self.draw(st.sampled_from(DELIVERIES))
        expected = self.naive.takes(delivery, deployment_id, target_id, count)
        assert expected == queue_of(self.world.models, delivery).take(deployment_id, target_id, count, self.world.now)
        self.naive.reserved.update(expected)

    def give_back(self) -> None:
        command_ids = self.draw(st.lists(st.sampled_from(COMMAND_IDS), max_size=3))
        for delivery in DELIVERIES:
            queue_of(self.world.models, delivery).give_back(command_ids)
        self.naive.reserved.difference_update(command_ids)

    def take_due(self) -> None:
        count = self.draw(st.sampled_from([1, ALL]))
        expected = [name for at, name in self.naive.due() if at <= self.world.now][:count]
        assert expected == self.world.models.due.take_due(self.world.now, count)
        self.naive.taken.update(expected)

    def put_back(self) -> None:
        command_ids = self.draw(st.lists(st.sampled_from(COMMAND_IDS), max_size=3))
        self.world.models.due.put_back(command_ids)
        self.naive.taken.difference_update(command_ids)

    def check(self) -> None:
        """What can be asked without changing anything."""
        models, states = self.world.models, self.world.states
        assert states == {name: row.state for name in states if (row := models.status.get(name)) is not None}
        held = {state.lease_id: name for name, state in states.items() if isinstance(state, Leased)}
        assert held == {lease: name for lease in LEASE_IDS if (name := models.status.holder_of(lease))}
        assert next((at for at, _ in self.naive.due()), None) == models.due.next_at()
        told = {name: one for name in LEASE_IDS if (one := models.cancelled.get(name, self.world.now)) is not None}
        expected_cancelled = {name: one for name, one in self.naive.cancelled.items() if one[1] > self.world.now}
        assert expected_cancelled == {name: (one.command_id, one.expires_at) for name, one in told.items()}
        for delivery in DELIVERIES:
            self._check_rests(delivery)
            self._check_queues(delivery)
        for scope in {scope for scope, _ in self.naive.creates}:
            deployment_id, target_id, command, key = scope
            if key is not None:
                expected = self.naive.holder(scope, self.newest_at)
                assert expected == models.idempotency.holder(deployment_id, target_id, command, key)
        by_state = dict.fromkeys(PUBLIC_STATE.values(), 0)
        for state in states.values():
            by_state[PUBLIC_STATE[type(state)]] += 1
        assert by_state == models.stats.by_state()

    def _check_rests(self, delivery: Delivery) -> None:
        queue = queue_of(self.world.models, delivery)
        queue.wake_delayed(self.world.now)
        rests = [state.available_at for _, state in self.naive.waiting(delivery) if self.naive.rests(state)]
        assert min((at for at in rests if at is not None), default=None) == queue.next_available_at()

    def _check_queues(self, delivery: Delivery) -> None:
        kind = Leased if delivery == "pull" else Dispatched
        for queue in queue_of(self.world.models, delivery).queues(self.world.now):
            name = (queue.deployment_id, queue.target_id)
            here = {id_: state for id_, state in self.naive.waiting(delivery) if _queue_of(state) == name}
            ready = {id_ for id_, state in here.items() if not self.naive.rests(state)}
            held = [s for s in self.world.states.values() if isinstance(s, kind) and _queue_of(s) == name]
            counts = (queue.pending, queue.delayed, queue.leased)
            assert (len(ready), len(here) - len(ready), len(held)) == counts
            assert self.naive.is_paused(name) == queue.paused
            assert self.naive.leases_max.get(name, ALL) == (queue.leases_max or ALL)
            is_open = queue_of(self.world.models, delivery).is_open(*name)
            assert is_open == (self.naive.room(delivery, name) > 0)
            oldest = min(ready, key=self.naive.params_at.__getitem__, default=None)
            expected = None if oldest is None else self.world.states[oldest].facts.created_at
            assert expected == queue.oldest_pending_at
        excess = {one for one in self.naive.excess if self.world.states[one].facts.route.delivery == delivery}
        models = queue_of(self.world.models, delivery)
        assert excess == {name for name in self.world.states if models.is_excess(name)}


def queue_of(models: Projections, delivery: Delivery) -> PendingProjection:
    return models.pending if delivery == "pull" else models.pushes


def _queue_of(state: State) -> tuple[str, str]:
    return state.facts.route.deployment_id, state.facts.route.target_id


def intents_of(lease_id: str) -> st.SearchStrategy[Intent]:
    """What the holder of this lease may ask."""
    return st.one_of(
        st.builds(Renew, lease_id=st.just(lease_id), seconds=st.sampled_from([1, 2, 60])),
        st.builds(Release, lease_id=st.just(lease_id), delay=st.sampled_from([0, 0, 1, SECOND])),
        st.builds(RespondSuccess, response=answers),
        st.builds(Cancel, reason=st.just("")),
    )


def queued(queue: PendingProjection, now: Micros) -> list[Any]:
    """Everything that can be asked of one kind of queues; takes everything out of them on the way."""
    queue.give_back(COMMAND_IDS)
    queue.wake_delayed(now)
    told: list[Any] = [queue.next_available_at(), queue.queues(now)]
    for deployment in DEPLOYMENTS:
        for target in (None, *TARGETS):
            taken = queue.take(deployment, target, ALL, now)
            queue.give_back(taken)
            told.append((deployment, target, taken))
    return [*told, *(queue.take(deployment, None, ALL, FAR) for deployment in DEPLOYMENTS)]


def contents(models: Projections, now: Micros) -> dict[str, Any]:
    """Everything that can be asked of projections; takes everything out of the queues on the way."""
    deployments = models.deployments
    models.due.put_back(COMMAND_IDS)
    told: dict[str, Any] = {delivery: queued(queue_of(models, delivery), now) for delivery in DELIVERIES}
    for name in COMMAND_IDS:
        row = models.status.get(name)
        told[name] = row and (row.command_id, row.state, row.version, row.params_at, row.answer_at)
    told["held"] = [models.status.holder_of(lease) for lease in LEASE_IDS]
    for deployment in DEPLOYMENTS:
        keys = [(t, c, k) for t in TARGETS for c in COMMANDS for k in ("key_1", "key_2")]
        told[f"keys {deployment}"] = [models.idempotency.holder(deployment, *key) for key in keys]
        told[f"types {deployment}"] = [deployments.type_of(deployment, target) for target in TARGETS]
        told[f"targets {deployment}"] = list(deployments.known_targets(deployment))
        told[f"deployment {deployment}"] = (deployments.get(deployment), deployments.version(deployment))
    told["cancelled"] = models.cancelled.dump()
    told["due"] = models.due.take_due(FAR, ALL)
    told["keys"] = len(models.idempotency)
    told["declared"] = deployments.declared()
    told["stats"] = (models.stats.messages, models.stats.events, models.stats.by_state(), len(models.status))
    return told


ACTS = (
    (Run.ask,) * 6
    + (Run.end_lease, Run.take, Run.control) * 2
    + (Run.give_back, Run.declare, Run.take_due, Run.put_back)
)
steps = st.lists(st.tuples(st.sampled_from(ACTS), st.sampled_from((0,) * 12 + PAUSES)), min_size=15, max_size=60)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
@pytest.mark.parametrize("slack", [0, 64])
def test_projections_equal_naive_models_at_every_step_and_a_replay_at_the_end(slack: int, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for module in (pending, due):
            patch.setattr(module, "_SLACK", slack)  # with 0, heaps this small are compacted all the time
        run = Run(data)
        for act, pause in data.draw(steps):
            run.world.now += pause
            act(run)
            run.check()
        world = run.world
        assert contents(world.replayed(), world.now) == contents(world.models, world.now)
