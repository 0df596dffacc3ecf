"""Whatever is paused, limited, taken, held and ended: a take gets the best of what is open."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arc_es.domain.events import CommandFailed, ConcurrencyLimited, DeliveryPaused, DeliveryResumed
from projections import pending
from tests.projections.world import T0, World, created, leased, released

TARGETS = ("one", "two", "operator")
MANY = 1_000
cancelled = CommandFailed(attempt=1, origin="cancel", code="CANCELLED", message="")


class Room:
    """One deployment with commands of a few targets, and what should be taken from it."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.world = World()
        self.queues = self.world.models.pending
        self.rank: dict[str, tuple[int, int]] = {}
        self.target: dict[str, str] = {}
        self.ready: set[str] = set()
        self.reserved: set[str] = set()
        self.held: set[str] = set()
        self.paused: set[str | None] = set()
        self.most: dict[str, int] = {}

    def draw(self, strategy: st.SearchStrategy[Any]) -> Any:
        return self.data.draw(strategy)

    def one_of(self, names: set[str]) -> str | None:
        return self.draw(st.sampled_from(sorted(names))) if names else None

    # --- what happens

    def create(self) -> None:
        for _ in range(self.draw(st.integers(1, 4))):
            name = f"cmd_{len(self.rank):03}"
            priority = self.draw(st.sampled_from([0, 0, 1, -1]))
            self.target[name] = self.draw(st.sampled_from(TARGETS))
            self.rank[name] = (-priority, len(self.rank))
            self.told(self.world.given(name, created(target_id=self.target[name], priority=priority)), {name})
            self.ready.add(name)

    def take(self) -> None:
        wanted, count = self.draw(st.sampled_from([None, None, *TARGETS])), self.draw(st.sampled_from([1, 2, MANY]))
        expected = self.takes(wanted, count)
        assert expected == self.queues.take("dep", wanted, count, T0)
        self.reserved.update(expected)

    def give_back(self) -> None:
        names = [name for name in (self.one_of(self.reserved), self.one_of(self.reserved)) if name is not None]
        self.queues.give_back(names)
        self.reserved.difference_update(names)

    def lease(self) -> None:
        name = self.one_of(self.reserved) or self.one_of(self.ready)
        if name is not None:
            is_excess = self.held_by_log(self.target[name]) >= self.limit(self.target[name])
            assert self.world.given(name, leased(lease_id=name)) is None
            assert is_excess == self.queues.is_excess(name)
            self.ready.discard(name)
            self.reserved.discard(name)
            self.held.add(name)

    def release(self) -> None:
        name = self.one_of(self.held)
        if name is not None:
            attempt = self.world.states[name].attempt  # type: ignore[union-attr]  # it is held
            self.held.discard(name)
            self.ready.add(name)
            assert self.world.given(name, released(lease_id=name, attempt=attempt)) == name
            assert not self.queues.is_excess(name)

    def cancel(self) -> None:
        name = self.one_of(self.held | self.ready)
        if name is not None:
            told = self.world.given(name, cancelled)
            for names in (self.held, self.ready, self.reserved):
                names.discard(name)
            target = self.target[name]
            self.told(told, set(self.takes(target, 1)) if target in self.most else set())

    def told(self, told: str | None, expected: set[str]) -> None:
        """Whoever waits is told of a command that may be taken now."""
        assert (set() if told is None else {told}) == expected

    def control(self) -> None:
        target = self.draw(st.sampled_from(TARGETS))
        name = self.draw(st.sampled_from([target, target, None]))
        match self.draw(st.sampled_from([0, 1, 1, 2])):
            case 0:
                self.paused.add(name)
                self.world.ask_deployment("dep", DeliveryPaused(target_id=name))
            case 1:
                self.paused.discard(name)
                self.world.ask_deployment("dep", DeliveryResumed(target_id=name))
            case _:
                most = self.draw(st.sampled_from([1, 2, None]))
                self.world.ask_deployment("dep", ConcurrencyLimited(target_id=target, leases_max=most))
                self.most.pop(target, None)
                if most is not None:
                    self.most[target] = most

    # --- what should be

    def limit(self, target: str) -> int:
        return 0 if {target, None} & self.paused else self.most.get(target, MANY)

    def held_by_log(self, target: str) -> int:
        return sum(self.target[name] == target for name in self.held)

    def takes(self, wanted: str | None, count: int) -> list[str]:
        used = {target: self.held_by_log(target) for target in TARGETS}
        for name in self.reserved:
            used[self.target[name]] += 1
        taken: list[str] = []
        for name in sorted(self.ready - self.reserved, key=self.rank.__getitem__):
            target = self.target[name]
            is_wanted = target == wanted if wanted is not None else target != "operator"
            if is_wanted and used[target] < self.limit(target) and len(taken) < count:
                used[target] += 1
                taken.append(name)
        return taken


