"""The aggregate of one deployment: its declaration, and which targets receivers were seen with; target resolution."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final, TypeAlias, assert_never

from arc_es.domain.errors import InvalidCommand, NoTargets, TargetAmbiguous, TargetIdInvalid, TargetNotFound
from arc_es.domain.events import (
    ConcurrencyLimited,
    DeclaredTarget,
    DeliveryPaused,
    DeliveryResumed,
    DeploymentDeclared,
    DeploymentEvent,
    TargetObserved,
)
from arc_es.domain.ids import DEFAULT_TARGET, OPERATOR, Micros, ResourceType, Target
from arc_es.domain.limits import NAME_BYTES_MAX, TARGETS_PER_DEPLOYMENT_MAX


@dataclass(frozen=True, slots=True)
class Pause:
    """A stop of deliveries, by an administrator."""

    since: Micros
    reason: str


@dataclass(frozen=True, slots=True)
class Controls:
    """What an administrator has said about deliveries: a declaration says what there is, and replaces none of this.

    pauses: by target id, None for the whole deployment. leases_max: by target id, at most so many at once.
    """

    pauses: Mapping[str | None, Pause] = field(default_factory=dict)
    leases_max: Mapping[str, int] = field(default_factory=dict)

    def pause_of(self, target_id: str) -> Pause | None:
        """What stops the deliveries of a target; the whole deployment goes before the target itself."""
        return self.pauses.get(None) or self.pauses.get(target_id)


NO_CONTROLS: Final = Controls()


@dataclass(frozen=True, slots=True)
class Deployment:
    """declared: the latest declaration, None in open mode. observed: target id -> type fixed by a receiver."""

    declared: DeploymentDeclared | None = None
    observed: Mapping[str, ResourceType] = field(default_factory=dict)
    controls: Controls = NO_CONTROLS
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


Control: TypeAlias = DeliveryPaused | DeliveryResumed | ConcurrencyLimited
DeploymentIntent: TypeAlias = DeploymentDeclared | TargetObserved | Redeclare | Control
"""Most of it has no choices of its own, so the wanted fact is the intent."""


def decide_deployment(intent: DeploymentIntent, state: Deployment) -> tuple[DeploymentEvent, ...]:
    """The events that `intent` produces; `()` when it already holds, or when a type was fixed before.

    Raises:
        TargetNotFound: the deployment is declared, and without this target.
        InvalidCommand: too many targets are paused or limited.
    """
    match intent:
        case DeploymentDeclared():
            return () if state.declared == intent else (intent,)
        case Redeclare():
            return (intent.after,) if state.declared == intent.before != intent.after else ()
        case TargetObserved():
            full = len(state.observed) >= TARGETS_PER_DEPLOYMENT_MAX
            return () if state.declared or intent.resource_id in state.observed or full else (intent,)
        case DeliveryPaused():
            return () if intent.target_id in state.controls.pauses else (_known(intent, state),)
        case DeliveryResumed():
            return (intent,) if intent.target_id in state.controls.pauses else ()
        case ConcurrencyLimited():
            if state.controls.leases_max.get(intent.target_id) == intent.leases_max:
                return ()
            return (intent if intent.leases_max is None else _known(intent, state),)
        case _:
            assert_never(intent)


def _known(intent: DeliveryPaused | ConcurrencyLimited, state: Deployment) -> DeliveryPaused | ConcurrencyLimited:
    """The intent, if there is such a target, and not too many are controlled already."""
    target_id, controls = intent.target_id, state.controls
    if target_id is None:
        return intent
    if state.declared is not None and target_id != OPERATOR and state.declared_target(target_id) is None:
        raise TargetNotFound(details=target_id)
    if len(controls.pauses) + len(controls.leases_max) > 2 * TARGETS_PER_DEPLOYMENT_MAX:
        raise InvalidCommand(f"At most {TARGETS_PER_DEPLOYMENT_MAX} targets of a deployment are paused or limited")
    return intent


def evolve_deployment(state: Deployment, event: DeploymentEvent, at: Micros) -> Deployment:
    """The deployment after `event`, decided at `at`."""
    match event:
        case DeploymentDeclared():
            return replace(state, declared=event)
        case TargetObserved():
            return replace(state, observed={**state.observed, event.resource_id: event.resource_type})
        case DeliveryPaused() | DeliveryResumed() | ConcurrencyLimited():
            return replace(state, controls=_controlled(state.controls, event, at))
        case _:
            assert_never(event)


def _controlled(controls: Controls, event: Control, at: Micros) -> Controls:
    pauses, leases_max = dict(controls.pauses), dict(controls.leases_max)
    match event:
        case DeliveryPaused():
            pauses[event.target_id] = Pause(at, event.reason)
        case DeliveryResumed():
            pauses.pop(event.target_id, None)
        case ConcurrencyLimited():
            leases_max.pop(event.target_id, None)
            if event.leases_max is not None:
                leases_max[event.target_id] = event.leases_max
        case _:
            assert_never(event)
    return Controls(pauses, leases_max)


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
