"""A snapshot and what came after it equal a full replay, whatever happened and wherever the snapshot was taken.

What came after it may be applied as it happens, or as a start does it, which leaves out what `end_replay` makes up for.
"""

from __future__ import annotations

import marshal
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arc_es.domain.events import (
    Body,
    CheckpointKeyAdded,
    CheckpointSigned,
    CommandCreated,
    DeclaredTarget,
    DeploymentDeclared,
    PayloadStored,
    PushSettings,
    RetryPolicy,
    TokenCreated,
    TokenRevoked,
    TraceContext,
)
from arc_es.domain.ids import Target
from arc_es.domain.recorded import CommandKey, DeploymentKey, LogKey, PayloadKey, Recorded, TokenKey
from arc_es.domain.state import NO_OPTIONS, shared_route
from projections import Projections, rows
from projections.plain import packed, unpacked
from tests.domain.story import body
from tests.projections.test_any_history import FAR, Run, contents, steps
from tests.projections.world import T0, World, leased, succeeded


def taken(models: Projections) -> bytes:
    """A snapshot as bytes, as it lies in a file."""
    return marshal.dumps(list(models.dump()), 2)


def loaded(snapshot: bytes, finished_max: int | None = None) -> Projections:
    models = bounded(finished_max)
    models.load(marshal.loads(snapshot))
    return models


def bounded(finished_max: int | None) -> Projections:
    """Empty ones, that let go of all but so many ended commands."""
    models = Projections(finished_max)
    models.findable(FAR)
    return models


def folded(recorded: list[Recorded], models: Projections | None = None) -> Projections:
    models = models or Projections()
    for one in recorded:
        models.apply(one)
    return models


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
@pytest.mark.parametrize(("piece_rows", "finished_max"), [(1, None), (2, 1), (512, None), (512, 2)])
def test_a_snapshot_and_its_tail_equal_a_full_replay_at_every_cut(
    piece_rows: int, finished_max: int | None, data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "PIECE_ROWS", piece_rows)
        run = Run(data)
        for act, pause in data.draw(steps):
            run.world.now += pause
            act(run)
        history, now = run.world.recorded, run.world.now
        assert taken(run.world.models) == taken(folded(history))  # reservations and the like are not in it
        whole = taken(folded(history, bounded(finished_max)))
        expected = contents(folded(history, bounded(finished_max)), now)
        before = bounded(finished_max)
        for cut in range(len(history) + 1):
            again, at_once = (loaded(taken(before), finished_max) for _ in range(2))
            folded(history[cut:], again)
            at_once.begin_replay(FAR)
            folded(history[cut:], at_once)
            at_once.end_replay()
            for models in (again, at_once):
                assert taken(models) == whole
                assert contents(models, now) == expected
            if cut < len(history):
                before.apply(history[cut])


def everything() -> list[Recorded]:
    """A history with each kind of thing in it."""
    retry = RetryPolicy(initial_seconds=1.5, max_seconds=60.0, factor=2.0)
    push = PushSettings(url="https://worker.example/run", token_sealed="sealed", timeout_seconds=9)
    created = CommandCreated(
        deployment_id="dep",
        command="do",
        target_id="t",
        target_type="worker",
        params=body(),
        idempotency_key="k",
        params_digest="d" * 64,
        priority=-7,
        retry=retry,
        labels={"b": "2", "a": "1"},
        trace=TraceContext(traceparent="00-1-2-03", tracestate="x=y"),
    )
    target = DeclaredTarget(resource_id="t", resource_type="worker", delivery="push", push=push)
    token = TokenCreated(
        scope="receiver",
        sha256="a" * 64,
        deployments=("dep", "other"),
        targets=(Target("t", "worker"), Target("u", None)),
    )
    answer = Body(place="store", size=2**40, sha256="b" * 64, ref="ref")
    stories: list[tuple[Any, Any]] = [
        (DeploymentKey("dep"), DeploymentDeclared(model="push", targets=(target,), retry=retry, project_id="p")),
        (CommandKey("dep", "cmd_full"), created),
        (CommandKey("dep", "cmd_full"), leased("lease_x")),
        (PayloadKey("demo"), PayloadStored(params=body(), response=answer)),
        (TokenKey("tok"), token),
        (TokenKey("tok"), TokenRevoked()),
        (LogKey("keys"), CheckpointKeyAdded(origin="log.example", public_key="key", note="n")),
        (LogKey("2026-03-01"), CheckpointSigned(size=3, note="signed", position=5)),
        (CommandKey("dep", "cmd_full"), succeeded()),
    ]
    return [Recorded(2 * n + 1, key, T0 + n, (event,)) for n, (key, event) in enumerate(stories)]


