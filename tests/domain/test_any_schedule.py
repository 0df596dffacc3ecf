"""Whatever comes, in whatever order, at whatever times: what must hold for every history of one command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from arc_es import codec
from arc_es.domain.decide import Events, decide
from arc_es.domain.errors import Rejected
from arc_es.domain.events import (
    CommandDispatched,
    CommandErased,
    CommandEvent,
    CommandExpired,
    CommandFailed,
    CommandLeased,
    CommandSucceeded,
    DeliveryFailed,
    LeaseExpired,
    LeaseReleased,
)
from arc_es.domain.ids import Micros
from arc_es.domain.intents import Create, Erase, Intent, Tick
from arc_es.domain.recorded import SERVICE, Decision
from arc_es.domain.state import (
    TERMINAL,
    TRANSITIONS,
    Dispatched,
    Leased,
    Pending,
    State,
    attempt_of,
    evolve,
    fold,
    lease_end_max_of,
    next_due,
)
from tests.domain.story import T0, need
from tests.domain.strategies import creates, schedules

ATTEMPT_ENDS = (LeaseReleased, LeaseExpired, DeliveryFailed)
ENDS = (CommandSucceeded, CommandFailed, CommandExpired)

Schedule: TypeAlias = list[tuple[Micros, Intent]]


@dataclass(frozen=True)
class Turn:
    """One decision of a command's life; `events` is empty if nothing was to do or the intent was refused."""

    now: Micros
    intent: Intent
    before: State | None
    events: Events
    after: State


def take_turn(intent: Intent, state: State | None, now: Micros) -> Turn:
    try:
        events = decide(intent, state, now)
    except Rejected:
        events = ()
    return Turn(now, intent, state, events, need(fold(state, events, now)))


def live(create: Create, schedule: Schedule) -> list[Turn]:
    """A life as the actors live it: before every intent what is due happens (`arc.v1` 4.4)."""
    turns = [take_turn(create, None, T0)]
    now = T0
    for pause, intent in schedule:
        now += pause
        turns.append(take_turn(Tick(jitter=0.5), turns[-1].after, now))
        turns.append(take_turn(intent, turns[-1].after, now))
    return turns


lives = st.builds(live, creates(T0), schedules)


@given(lives)
def test_every_move_is_a_row_of_the_table(turns: list[Turn]) -> None:
    for turn in turns:
        state = turn.before
        for event in turn.events:
            to = TRANSITIONS[type(state), type(event)].to
            state = evolve(state, event, turn.now)
            assert type(state) in to


@given(lives)
def test_a_command_ends_at_most_once(turns: list[Turn]) -> None:
    ends = [event for turn in turns for event in turn.events if isinstance(event, ENDS)]
    assert len(ends) <= 1
    assert isinstance(turns[-1].after, TERMINAL) == bool(ends)


@given(lives)
def test_what_has_ended_stays_as_it_is(turns: list[Turn]) -> None:
    for turn in turns:
        before, after = turn.before, turn.after
        if isinstance(before, TERMINAL):
            assert isinstance(after, TERMINAL)
            assert type(before) is type(after)
            assert (before.attempt, before.ended_at) == (after.attempt, after.ended_at)


@given(lives)
def test_an_attempt_that_ends_raises_the_number_by_one_up_to_the_limit(turns: list[Turn]) -> None:
    """`arc.v1` 4.2."""
    for turn in turns:
        if turn.before is None:
            assert attempt_of(turn.after) == 1
            continue
        before, limit = attempt_of(turn.before), turn.before.facts.route.max_attempts
        ended = [event for event in turn.events if isinstance(event, ATTEMPT_ENDS) and not undelivered(event)]
        failed = [event for event in turn.events if isinstance(event, CommandFailed)]
        assert [event.attempt for event in ended] in ([], [before])
        assert attempt_of(turn.after) == before + (1 if ended and not failed else 0)
        assert attempt_of(turn.after) <= limit
        if ended and failed:
            assert failed[0].attempt == before
            retried = not isinstance(ended[0], DeliveryFailed) or turn.before.facts.route.retry is not None
            assert failed[0].origin == ("attempts" if retried else "delivery")
            assert not retried or before == limit


def undelivered(event: CommandEvent) -> bool:
    return isinstance(event, LeaseReleased) and event.undelivered


