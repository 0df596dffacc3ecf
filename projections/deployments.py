"""What is known of deployments: their own history, and the targets that creates made known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import get_args

from arc_es.domain.deployments import NO_CONTROLS, NO_DEPLOYMENT, Controls, Deployment, evolve_deployment
from arc_es.domain.errors import ImpossibleHistory
from arc_es.domain.events import DeploymentDeclared, DeploymentEvent, TargetObserved
from arc_es.domain.ids import OPERATOR, ResourceType
from arc_es.domain.limits import TARGETS_PER_DEPLOYMENT_MAX
from arc_es.domain.recorded import DeploymentKey, Recorded
from arc_es.domain.state import Route
from projections.plain import Plain, made, plain


class DeploymentsProjection:
    """deployment id -> declaration, observed types, known targets."""

    def __init__(self) -> None:
        self._deployments: dict[str, Deployment] = {}
        self._versions: dict[str, int] = {}
        self._types: dict[str, dict[str, ResourceType]] = {}
        self._known: dict[str, dict[str, None]] = {}

    def get(self, deployment_id: str) -> Deployment:
        """Declaration and observed targets (empty for a deployment nobody declared or leased from)."""
        return self._deployments.get(deployment_id, NO_DEPLOYMENT)

    def version(self, deployment_id: str) -> int:
        """The version of the deployment's own history."""
        return self._versions.get(deployment_id, 0)

    def known_targets(self, deployment_id: str) -> Iterable[str]:
        """Target ids that a create named or resolved to while the deployment was undeclared, in order of first use."""
        return self._known.get(deployment_id, {}).keys()

    def type_of(self, deployment_id: str, target_id: str) -> ResourceType | None:
        """The type of a target, None while nobody has said. What was declared goes before what was observed."""
        if target_id == OPERATOR:
            return "daemon"
        return self._types.get(deployment_id, {}).get(target_id)

    def declared(self) -> list[str]:
        """Ids of all declared deployments, in order of name."""
        return sorted(name for name, deployment in self._deployments.items() if deployment.declared is not None)

    def controls(self) -> Iterator[tuple[str, Controls]]:
        """What has been said about deliveries, by deployment."""
        for name, deployment in self._deployments.items():
            if deployment.controls is not NO_CONTROLS:
                yield name, deployment.controls

    def apply_recorded(self, key: DeploymentKey, recorded: Recorded) -> None:
        """Fold one decision about a deployment.

        Raises:
            ImpossibleHistory: the decision was applied before, or holds an event that is not a deployment's.
        """
        name = key.deployment_id
        if recorded.position <= self.version(name):
            raise ImpossibleHistory(f"Message {recorded.position} of {name} is applied twice or out of order")
        deployment = self.get(name)
        for event in recorded.events:
            if not isinstance(event, get_args(DeploymentEvent)):
                raise ImpossibleHistory(f"{type(event).__name__} cannot happen to a deployment")
            deployment = evolve_deployment(deployment, event, recorded.at)
            self._learn_types(name, deployment, event)
        self._deployments[name] = deployment
        self._versions[name] = recorded.position

    def _learn_types(self, name: str, deployment: Deployment, event: DeploymentEvent) -> None:
        if isinstance(event, TargetObserved):
            types = self._types.setdefault(name, {})
            if deployment.declared_target(event.resource_id) is None:
                types[event.resource_id] = event.resource_type
        elif isinstance(event, DeploymentDeclared):
            declared = {target.resource_id: target.resource_type for target in event.targets}
            self._types[name] = {**deployment.observed, **declared}

    def learn(self, route: Route) -> None:
        """A command was created: its target is known from now on."""
        known = self._known.get(route.deployment_id)
        if known is None:
            known = self._known[route.deployment_id] = {}
        if route.target_id in known or len(known) >= TARGETS_PER_DEPLOYMENT_MAX:
            return
        if self.get(route.deployment_id).declared is None:
            known[route.target_id] = None

    def dump(self) -> Plain:
        """Everything as plain data."""
        deployments = {name: plain(deployment) for name, deployment in self._deployments.items()}
        known = {name: [*targets] for name, targets in self._known.items()}
        return deployments, dict(self._versions), {name: dict(types) for name, types in self._types.items()}, known

    def load(self, data: Plain) -> None:
        """Take in what was dumped."""
        deployments, self._versions, self._types, known = data
        self._deployments = {name: made(deployment) for name, deployment in deployments.items()}
        self._known = {name: dict.fromkeys(targets) for name, targets in known.items()}