# --- what was met while its target was closed comes back in its order


def take(world: World, count: int = MANY, target: str | None = None) -> list[str]:
    return world.models.pending.take("dep", target, count, T0)


def met_while_paused(**priorities: int) -> World:
    """Commands of one target that a take of the whole deployment met while it was paused; now it is open."""
    world = World()
    for name, priority in priorities.items():
        world.given(name, created(priority=priority))
    world.ask_deployment("dep", DeliveryPaused(target_id="indexer"))
    assert take(world) == []
    world.ask_deployment("dep", DeliveryResumed(target_id="indexer"))
    return world


def test_one_after_the_other() -> None:
    world = met_while_paused(a=0, b=1, c=0)
    assert [*take(world, 1), *take(world, 1), *take(world, 1), *take(world, 1)] == ["b", "a", "c"]


def test_the_next_one_comes_when_the_best_leaves() -> None:
    world = met_while_paused(a=0, b=0, c=0)
    world.given("a", cancelled)
    assert take(world, 1) == ["b"]
    world.given("b", leased())
    assert take(world, target="indexer") == ["c"]


def test_the_next_one_comes_when_the_best_is_taken_by_name() -> None:
    world = met_while_paused(a=0, b=0, c=0)
    assert take(world, 1, "indexer") == ["a"]
    assert take(world) == ["b", "c"]


def test_the_best_comes_first_when_something_is_given_back() -> None:
    world = World()
    world.ask_deployment("dep", ConcurrencyLimited(target_id="indexer", leases_max=1))
    world.given("a", created())
    assert take(world) == ["a"]
    world.given("b", created(priority=1))
    assert take(world) == []
    world.models.pending.give_back(["a"])
    assert take(world) == ["b"]
    world.given("b", leased())
    assert take(world) == []
    assert world.given("b", cancelled) == "a"
    assert take(world) == ["a"]


def test_what_comes_back_does_not_hide_what_was_met() -> None:
    world = met_while_paused(a=0, b=1)
    world.given("c", created())
    world.given("c", leased())
    world.given("c", released())
    assert take(world) == ["b", "a", "c"]


def test_what_was_met_goes_before_what_is_released() -> None:
    world = World()
    world.ask_deployment("dep", ConcurrencyLimited(target_id="indexer", leases_max=1))
    world.given("a", created())
    world.given("a", leased())
    world.given("b", created(priority=1))
    assert take(world) == []
    assert world.given("a", released()) == "a"
    assert take(world) == ["b"]


def test_what_is_closed_does_not_use_up_what_may_be_passed_over() -> None:
    world = World()
    for number in range(pending.PASSED_MAX + 1):
        world.given(f"closed_{number}", created(target_id="one"))
    world.given("a", created(target_id="two"))
    world.ask_deployment("dep", DeliveryPaused(target_id="one"))
    assert world.models.pending.take("dep", None, 1, T0, lambda row: row.command_id == "a") == ["a"]


# --- any order


ACTS = (Room.create, Room.take, Room.take, Room.give_back, Room.lease, Room.release, Room.cancel, Room.control)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.lists(st.sampled_from(ACTS), min_size=10, max_size=50))
@pytest.mark.parametrize("slack", [0, 64])
def test_a_take_gets_the_best_of_what_is_open(slack: int, data: st.DataObject, acts: list[Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pending, "_SLACK", slack)
        room = Room(data)
        room.create()
        for act in acts:
            act(room)
            for target in TARGETS:
                used = room.held_by_log(target) + sum(room.target[name] == target for name in room.reserved)
                there = any(room.target[name] == target for name in room.rank)
                assert room.queues.is_open("dep", target) == (not there or used < room.limit(target))
        for name in sorted(room.reserved):
            room.queues.give_back([name])
        room.reserved.clear()
        assert room.takes(None, MANY) == room.queues.take("dep", None, MANY, T0)
