"""What `pending` and `pushes` offer, to whom, in which order."""

from __future__ import annotations

from arc_es.domain.events import CommandDispatched, LeaseExpired, UploadCompleted
from arc_es.domain.limits import SECOND
from arc_es.domain.queues import QueueCounts
from tests.projections.world import T0, World, body, created, leased, released, succeeded


def take(world: World, target: str | None = None, count: int = 10, now: int = T0) -> list[str]:
    return world.models.pending.take("dep", target, count, now)


def world_of(**priorities: int) -> World:
    """Commands created in this order, each with its priority."""
    world = World()
    for command_id, priority in priorities.items():
        world.given(command_id, created(priority=priority))
    return world


def test_the_oldest_comes_first() -> None:
    assert take(world_of(a=0, b=0, c=0), count=2) == ["a", "b"]


def test_a_higher_priority_goes_before_age() -> None:
    assert take(world_of(a=-100, b=0, c=100, d=0)) == ["c", "b", "d", "a"]


def test_a_taken_command_is_offered_to_nobody_else() -> None:
    world = world_of(a=0, b=0)
    assert take(world, count=1) == ["a"]
    assert take(world, "indexer") == ["b"]
    assert take(world) == []


def test_a_command_given_back_has_its_old_place() -> None:
    world = world_of(a=0, b=0, c=0)
    world.models.pending.give_back(take(world, count=2))
    assert take(world) == ["a", "b", "c"]


def test_giving_back_what_was_never_taken_changes_nothing() -> None:
    world = world_of(a=0)
    world.models.pending.give_back(["a", "a", "nobody"])
    assert take(world) == ["a"]


def test_a_released_command_has_its_old_place() -> None:
    world = world_of(a=0, b=0)
    world.given("a", leased())
    assert world.given("a", released()) == "a"
    assert take(world) == ["a", "b"]


def test_a_command_that_left_and_came_back_while_taken_is_offered_once() -> None:
    world = world_of(a=0, b=0)
    taken = take(world, count=1)
    world.given("a", leased())
    world.given("a", released())
    world.models.pending.give_back(taken)
    assert take(world) == ["a", "b"]


def test_a_leased_command_is_not_offered_when_it_is_given_back() -> None:
    world = world_of(a=0)
    taken = take(world)
    world.given("a", leased())
    world.models.pending.give_back(taken)
    assert take(world) == []


def test_a_target_gets_only_its_own_and_the_operator_only_when_asked_by_name() -> None:
    world = World()
    for command_id, target in (("a", "indexer"), ("b", "operator"), ("c", "other")):
        world.given(command_id, created(target_id=target))
    assert take(world, "other") == ["c"]
    assert take(world) == ["a"]
    assert take(world, "operator") == ["b"]
    assert world.models.pending.take("elsewhere", None, 1, T0) == []
    assert take(world, "nobody") == []


def test_uploads_are_never_offered() -> None:
    world = World()
    assert world.given("b", created(params=None, upload_until=T0 + 9)) is None
    assert take(world) == []
    assert world.given("b", UploadCompleted(params=body())) == "b"
    assert take(world) == ["b"]


def test_push_commands_wait_in_a_queue_of_their_own() -> None:
    world = World()
    pushes = world.models.pushes
    assert world.given("a", created(delivery="push")) == "a"
    assert world.given("b", created(delivery="push", priority=1)) == "b"
    assert world.given("c", created(delivery="push", not_before=T0 + 5)) is None
    assert take(world) == []
    assert pushes.take("dep", "indexer", 1, T0) == ["b"]
    world.given("b", CommandDispatched(lease_id="x", attempt=1, expires_at=T0 + 1))
    assert pushes.queues(T0) == [QueueCounts("dep", "indexer", 1, 1, 1, T0)]
    assert world.given("b", LeaseExpired(lease_id="x", attempt=1)) == "b"
    assert pushes.wake_delayed(T0 + 5) == ["c"]
    assert pushes.take("dep", "indexer", 9, T0 + 5) == ["b", "a", "c"]
    assert (world.models.pending.queues(T0), world.models.pending.next_available_at()) == ([], None)


def test_a_resting_command_is_offered_when_its_time_has_come() -> None:
    world = World()
    assert world.given("a", created(not_before=T0 + 5)) is None
    pending = world.models.pending
    assert pending.next_available_at() == T0 + 5
    assert pending.wake_delayed(T0 + 4) == []
    assert pending.wake_delayed(T0 + 5) == ["a"]
    assert pending.wake_delayed(T0 + 5) == []
    assert pending.next_available_at() is None
    assert take(world, now=T0 + 5) == ["a"]


def test_the_end_of_a_rest_is_told_even_if_somebody_elses_take_saw_it_first() -> None:
    world = World()
    world.given("a", created(not_before=T0 + 5))
    assert take(world, "other", now=T0 + 6) == []
    assert world.models.pending.next_available_at() == T0 + 5
    assert world.models.pending.wake_delayed(T0 + 6) == ["a"]


def test_a_time_that_no_longer_counts_is_not_told() -> None:
    world = world_of(a=0)
    world.given("a", leased())
    world.given("a", released(available_at=T0 + 5))
    world.given("a", succeeded())
    assert world.models.pending.next_available_at() is None
    assert world.models.pending.wake_delayed(T0 + 9) == []


def test_a_rest_that_another_clock_saw_end_earlier_does_not_end_the_next_one() -> None:
    world = World()
    world.given("a", created(not_before=T0 + 5))
    world.given("a", leased())
    world.given("a", released(available_at=T0 + 9))
    assert world.models.pending.next_available_at() == T0 + 9
    assert take(world, now=T0 + 8) == []
    assert take(world, now=T0 + 9) == ["a"]


def test_a_rest_that_is_over_when_the_decision_is_made_is_no_rest() -> None:
    world = World()
    assert world.given("a", created(not_before=T0)) == "a"


def test_queues_count_what_waits_rests_and_is_held() -> None:
    world = World()
    world.given("a", created(priority=-1), at=T0)
    world.given("b", created(priority=1), at=T0 + 1)
    world.given("c", created(not_before=T0 + SECOND), at=T0 + 2)
    world.given("d", created(), at=T0 + 3)
    world.given("d", leased())
    take(world, count=1)
    queues = world.models.pending.queues
    assert queues(T0 + 3) == [QueueCounts("dep", "indexer", 2, 1, 1, T0)]
    world.given("a", succeeded())
    assert queues(T0 + SECOND) == [QueueCounts("dep", "indexer", 2, 0, 1, T0 + 1)]
    for command_id in "bcd":
        world.given(command_id, succeeded())
    assert queues(T0 + SECOND) == [QueueCounts("dep", "indexer", 0, 0, 0, None)]


def test_commands_that_come_and_go_leave_nothing_behind() -> None:
    world = world_of(a=5)
    pending = world.models.pending
    for attempt in range(1, 1_000):
        taken = take(world, "indexer")
        pending.give_back(taken)
        world.given("a", leased(attempt=attempt))
        world.given("a", released(attempt=attempt, available_at=T0 + SECOND if attempt % 2 else None))
    deployment = pending._deployments["dep"]
    target = deployment.targets["indexer"]
    assert max(map(len, (deployment.ranks, target.ranks, target.places))) < 100
    assert len(pending._alarms) < 100
