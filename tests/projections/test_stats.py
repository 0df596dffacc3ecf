"""What `stats` counts."""

from __future__ import annotations

from arc_es.domain.events import LeaseExpired, TargetObserved
from tests.projections.world import T0, World, created, leased, succeeded


def test_every_state_is_counted_even_if_no_command_is_in_it() -> None:
    world = World()
    assert set(world.models.stats.by_state().values()) == {0}
    world.given("a", created())
    world.given("b", created())
    world.given("b", leased())
    world.given("c", created(params=None, upload_until=T0 + 1))
    expected = {"PENDING_UPLOAD": 1, "PENDING": 1, "DISPATCHED": 1, "SUCCEEDED": 0, "FAILED": 0, "EXPIRED": 0}
    assert expected == world.models.stats.by_state()
    world.given("b", succeeded())
    assert expected | {"DISPATCHED": 0, "SUCCEEDED": 1} == world.models.stats.by_state()


def test_decisions_and_events_are_counted_apart() -> None:
    world = World()
    world.given("a", created())
    world.given("a", leased("x"))
    world.given("a", LeaseExpired(lease_id="x", attempt=1), leased("y", attempt=2))
    world.given_deployment("dep", TargetObserved(resource_id="x", resource_type="worker"))
    assert (world.models.stats.messages, world.models.stats.events) == (4, 5)
