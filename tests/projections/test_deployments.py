"""What `deployments` knows of deployments and their targets."""

from __future__ import annotations

import pytest

from arc_es.domain.deployments import NO_DEPLOYMENT
from arc_es.domain.errors import ImpossibleHistory
from arc_es.domain.events import DeclaredTarget, DeploymentDeclared, TargetObserved
from arc_es.domain.ids import ResourceType
from arc_es.domain.limits import TARGETS_PER_DEPLOYMENT_MAX
from arc_es.domain.recorded import DeploymentKey, Recorded
from tests.projections.world import T0, World, created


def declared(**types: ResourceType) -> DeploymentDeclared:
    targets = [DeclaredTarget(resource_id=name, resource_type=kind) for name, kind in types.items()]
    return DeploymentDeclared(model="pull", targets=tuple(targets))


def test_nothing_is_known_of_a_deployment_that_nobody_used() -> None:
    deployments = World().models.deployments
    assert deployments.get("dep") is NO_DEPLOYMENT
    assert deployments.version("dep") == 0
    assert list(deployments.known_targets("dep")) == []
    assert deployments.type_of("dep", "indexer") is None
    assert deployments.declared() == []


def test_a_declaration_replaces_the_one_before() -> None:
    world = World()
    world.given_deployment("dep", declared(a="worker", b="daemon"))
    world.given_deployment("dep", declared(a="container"))
    deployments = world.models.deployments
    assert deployments.get("dep").declared == declared(a="container")
    assert deployments.version("dep") == 9
    assert deployments.type_of("dep", "a") == "container"
    assert deployments.type_of("dep", "b") is None


def test_declared_deployments_are_told_in_order_of_name() -> None:
    world = World()
    for name in ("b", "a"):
        world.given_deployment(name, declared())
    world.given_deployment("c", TargetObserved(resource_id="x", resource_type="worker"))
    assert world.models.deployments.declared() == ["a", "b"]


def test_an_observed_type_holds_until_another_is_declared() -> None:
    world = World()
    for name in ("x", "y"):
        world.given_deployment("dep", TargetObserved(resource_id=name, resource_type="container"))
    assert world.models.deployments.type_of("dep", "x") == "container"
    world.given_deployment("dep", declared(x="daemon"))
    assert world.models.deployments.type_of("dep", "x") == "daemon"
    assert world.models.deployments.type_of("dep", "y") == "container"


def test_the_operator_is_a_daemon_everywhere() -> None:
    assert World().models.deployments.type_of("dep", "operator") == "daemon"


def test_creates_make_targets_known_while_nothing_is_declared() -> None:
    world = World()
    world.given("a", created(target_id="x"))
    world.given("b", created(target_id="y"))
    world.given("c", created(target_id="x"))
    world.given_deployment("dep", declared(z="worker"))
    world.given("d", created(target_id="z"))
    assert list(world.models.deployments.known_targets("dep")) == ["x", "y"]


def test_no_more_targets_become_known_than_the_limit() -> None:
    world = World()
    for n in range(TARGETS_PER_DEPLOYMENT_MAX + 1):
        world.given(f"c{n}", created(target_id=f"t{n}"))
    assert len(list(world.models.deployments.known_targets("dep"))) == TARGETS_PER_DEPLOYMENT_MAX


def test_a_decision_is_applied_once_and_holds_only_events_of_deployments() -> None:
    world = World()
    world.given_deployment("dep", declared())
    for position, event in ((7, declared(a="worker")), (8, created())):
        with pytest.raises(ImpossibleHistory):
            world.models.apply(Recorded(position, DeploymentKey("dep"), T0, (event,)))
    assert world.models.deployments.version("dep") == 7