@pytest.mark.parametrize("cut", range(len(everything()) + 1))
def test_nothing_of_any_kind_is_lost(cut: int) -> None:
    history = everything()
    before, whole = folded(history[:cut]), folded(history)
    again = folded(history[cut:], loaded(taken(before)))
    assert taken(again) == taken(whole)
    assert same(again.deployments, whole.deployments)
    assert same(again.tokens, whole.tokens)
    assert same(again.payloads, whole.payloads)
    assert same(again.checkpoints, whole.checkpoints)
    assert same(again.stats, whole.stats)
    assert (again.status.get("cmd_full") is None) == (whole.status.get("cmd_full") is None)
    assert shape(again.status.get("cmd_full")) == shape(whole.status.get("cmd_full"))


def same(one: object, other: object) -> bool:
    return vars(one) == vars(other)


def shape(row: Any) -> Any:
    return row and [getattr(row, entry.name) for entry in fields(row)]


def test_every_projection_is_in_the_snapshot() -> None:
    """A new one brings `load`; `due` follows from the states alone, and is filled from them."""
    parts = {
        name: part for name, part in vars(Projections()).items() if type(part).__module__.startswith("projections")
    }
    assert {name for name, _ in folded(everything()).dump()} == {"finished", *parts} - {"due"}
    assert {name for name, part in parts.items() if not hasattr(part, "load")} == {"due"}


def test_what_commands_share_they_share_again() -> None:
    world = World()
    created = CommandCreated(deployment_id="d", command="c", target_id="t", target_type=None, params=body())
    for name in ("cmd_a", "cmd_b"):
        world.given(name, created)
    models = loaded(taken(world.models))
    one, other = (models.status.get(name) for name in ("cmd_a", "cmd_b"))
    assert one is not None
    assert other is not None
    assert one.state.facts.route is other.state.facts.route
    assert one.state.facts.options is NO_OPTIONS
    assert one.state.facts.route is shared_route("d", "t", None, "c", "pull", 20, None)


def test_finished_commands_become_objects_when_they_are_asked_for() -> None:
    world = World()
    names = [f"cmd_{n}" for n in range(3)]
    for name in names:
        event = CommandCreated(deployment_id="dep", command="c", target_id="t", target_type=None, params=body())
        world.given(name, event, leased(f"lease_{name}"), succeeded())
    models = loaded(taken(world.models))
    assert len(models.status) == 3
    rows_of = [models.status.get(name) for name in names]
    assert rows_of == [models.status.get(name) for name in names]  # each is one object for ever
    assert list(map(shape, rows_of)) == [shape(world.models.status.get(name)) for name in names]


@pytest.mark.parametrize(
    "values",
    [
        [],
        [7],
        [None, None],
        ["a", "b", "a"],
        list(range(1_000)),
        [-(2**62), *range(1_000), 2**62],
        [2**70, *range(1_000)],
        [None, *range(1_000)],
        [(), (1, 2), ()],
    ],
)
def test_a_column_comes_back(values: list[Any]) -> None:
    column = marshal.loads(marshal.dumps(packed(values), 2))
    assert list(unpacked(column)) == values
    assert all(type(one) is type(other) for one, other in zip(unpacked(column), values, strict=True))


def test_the_order_of_commands_is_kept() -> None:
    world = World()
    created = CommandCreated(deployment_id="dep", command="c", target_id="t", target_type=None, params=body())
    names = [f"cmd_{n}" for n in range(6)]
    for name in names:
        world.given(name, created)
    for name in names[::2]:
        world.given(name, leased(f"lease_{name}"), succeeded())
    models = loaded(taken(world.models))
    assert list(models.status._rows) == names
