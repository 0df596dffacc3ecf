"""The transition table is complete, and what has no row is refused loudly."""

from __future__ import annotations

from dataclasses import fields
from itertools import product
from typing import Any, get_args

import pytest

from arc_es.domain.errors import ImpossibleHistory
from arc_es.domain.events import (
    Body,
    CommandArchived,
    CommandCreated,
    CommandDispatched,
    CommandErased,
    CommandEvent,
    CommandExpired,
    CommandFailed,
    CommandLeased,
    CommandRedriven,
    CommandSucceeded,
    DeliveryFailed,
    LateResponseRecorded,
    LeaseExpired,
    LeaseReleased,
    LeaseRenewed,
    UploadCompleted,
)
from arc_es.domain.state import PUBLIC_STATE, TERMINAL, TRANSITIONS, Expired, Failed, State, evolve, fold, needs_body
from tests.domain.story import T0, body, created

LEASED = CommandLeased(lease_id="a", attempt=1, expires_at=T0 + 1, target_type="worker")
ONE_OF_EACH: tuple[CommandEvent, ...] = (
    created(),
    UploadCompleted(params=body()),
    LEASED,
    LeaseRenewed(lease_id="a", expires_at=T0 + 2),
    LeaseReleased(lease_id="a", attempt=1),
    LeaseExpired(lease_id="a", attempt=1),
    CommandDispatched(lease_id="a", attempt=1, expires_at=T0 + 1),
    DeliveryFailed(lease_id="a", attempt=1, reason="status 503"),
    CommandSucceeded(attempt=1, response=body()),
    CommandFailed(attempt=1, origin="agent", code="E", message="", body=body(9)),
    CommandExpired(attempt=1, reason="deadline"),
    LateResponseRecorded(status="success", size=1, sha256="f" * 64),
    CommandRedriven(redriven_as="cmd_2"),
    CommandArchived(segment="1-1-f.jsonl.zst", sha256="f" * 64, messages=3),
    CommandErased(reason="asked for", messages=3),
)
EVENTS: dict[type[Any], CommandEvent] = {type(event): event for event in ONE_OF_EACH}
HISTORIES: tuple[tuple[CommandEvent, ...], ...] = (
    (),
    (created(params=None, upload_until=T0 + 1),),
    (created(),),
    (created(), LEASED),
    (created(delivery="push"), EVENTS[CommandDispatched]),
    (created(), LEASED, EVENTS[CommandSucceeded]),
    (created(), EVENTS[CommandFailed]),
    (created(), EVENTS[CommandExpired]),
)
STATES: dict[type[Any], State | None] = {type(state := fold(None, past, T0)): state for past in HISTORIES}


def test_every_state_and_every_event_is_in_the_table() -> None:
    assert set(EVENTS) == set(get_args(CommandEvent)) == {event for _, event in TRANSITIONS}
    assert set(STATES) == {type(None), *get_args(State)} == {state for state, _ in TRANSITIONS}
    assert set(get_args(State)) == set(PUBLIC_STATE)


@pytest.mark.parametrize(("state", "event"), list(product(STATES, EVENTS)), ids=lambda cls: cls.__name__)
def test_a_move_without_a_row_is_impossible(state: type[Any], event: type[Any]) -> None:
    move = TRANSITIONS.get((state, event))
    if move is None:
        with pytest.raises(ImpossibleHistory, match=f"{event.__name__} cannot follow {state.__name__}"):
            evolve(STATES[state], EVENTS[event], T0)
    else:
        assert type(evolve(STATES[state], EVENTS[event], T0)) in move.to


def test_what_has_ended_only_hears_late_answers_and_is_archived_redriven_or_erased() -> None:
    after_the_end = {(state, event) for state, event in TRANSITIONS if state in TERMINAL}
    redrives = {(Failed, CommandRedriven), (Expired, CommandRedriven)}
    assert after_the_end == redrives | set(product(TERMINAL, (LateResponseRecorded, CommandArchived, CommandErased)))


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: type(event).__name__)
def test_every_body_of_an_event_is_found(event: CommandEvent) -> None:
    """Who stores bodies must not forget one."""
    held = [value for field in fields(event) if isinstance(value := getattr(event, field.name), Body)]
    assert held == [found for found in [needs_body(event)] if found is not None]


def test_commands_of_one_kind_share_their_route() -> None:
    """There are millions of them in memory."""
    first, second = evolve(None, created(), T0), evolve(None, created(priority=1), T0 + 1)
    assert first.facts.route is second.facts.route
    assert CommandCreated is type(created())
