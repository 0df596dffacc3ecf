"""Which target a command goes to (`arc.v1` 4.6), and what is known of a deployment."""

from __future__ import annotations

import pytest

from arc_es.domain.deployments import (
    NO_DEPLOYMENT,
    Deployment,
    decide_deployment,
    evolve_deployment,
    resolve_target,
)
from arc_es.domain.errors import NoTargets, Rejected, TargetAmbiguous, TargetIdInvalid, TargetNotFound
from arc_es.domain.events import DeclaredTarget, DeploymentDeclared, TargetObserved
from arc_es.domain.ids import ResourceType, Target
from arc_es.domain.limits import TARGETS_PER_DEPLOYMENT_MAX


def declared(*names: str) -> Deployment:
    targets = tuple(DeclaredTarget(resource_id=name, resource_type="container") for name in names)
    return Deployment(DeploymentDeclared(model="pull", targets=targets))


def observed(**types: ResourceType) -> Deployment:
    return Deployment(None, types)


@pytest.mark.parametrize(
    ("names", "requested", "expected"),
    [
        (("web", "db"), "operator", Target("operator", "daemon")),
        (("operator",), "operator", Target("operator", "daemon")),
        (("a:b",), "a:b", TargetIdInvalid),
        (("web",), ":", TargetIdInvalid),
        (("web",), "x" * 1025, TargetIdInvalid),
        (("web",), "é" * 513, TargetIdInvalid),
        (("web",), "", TargetNotFound),
        (("web",), "db", TargetNotFound),
        (("web",), "default", TargetNotFound),
        (("web", "db"), "db", Target("db", "container")),
        ((), None, NoTargets),
        (("operator",), None, NoTargets),
        (("web", "db"), None, TargetAmbiguous),
        (("web",), None, Target("web", "container")),
        (("web", "operator"), None, Target("web", "container")),
        (("default",), None, Target("default", "container")),
    ],
)
def test_a_declared_deployment_is_strict(
    names: tuple[str, ...], requested: str | None, expected: Target | type[Rejected]
) -> None:
    """Targets that were only seen (`seen`) never count."""
    expect(expected, declared(*names), ["seen"], requested)


@pytest.mark.parametrize(
    ("types", "known", "requested", "expected"),
    [
        ({}, [], "operator", Target("operator", "daemon")),
        ({}, [], "a:b", TargetIdInvalid),
        ({}, [], "", TargetNotFound),
        ({}, [], "new", Target("new", None)),
        ({"web": "daemon"}, [], "web", Target("web", "daemon")),
        ({}, [], None, Target("default", None)),
        ({}, ["operator"], None, Target("default", None)),
        ({}, ["default"], None, Target("default", None)),
        ({}, ["web", "default"], None, Target("web", None)),
        ({"web": "daemon"}, ["web", "default"], None, Target("web", "daemon")),
        ({"web": "daemon"}, ["db"], None, TargetAmbiguous),
        ({}, ["web", "db"], None, TargetAmbiguous),
        ({"default": "worker"}, [], None, Target("default", "worker")),
        ({"default": "worker"}, ["web"], None, TargetAmbiguous),
        ({"web": "worker", "operator": "daemon"}, [], None, Target("web", "worker")),
    ],
)
def test_an_undeclared_deployment_is_open(
    types: dict[str, ResourceType], known: list[str], requested: str | None, expected: Target | type[Rejected]
) -> None:
    expect(expected, observed(**types), known, requested)


def expect(expected: Target | type[Rejected], deployment: Deployment, known: list[str], requested: str | None) -> None:
    if isinstance(expected, Target):
        assert expected == resolve_target(deployment, known, requested)
    else:
        with pytest.raises(Rejected) as refusal:
            resolve_target(deployment, known, requested)
        assert expected is type(refusal.value)


# --- what is known of a deployment

WEB = TargetObserved(resource_id="web", resource_type="worker")


def test_the_first_receiver_fixes_the_type() -> None:
    assert decide_deployment(WEB, NO_DEPLOYMENT) == (WEB,)
    known = evolve_deployment(NO_DEPLOYMENT, WEB, 0)
    assert known.observed == {"web": "worker"}
    assert decide_deployment(TargetObserved(resource_id="web", resource_type="daemon"), known) == ()


def test_in_a_declared_deployment_nothing_is_observed() -> None:
    assert decide_deployment(WEB, declared("web")) == ()


def test_targets_known_by_use_are_bounded() -> None:
    full = Deployment(None, dict.fromkeys(map(str, range(TARGETS_PER_DEPLOYMENT_MAX)), "worker"))
    assert decide_deployment(WEB, full) == ()


def test_a_declaration_replaces_the_one_before_and_is_stored_once() -> None:
    first = DeploymentDeclared(model="pull", targets=(DeclaredTarget(resource_id="web", resource_type="worker"),))
    second = DeploymentDeclared(model="pull", targets=())
    state = evolve_deployment(evolve_deployment(NO_DEPLOYMENT, WEB, 0), first, 0)
    assert decide_deployment(first, state) == ()
    assert decide_deployment(second, state) == (second,)
    after = evolve_deployment(state, second, 0)
    assert after.declared_target("web") is None
    assert after.observed == {"web": "worker"}