@given(lives)
def test_a_lease_that_nobody_received_leaves_the_attempt_as_it_was(turns: list[Turn]) -> None:
    for turn in turns:
        if any(undelivered(event) for event in turn.events):
            before, after = turn.before, turn.after
            assert isinstance(before, Leased | Dispatched)  # a push that a pause or a limit forbids is taken back, too
            assert isinstance(after, Pending)
            assert (before.attempt, before.lease_end_max, None) == (
                after.attempt,
                after.lease_end_max,
                after.available_at,
            )


@given(lives)
def test_grants_name_the_current_attempt(turns: list[Turn]) -> None:
    for turn in turns:
        for event in turn.events:
            if isinstance(event, CommandLeased | CommandDispatched):
                assert event.attempt == attempt_of(need(turn.before))


@given(lives)
def test_an_accepted_intent_repeated_at_once_stores_nothing(turns: list[Turn]) -> None:
    for turn in turns:
        if turn.events:
            assert take_turn(turn.intent, turn.after, turn.now).events == ()


@given(lives)
def test_nothing_is_due_after_a_tick(turns: list[Turn]) -> None:
    for turn in turns:
        if isinstance(turn.intent, Tick):
            due = next_due(turn.after)
            assert due is None or due > turn.now


@given(lives)
def test_a_tick_before_anything_is_due_does_nothing(turns: list[Turn]) -> None:
    for turn in turns:
        due = next_due(turn.after)
        if due is not None and due - 1 >= turn.now:
            assert decide(Tick(), turn.after, due - 1) == ()
            assert decide(Tick(), turn.after, due) != ()


@given(lives)
def test_a_live_lease_is_never_replaced(turns: list[Turn]) -> None:
    for turn in turns:
        before, after = turn.before, turn.after
        if isinstance(before, Leased | Dispatched) and isinstance(after, Leased | Dispatched):
            assert (type(before), before.lease_id) == (type(after), after.lease_id)
            assert before.expires_at > turn.now


@given(lives)
def test_nothing_is_granted_too_early_or_the_wrong_way(turns: list[Turn]) -> None:
    for turn in turns:
        grants = [event for event in turn.events if isinstance(event, CommandLeased | CommandDispatched)]
        for grant in grants:
            assert isinstance(turn.before, Pending)
            assert turn.before.available_at is None or turn.before.available_at <= turn.now
            assert (turn.after.facts.options.not_before or 0) <= turn.now
            wanted = "pull" if isinstance(grant, CommandLeased) else "push"
            assert turn.after.facts.route.delivery == wanted


@given(lives)
def test_the_latest_lease_end_is_remembered(turns: list[Turn]) -> None:
    """Response tokens live as long as the latest lease end ever granted (`arc.v1` 2.6)."""
    latest = 0
    for turn in turns:
        if isinstance(turn.after, Leased | Dispatched):
            latest = max(latest, turn.after.expires_at)
        assert lease_end_max_of(turn.after) == latest


@given(lives)
def test_replay_gives_the_live_state(turns: list[Turn]) -> None:
    """Fold what was stored, through the stored bytes, and get what was decided on."""
    replayed: State | None = None
    for turn in turns:
        if turn.events:
            stored = codec.encode(Decision("d", turn.now, SERVICE, turn.events))
            events = codec.decode(stored).events
            assert turn.events == events
            replayed = fold(replayed, command_events(events), turn.now)
    assert replayed == turns[-1].after


def command_events(events: tuple[object, ...]) -> tuple[CommandEvent, ...]:
    return tuple(event for event in events if isinstance(event, CommandEvent))


@given(lives, st.integers(0, 40))
def test_an_erased_history_folds_to_what_is_known_after_the_erasure(turns: list[Turn], later: int) -> None:
    """Fold all of it, and then that it was erased; or fold what is left of it: nobody can tell which it was."""
    whole = turns[-1].after
    if not isinstance(whole, TERMINAL):
        return
    erasure = (CommandErased(reason="asked for", messages=len(turns)),)
    now = turns[-1].now + later
    left: State | None = None
    for turn in turns:
        stored = codec.encode(Decision("d", turn.now, SERVICE, turn.events))
        if turn.events:
            left = fold(left, codec.decode(codec.redacted(stored)).events, turn.now)  # type: ignore[arg-type]
    assert fold(left, erasure, now) == fold(whole, erasure, now)
    after = need(fold(whole, erasure, now))
    assert type(after) is type(whole)
    assert (after.facts.route, after.attempt, after.facts.created_at) == (
        whole.facts.route,
        whole.attempt,
        whole.facts.created_at,
    )
    assert decide(Erase(reason="again", messages=1), after, now) == ()
