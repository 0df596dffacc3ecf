"""Where `payloads` says that params and answers are."""

from __future__ import annotations

import pytest

from arc_es.domain.errors import ImpossibleHistory
from arc_es.domain.events import PayloadStored
from arc_es.domain.payloads import evolve_payload
from arc_es.domain.recorded import DeploymentKey, PayloadKey, Recorded
from projections import Projections
from tests.domain.story import body, created
from tests.projections.world import T0, World

PARAMS = PayloadStored(params=body())
RESULT = PayloadStored(response=body())
ERROR = PayloadStored(code="DB_DOWN", message="no connection", sha256="e" * 64)


def apply(models: Projections, position: int, *events: PayloadStored, command_id: str = "a") -> None:
    assert models.apply(Recorded(position, PayloadKey(command_id), T0, events)) is None


def where(models: Projections, command_id: str = "a") -> tuple[int, int, int]:
    row = models.payloads.get(command_id)
    assert row is not None
    return row.version, row.params_at, row.answer_at


def test_nothing_is_known_of_an_id_that_nobody_used() -> None:
    assert Projections().payloads.get("a") is None


def test_the_latest_of_each_is_remembered() -> None:
    models = Projections()
    apply(models, 3, PARAMS)
    assert where(models) == (3, 3, 0)
    apply(models, 5, RESULT)
    assert where(models) == (5, 3, 5)
    apply(models, 8, ERROR)
    assert where(models) == (8, 3, 8)
    apply(models, 9, PayloadStored(params=body(digit="b"), response=body()))
    assert where(models) == (9, 9, 9)
    row = models.payloads.get("a")
    assert row is not None
    assert row.payload == evolve_payload(evolve_payload(row.payload, PayloadStored(params=body(digit="b"))), RESULT)


def test_a_row_that_was_read_does_not_change() -> None:
    models = Projections()
    apply(models, 3, PARAMS)
    row = models.payloads.get("a")
    apply(models, 5, RESULT)
    assert row is not None
    assert (row.version, row.answer_at) == (3, 0)


def test_a_payload_is_no_command_and_no_deployment() -> None:
    world = World()
    world.given("c", created())
    apply(world.models, 100, PARAMS, RESULT, command_id="dep")
    assert world.models.status.get("dep") is None
    assert world.models.deployments.version("dep") == 0
    assert sum(world.models.stats.by_state().values()) == 1
    assert (world.models.stats.messages, world.models.stats.events) == (2, 3)
    world.models.apply(Recorded(101, DeploymentKey("dep"), T0))
    assert where(world.models, "dep") == (100, 100, 100)


def test_a_decision_is_applied_once_and_holds_only_events_of_payloads() -> None:
    models = Projections()
    apply(models, 3, PARAMS)
    for position, event in ((3, RESULT), (2, RESULT), (4, created())):
        with pytest.raises(ImpossibleHistory):
            models.apply(Recorded(position, PayloadKey("a"), T0, (event,)))
    assert where(models) == (3, 3, 0)
