"""A small world to fold: sentences (`given` these decisions) and a driver that lets `decide` make them."""

from __future__ import annotations

from typing import Any

from arc_es.domain.decide import decide
from arc_es.domain.deployments import DeploymentIntent, decide_deployment
from arc_es.domain.errors import Rejected
from arc_es.domain.events import CommandEvent, CommandLeased, CommandSucceeded, DeploymentEvent, LeaseReleased
from arc_es.domain.ids import Micros
from arc_es.domain.intents import Intent, Tick
from arc_es.domain.limits import SECOND
from arc_es.domain.recorded import CommandKey, DeploymentKey, Recorded
from arc_es.domain.state import State, evolve
from projections import Projections
from tests.domain.story import T0, body, created

__all__ = ["T0", "World", "body", "created", "leased", "released", "succeeded"]


def leased(lease_id: str = "lease_a", attempt: int = 1, until: Micros = T0 + 60 * SECOND) -> CommandLeased:
    return CommandLeased(lease_id=lease_id, attempt=attempt, expires_at=until, target_type="worker")


def released(lease_id: str = "lease_a", attempt: int = 1, available_at: Micros | None = None) -> LeaseReleased:
    return LeaseReleased(lease_id=lease_id, attempt=attempt, available_at=available_at)


def succeeded() -> CommandSucceeded:
    return CommandSucceeded(attempt=1, response=body())


class World:
    """Applies decisions as they happen and remembers them for a replay."""

    def __init__(self) -> None:
        self.models = Projections()
        self.recorded: list[Recorded] = []
        self.states: dict[str, State] = {}
        self.versions: dict[str, int] = {}
        self.now: Micros = T0

    def given(self, command_id: str, *events: CommandEvent, at: Micros | None = None) -> str | None:
        """One stored decision of a command; returns what `apply` says."""
        self.now = self.now if at is None else at
        state: State | None = self.states.get(command_id)
        for event in events:
            state = evolve(state, event, self.now)
        assert state is not None
        self.states[command_id] = state
        self.versions[command_id] = self._next_position()
        key = CommandKey("dep", command_id.encode().decode())  # a new string each time, as from a journal
        return self._record(Recorded(self.versions[command_id], key, self.now, events))

    def given_deployment(self, deployment_id: str, *events: DeploymentEvent) -> None:
        """One stored decision of a deployment."""
        self._record(Recorded(self._next_position(), DeploymentKey(deployment_id), self.now, events))

    def ask(self, command_id: str, intent: Intent) -> bool:
        """Decide Tick and then the intent at the same time, in one message. True if anything was stored."""
        events: list[Any] = []
        state = self.states.get(command_id)
        for one in (Tick(), intent) if state is not None else (intent,):
            try:
                decided = decide(one, state, self.now)
            except Rejected:
                continue
            for event in decided:
                state = evolve(state, event, self.now)
            events.extend(decided)
        if events:
            self.given(command_id, *events)
        return bool(events)

    def ask_deployment(self, deployment_id: str, intent: DeploymentIntent) -> None:
        """Decide an intent about a deployment and store what comes of it."""
        events = decide_deployment(intent, self.models.deployments.get(deployment_id))
        if events:
            self.given_deployment(deployment_id, *events)

    def replayed(self) -> Projections:
        """New projections, folded from all decisions so far."""
        models = Projections()
        for recorded in self.recorded:
            models.apply(recorded)
        return models

    def _next_position(self) -> int:
        return len(self.recorded) * 2 + 7  # positions are not dense: bodies and tokens have some

    def _record(self, recorded: Recorded) -> str | None:
        self.recorded.append(recorded)
        return self.models.apply(recorded)
