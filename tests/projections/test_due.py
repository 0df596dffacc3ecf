"""What `due` says about time."""

from __future__ import annotations

from arc_es.domain.events import LeaseRenewed
from arc_es.domain.limits import SECOND
from tests.projections.world import T0, World, created, leased, succeeded


def world_with_deadlines(**deadlines: int) -> World:
    world = World()
    for command_id, deadline in deadlines.items():
        world.given(command_id, created(deadline=T0 + deadline))
    return world


def test_nothing_is_due_without_deadlines_and_leases() -> None:
    world = World()
    world.given("a", created())
    assert world.models.due.next_at() is None
    assert world.models.due.take_due(T0 * 2, 10) == []


def test_the_earliest_comes_first_and_not_before_its_time() -> None:
    due = world_with_deadlines(a=30, b=10, c=20).models.due
    assert due.next_at() == T0 + 11
    assert due.take_due(T0 + 10, 10) == []
    assert due.take_due(T0 + 21, 10) == ["b", "c"]
    assert due.next_at() == T0 + 31


def test_no_more_than_asked_for_are_taken() -> None:
    due = world_with_deadlines(a=1, b=2, c=3).models.due
    assert due.take_due(T0 + SECOND, 2) == ["a", "b"]
    assert due.take_due(T0 + SECOND, 2) == ["c"]


def test_a_renewed_lease_is_due_at_its_new_end_only() -> None:
    world = World()
    world.given("a", created())
    world.given("a", leased("x", until=T0 + 10))
    world.given("a", LeaseRenewed(lease_id="x", expires_at=T0 + 20))
    assert world.models.due.take_due(T0 + 19, 10) == []
    assert world.models.due.take_due(T0 + 20, 10) == ["a"]


def test_an_ended_command_is_never_due() -> None:
    world = world_with_deadlines(a=10)
    world.given("a", leased())
    world.given("a", succeeded())
    assert world.models.due.next_at() is None


def test_what_is_put_back_is_due_again_once() -> None:
    due = world_with_deadlines(a=1, b=2).models.due
    taken = due.take_due(T0 + SECOND, 1)
    due.put_back(taken)
    due.put_back(taken)
    assert due.take_due(T0 + SECOND, 10) == ["a", "b"]


def test_what_an_event_changed_meanwhile_is_not_put_back() -> None:
    world = world_with_deadlines(a=1)
    taken = world.models.due.take_due(T0 + SECOND, 1)
    world.given("a", leased(until=T0 + 1))
    assert world.models.due.next_at() == T0 + 1
    world.models.due.put_back(taken)
    assert world.models.due.take_due(T0 + SECOND, 10) == ["a"]
    assert world.models.due.next_at() is None


def test_renewals_leave_nothing_behind() -> None:
    world = World()
    world.given("a", created())
    world.given("a", leased("x"))
    for n in range(1, 1_000):
        world.given("a", LeaseRenewed(lease_id="x", expires_at=T0 + n * SECOND))
    assert len(world.models.due._heap) < 100
