"""The waiting room: first come, first served; handed over, not announced; nobody counted twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_es.actors.waiters import Waiter, Waiters
from arc_es.ports import Overloaded
from tests.domain.story import created
from tests.http.driver import Clock
from tests.projections.world import World


class Room:
    """A waiting room over a world of commands of target indexer."""

    def __init__(self, waiters_max: int = 100) -> None:
        self.world = World()
        self.waiters = Waiters(self.world.models.pending, self.world.models.status, Clock(), waiters_max)
        self.commands = 0

    def join(self, *targets: str | None) -> Waiter:
        return self.waiters.join("dep", *(targets or ("indexer",)))

    def create(self, target: str = "indexer") -> str:
        """A new command, offered as the follower does it."""
        self.commands += 1
        command_id = f"cmd_{self.commands}"
        assert self.world.given(command_id, created(target_id=target)) == command_id
        self.waiters.offer(command_id)
        return command_id

    def left(self) -> list[str]:
        """What is still in the queue."""
        return self.world.models.pending.take("dep", None, 100, self.world.now)


def test_first_come_first_served_over_both_generations() -> None:
    room = Room()
    old, exact, newer = room.join(None), room.join(), room.join(None)
    assert [room.create(), room.create(), room.create()] == [*old.handed, *exact.handed, *newer.handed]
    assert all(waiter.woken.is_set() for waiter in (old, exact, newer))
    assert len(room.waiters) == 0


def test_one_command_wakes_one_waiter_and_is_reserved_for_it() -> None:
    room = Room()
    first, second = room.join(), room.join()
    command_id = room.create()
    assert (first.handed, second.handed) == ([command_id], [])
    assert not second.woken.is_set()
    assert room.left() == []


def test_other_targets_and_the_operator_wake_nobody() -> None:
    room = Room()
    exact, whole = room.join(), room.join(None)
    operator = room.create("operator")
    assert not exact.woken.is_set()
    assert not whole.woken.is_set()
    other = room.create("other")
    assert (exact.handed, whole.handed) == ([], [other])
    assert room.world.models.pending.take("dep", "operator", 9, room.world.now) == [operator]


def test_what_is_given_back_goes_to_the_next() -> None:
    room = Room()
    first, second = room.join(), room.join()
    command_id = room.create()
    room.waiters.give_back(first.handed)
    assert second.handed == [command_id]


def test_without_waiters_it_stays_in_the_queue() -> None:
    room = Room()
    room.waiters.leave(room.join())
    command_id = room.create()
    assert room.left() == [command_id]
    room.waiters.give_back([command_id])
    assert room.left() == [command_id]


def test_who_returns_has_the_old_place() -> None:
    room = Room()
    waiters = [room.join() for _ in range(4)]
    for waiter in (waiters[0], waiters[1], waiters[2]):
        room.waiters.leave(waiter)
    for waiter in (waiters[2], waiters[0], waiters[1]):
        room.waiters.rejoin(waiter)
    for waiter in waiters:
        assert waiter.handed == []
        assert [room.create()] == waiter.handed


def test_a_full_room_refuses() -> None:
    room = Room(2)
    first, _ = room.join(), room.join()
    with pytest.raises(Overloaded):
        room.join()
    room.waiters.leave(first)
    room.join()


def test_who_waits_for_nothing_is_counted_and_served_nothing() -> None:
    """A token of exact targets may lose them all while it asks: their types are settled by others."""
    room = Room()
    waiter = room.waiters.join("dep")
    room.create()
    room.waiters.leave(waiter)
    room.waiters.rejoin(waiter)
    assert (waiter.handed, len(room.waiters)) == ([], 1)
    room.waiters.leave(waiter)
    assert len(room.waiters) == 0


def test_how_many_wait_for_a_target() -> None:
    room = Room()
    room.join()
    room.join()
    room.join(None)
    assert room.waiters.waiting("dep", "indexer") == 2
    assert room.waiters.waiting("dep", "other") == 0


def test_who_waits_for_several_targets_is_one_waiter_in_one_place() -> None:
    room = Room()
    first, both, last = room.join("printer"), room.join("indexer", "printer"), room.join("printer", "mailer")
    assert len(room.waiters) == 3
    assert [room.waiters.waiting("dep", target) for target in ("indexer", "printer", "mailer")] == [1, 3, 1]
    assert [room.create("printer")] == first.handed
    room.waiters.leave(both)
    room.waiters.rejoin(both)
    assert [room.create("printer")] == both.handed
    assert [room.waiters.waiting("dep", target) for target in ("indexer", "printer", "mailer")] == [0, 1, 1]
    waiting = room.create("indexer")
    assert [room.create("mailer")] == last.handed
    assert len(room.waiters) == 0
    assert room.left() == [waiting]


STEPS = st.lists(
    st.sampled_from(["join", "join old", "join several", "leave", "rejoin", "create", "give back"]), max_size=40
)

JOINING: dict[str, tuple[str | None, ...]] = {
    "join": ("indexer",),
    "join old": (None,),
    "join several": ("other", "indexer"),
}


@given(STEPS, st.randoms(use_true_random=False))
def test_whatever_happens_the_room_counts_right_and_serves_the_oldest(steps: list[str], random: object) -> None:
    choose = random.choice  # type: ignore[attr-defined]
    room = Room()
    inside: dict[int, Waiter] = {}
    outside: list[Waiter] = []
    for step in steps:
        if step.startswith("join"):
            waiter = room.join(*JOINING[step])
            inside[waiter.ticket] = waiter
        elif step == "leave" and inside:
            waiter = inside.pop(choose(sorted(inside)))
            room.waiters.leave(waiter)
            outside.append(waiter)
        elif step == "rejoin" and outside:
            waiter = outside.pop(choose(range(len(outside))))
            room.waiters.rejoin(waiter)
            inside[waiter.ticket] = waiter
        elif step == "create":
            room.create()
        elif step == "give back" and outside:
            waiter = choose(outside)
            handed, waiter.handed = waiter.handed, []
            room.waiters.give_back(handed)
        woken = sorted((waiter for waiter in inside.values() if waiter.woken.is_set()), key=lambda one: one.ticket)
        for waiter in woken:  # several, if several were given back at once
            assert waiter.ticket == min(inside)
            outside.append(inside.pop(waiter.ticket))
        assert len(room.waiters) == len(inside)
