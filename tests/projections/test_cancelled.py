"""Leases of cancelled commands."""

from __future__ import annotations

from arc_es.domain.events import CommandFailed, CommandLeased, LeaseRenewed
from arc_es.domain.leases import CancelledLease
from arc_es.domain.limits import SECOND
from projections import Projections
from tests.projections.world import T0, World, created, leased, succeeded

CANCELLED = CommandFailed(attempt=1, origin="cancel", code="CANCELLED", message="")
LEASE_END = T0 + 60 * SECOND


def held(lease_id: str, agent: str | None = "a-17", until: int = LEASE_END) -> CommandLeased:
    return CommandLeased(lease_id=lease_id, attempt=1, expires_at=until, target_type="worker", agent=agent)


def names(models: Projections, now: int = T0, deployment: str = "dep", agent: str = "a-17") -> list[str]:
    return [lease.lease_id for lease in models.cancelled.of_agent(deployment, agent, now)]


def test_the_lease_of_a_cancelled_command_is_known_until_it_would_have_ended() -> None:
    world = World()
    world.given("a", created())
    world.given("a", held("x"))
    world.given("a", LeaseRenewed(lease_id="x", expires_at=LEASE_END + 5))
    world.given("a", CANCELLED)
    cancelled = world.models.cancelled
    assert cancelled.get("x", LEASE_END + 4) == CancelledLease("x", "a", "dep", "a-17", LEASE_END + 5)
    assert cancelled.get("x", LEASE_END + 5) is None
    assert cancelled.get("y", T0) is None


def test_other_ends_and_commands_that_nobody_holds_are_not_in_it() -> None:
    world = World()
    for name, end in (("a", succeeded()), ("b", CommandFailed(attempt=1, origin="agent", code="C", message=""))):
        world.given(name, created())
        world.given(name, held(f"lease_{name}"))
        world.given(name, end)
    world.given("c", created())
    world.given("c", CANCELLED)
    assert names(world.models) == []
    assert world.models.cancelled.dump() == []


def test_an_agent_sees_its_own_of_its_deployment_in_the_order_of_the_cancellations() -> None:
    world = World()
    for name, agent, deployment in (("a", "a-17", "dep"), ("b", "b", "dep"), ("c", "a-17", "dep"), ("d", "a-17", "z")):
        world.given(name, created(deployment_id=deployment))
        world.given(name, held(f"lease_{name}", agent))
    world.given("e", created())
    world.given("e", leased("lease_e"))
    for name in "cdbae":
        world.given(name, CANCELLED)
    assert names(world.models) == ["lease_c", "lease_a"]
    assert names(world.models, agent="b") == ["lease_b"]
    assert names(world.models, deployment="z") == ["lease_d"]
    assert names(world.models, LEASE_END) == []


def test_what_has_passed_is_forgotten_with_the_next_decision() -> None:
    world = World()
    for number in range(50):
        world.given(f"c{number}", created())
        world.given(f"c{number}", held(f"l{number}", until=T0 + number + 1))
        world.given(f"c{number}", CANCELLED)
    world.given("later", created(), at=T0 + 49)
    cancelled = world.models.cancelled
    assert [lease[0] for lease in cancelled.dump()] == ["l49"]
    world.given("last", created(), at=T0 + 50)
    assert (cancelled.dump(), cancelled._of_agents, cancelled._ends) == ([], {}, [])


def test_whoever_reaches_holders_is_told_once() -> None:
    world = World()
    told: list[CancelledLease] = []
    world.models.on_cancelled = told.append
    world.given("a", created())
    world.given("a", held("x"))
    world.given("a", CANCELLED)
    assert [lease.lease_id for lease in told] == ["x"]
