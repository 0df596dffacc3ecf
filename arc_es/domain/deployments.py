"""The aggregate of one deployment: its declaration, and which targets receivers were seen with; target resolution."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, assert_never

from arc_es.domain.errors import NoTargets, TargetAmbiguous, TargetIdInvalid, TargetNotFound
from arc_es.domain.events import DeclaredTarget, DeploymentDeclared, DeploymentEvent, TargetObserved
from arc_es.domain.ids import DEFAULT_TARGET, OPERATOR, ResourceType, Target
from arc_es.domain.limits import NAME_BYTES_MAX, TARGETS_PER_DEPLOYMENT_MAX


@dataclass(frozen=True, slots=True)
class Deployment:
    """declared: the latest declaration, None in open mode. observed: target id -> type fixed by a receiver."""

    declared: DeploymentDeclared | None = None
    observed: Mapping[str, ResourceType] = field(default_factory=dict)
    _declared_targets: Mapping[str, DeclaredTarget] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        targets = self.declared.targets if self.declared else ()
        object.__setattr__(self, "_declared_targets", {target.resource_id: target for target in targets})

    def declared_target(self, resource_id: str) -> DeclaredTarget | None:
        """The declared target with this id, if there is one. Every create and lease asks, so nothing is searched."""
        return self._declared_targets.get(resource_id)


NO_DEPLOYMENT: Final = Deployment()


@dataclass(frozen=True, slots=True)
class Redeclare:
    """Write a declaration anew in another form, if it is still the one that was read."""

    before: DeploymentDeclared
    after: DeploymentDeclared


DeploymentIntent = DeploymentDeclared | TargetObserved | Redeclare
"""Declaring and observing have no choices of their own, so the wanted fact is the intent."""


def decide_deployment(intent: DeploymentIntent, state: Deployment) -> tuple[DeploymentEvent, ...]:
    """The events that `intent` produces; `()` when it already holds, or when a type was fixed before."""
    match intent:
        case DeploymentDeclared():
            return () if state.declared == intent else (intent,)
        case Redeclare():
            return (intent.after,) if state.declared == intent.before != intent.after else ()
        case TargetObserved():
            full = len(state.observed) >= TARGETS_PER_DEPLOYMENT_MAX
            return () if state.declared or intent.resource_id in state.observed or full else (intent,)
        case _:
            assert_never(intent)


def evolve_deployment(state: Deployment, event: DeploymentEvent) -> Deployment:
    """The deployment after `event`."""
    match event:
        case DeploymentDeclared():
            return Deployment(event, state.observed)
        case TargetObserved():
            return Deployment(state.declared, {**state.observed, event.resource_id: event.resource_type})
        case _:
            assert_never(event)


def resolve_target(deployment: Deployment, known: Iterable[str], requested: str | None) -> Target:
    """Which target a new command goes to (`arc.v1` 4.6, in its exact order).

    Args:
        deployment: declaration and observed types.
        known: ids of targets known by use, in open mode (named by a create, or leased with).
        requested: the caller's targetResourceId; None if none was given.

    Raises:
        TargetIdInvalid, TargetNotFound, NoTargets, TargetAmbiguous: as their docstrings say.
    """
    if requested == OPERATOR:
        return Target(OPERATOR, "daemon")
    if requested is not None:
        if ":" in requested or len(requested.encode()) > NAME_BYTES_MAX:
            raise TargetIdInvalid
        if not requested:
            raise TargetNotFound("targetResourceId is empty; leave it out to let the service choose")
        return _requested(deployment, requested)
    if deployment.declared is not None:
        return _only_declared(deployment.declared)
    return _only_known(deployment, known)


def _requested(deployment: Deployment, requested: str) -> Target:
    if deployment.declared is None:
        return Target(requested, deployment.observed.get(requested))
    declared = deployment.declared_target(requested)
    if declared is None:
        raise TargetNotFound(details=requested)
    return Target(declared.resource_id, declared.resource_type)


def _only_declared(declared: DeploymentDeclared) -> Target:
    candidates = [target for target in declared.targets if target.resource_id != OPERATOR]
    if not candidates:
        raise NoTargets
    if len(candidates) > 1:
        raise TargetAmbiguous
    return Target(candidates[0].resource_id, candidates[0].resource_type)


def _only_known(deployment: Deployment, known: Iterable[str]) -> Target:
    default_counts = DEFAULT_TARGET in deployment.observed
    found: str | None = None
    for name in chain(known, deployment.observed):
        if name in (OPERATOR, found) or (name == DEFAULT_TARGET and not default_counts):
            continue
        if found is not None:
            raise TargetAmbiguous
        found = name
    name = found or DEFAULT_TARGET
    return Target(name, deployment.observed.get(name))
