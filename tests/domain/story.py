"""Tests of one command as sentences: given events, when an intent comes, then these events (or a refusal)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from arc_es.domain.decide import Events, decide
from arc_es.domain.errors import Rejected
from arc_es.domain.events import Body, CommandCreated, CommandEvent
from arc_es.domain.ids import Micros
from arc_es.domain.intents import Intent, RespondError, RespondSuccess
from arc_es.domain.limits import SECOND
from arc_es.domain.state import State, evolve

T0: Micros = 1_767_225_600 * SECOND
"""The time at which every story begins: 2026-01-01."""


def body(size: int = 2, digit: str = "a") -> Body:
    return Body(place="message", size=size, sha256=digit * 64)


def created(**changes: Any) -> CommandCreated:
    """A plain pull command, unless told otherwise."""
    plain: dict[str, Any] = {
        "deployment_id": "dep",
        "command": "report/build",
        "target_id": "indexer",
        "target_type": "worker",
        "params": body(),
    }
    return CommandCreated(**(plain | changes))


def success(digit: str = "b") -> RespondSuccess:
    return RespondSuccess(response=body(7, digit))


def error(digit: str = "c") -> RespondError:
    return RespondError(code="HANDLER_ERROR", message="no disk", details=None, sha256=digit * 64, size=9)


@dataclass(frozen=True)
class Outcome:
    """What an intent led to."""

    events: Events | None
    refusal: Rejected | None

    def then(self, *expected: CommandEvent) -> None:
        assert self.refusal is None, f"refused: {self.refusal!r}"
        assert expected == self.events

    def nothing(self) -> None:
        """The wanted state already holds."""
        self.then()

    def refused(self, why: type[Rejected]) -> Rejected:
        assert self.refusal is not None, f"not refused: {self.events}"
        assert why is type(self.refusal)
        return self.refusal


@dataclass(frozen=True)
class Given:
    """What happened before, all of it at T0."""

    state: State | None

    def when(self, intent: Intent, at: Micros = T0) -> Outcome:
        try:
            return Outcome(decide(intent, self.state, at), None)
        except Rejected as refusal:
            return Outcome(None, refusal)


def given(*events: CommandEvent) -> Given:
    state: State | None = None
    for event in events:
        state = evolve(state, event, T0)
    return Given(state)


def need(state: State | None) -> State:
    """The state of a command that must exist by now."""
    if state is None:
        pytest.fail("there is no such command")
    return state
