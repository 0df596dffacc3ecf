"""The state machine of one command.

Rule 1: every legal move is a row of `TRANSITIONS`; what has no row cannot happen, and a stored history in which it did
is `ImpossibleHistory`. Docs and tests are made from this table.
Rule 2: a state holds what the next decision needs and nothing else. There are millions of them in memory; bodies and
digests stay in the journal.
Rule 3: `evolve` is the only way from one state to the next, live and on replay.

Source of the moves: `arc.v1` 4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from sys import intern
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, cast

from arc_es.domain.errors import ImpossibleHistory
from arc_es.domain.events import (
    Body,
    BodyPlace,
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
    Event,
    ExpiryReason,
    FailureOrigin,
    LateResponseRecorded,
    LeaseExpired,
    LeaseReleased,
    LeaseRenewed,
    PayloadStored,
    RetryPolicy,
    TraceContext,
    UploadCompleted,
)
from arc_es.domain.ids import Delivery, Micros, ResourceType
from arc_es.domain.value import value

Word = TypeVar("Word", bound=str)


@dataclass(frozen=True, slots=True)
class Route:
    """What commands of one kind share; one object for all of them."""

    deployment_id: str
    target_id: str
    target_type: ResourceType | None
    command: str
    delivery: Delivery
    max_attempts: int
    retry: RetryPolicy | None


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller may ask for beside the plain command; one shared object when nothing was asked.

    is_erased: all that was private about the command is gone, here as well.
    """

    idempotency_key: str | None = None
    params_digest: str | None = None
    priority: int = 0
    not_before: Micros | None = None
    labels: tuple[tuple[str, str], ...] = ()
    trace: TraceContext | None = None
    redrive_of: str | None = None
    is_erased: bool = False


@value
class Facts:
    """What was fixed when the command was created, and where its params are once they are complete."""

    route: Route
    created_at: Micros
    deadline: Micros | None
    params_place: BodyPlace | None
    params_size: int | None
    options: Options


@value
class PendingUpload:
    """The caller still has to upload the params."""

    facts: Facts
    upload_until: Micros


@value
class Pending:
    """Waiting for a receiver or a push. `lease_end_max` is 0 as long as the command was never dispatched."""

    facts: Facts
    attempt: int
    available_at: Micros | None
    lease_end_max: Micros


@value
class Leased:
    """A receiver holds the command until `expires_at`, and has done so since `leased_at`."""

    facts: Facts
    attempt: int
    lease_id: str
    expires_at: Micros
    agent: str | None
    renewals: int
    lease_end_max: Micros
    leased_at: Micros


@value
class Dispatched:
    """The command was, or is about to be, pushed, under a delivery lease."""

    facts: Facts
    attempt: int
    lease_id: str
    expires_at: Micros
    lease_end_max: Micros


@value
class Succeeded:
    """Final: a result was accepted. `answer` and `late` are short digests of the answers heard."""

    facts: Facts
    attempt: int
    ended_at: Micros
    lease_end_max: Micros
    answer: int
    late: tuple[int, ...] = ()


@value
class Failed:
    """Final: an error was accepted, or the service gave up (`origin` says which). `redriven_as`: the newest redrive."""

    facts: Facts
    attempt: int
    ended_at: Micros
    lease_end_max: Micros
    origin: FailureOrigin
    answer: int
    late: tuple[int, ...] = ()
    redriven_as: str | None = None


@value
class Expired:
    """Final: the deadline passed, or the upload window closed. `redriven_as` as in `Failed`."""

    facts: Facts
    attempt: int
    ended_at: Micros
    lease_end_max: Micros
    reason: ExpiryReason
    late: tuple[int, ...] = ()
    redriven_as: str | None = None


Terminal: TypeAlias = Succeeded | Failed | Expired
Live: TypeAlias = PendingUpload | Pending | Leased | Dispatched
State: TypeAlias = Live | Terminal

TERMINAL: Final = (Succeeded, Failed, Expired)
NO_OPTIONS: Final = Options()

PUBLIC_STATE: Final[Mapping[type[Any], str]] = {
    PendingUpload: "PENDING_UPLOAD",
    Pending: "PENDING",
    Leased: "DISPATCHED",
    Dispatched: "DISPATCHED",
    Succeeded: "SUCCEEDED",
    Failed: "FAILED",
    Expired: "EXPIRED",
}
"""The words of `arc.v1` 3.1 for each state."""


def short_digest(sha256: str | None) -> int:
    """The first 60 bits of a hex digest: enough to recognise a repeated answer, small enough to keep."""
    return int(sha256[:15], 16) if sha256 else 0


shared_route = lru_cache(maxsize=65_536)(Route)
"""The one object for a route that many commands have."""


def _shared(word: Word) -> Word:
    """The one object for a word that many states hold; a decoded event brings its own copy."""
    return cast("Word", intern(word))


def attempt_of(state: State) -> int:
    """The number of the current or next delivery (`arc.v1` 4.2)."""
    return 1 if isinstance(state, PendingUpload) else state.attempt


def lease_end_max_of(state: State) -> Micros:
    """The latest lease end ever granted for the command, 0 if none was."""
    return 0 if isinstance(state, PendingUpload) else state.lease_end_max


def next_due(state: State) -> Micros | None:
    """When the command next changes by itself, or None. A deadline acts when it is passed, a lease end when reached."""
    if isinstance(state, TERMINAL):
        return None
    deadline = state.facts.deadline
    past_deadline = None if deadline is None else deadline + 1
    if isinstance(state, Pending):
        return past_deadline
    ends = state.upload_until if isinstance(state, PendingUpload) else state.expires_at
    return ends if past_deadline is None or ends < past_deadline else past_deadline


# --- the moves: (state, event, time of the decision) -> state


def _created(state: None, event: CommandCreated, at: Micros) -> State:
    route = shared_route(
        event.deployment_id,
        event.target_id,
        event.target_type,
        event.command,
        event.delivery,
        event.max_attempts,
        event.retry,
    )
    plain = event.idempotency_key is None and event.trace is None and event.priority == 0
    if plain and event.not_before is None and not event.labels and event.redrive_of is None:
        options = NO_OPTIONS
    else:
        options = Options(
            event.idempotency_key,
            event.params_digest,
            event.priority,
            event.not_before,
            tuple(sorted(event.labels.items())),
            event.trace,
            event.redrive_of,
        )
    params = event.params
    if params is None:
        facts = Facts(route, at, event.deadline, None, event.upload_size, options)
        return PendingUpload(facts, event.upload_until if event.upload_until is not None else at)
    facts = Facts(route, at, event.deadline, _shared(params.place), params.size, options)
    return Pending(facts, 1, event.not_before, 0)


def _uploaded(state: PendingUpload, event: UploadCompleted, at: Micros) -> State:
    old = state.facts
    place, size = _shared(event.params.place), event.params.size
    facts = Facts(old.route, old.created_at, old.deadline, place, size, old.options)
    return Pending(facts, 1, old.options.not_before, 0)


def _leased(state: Pending, event: CommandLeased, at: Micros) -> State:
    return Leased(
        state.facts,
        event.attempt,
        event.lease_id,
        event.expires_at,
        event.agent,
        0,
        max(state.lease_end_max, event.expires_at),
        at,
    )


def _renewed(state: Leased, event: LeaseRenewed, at: Micros) -> State:
    return Leased(
        state.facts,
        state.attempt,
        state.lease_id,
        event.expires_at,
        state.agent,
        state.renewals + 1,
        max(state.lease_end_max, event.expires_at),
        state.leased_at,
    )


def _dispatched(state: Pending, event: CommandDispatched, at: Micros) -> State:
    return Dispatched(
        state.facts, event.attempt, event.lease_id, event.expires_at, max(state.lease_end_max, event.expires_at)
    )


def _released(state: Leased | Dispatched, event: LeaseReleased, at: Micros) -> State:
    attempt = event.attempt if event.undelivered else event.attempt + 1
    return Pending(state.facts, attempt, event.available_at, state.lease_end_max)


def _attempt_ended(state: Leased | Dispatched, event: LeaseExpired | DeliveryFailed, at: Micros) -> State:
    return Pending(state.facts, event.attempt + 1, event.available_at, state.lease_end_max)


def _succeeded(state: Pending | Leased | Dispatched, event: CommandSucceeded, at: Micros) -> State:
    return Succeeded(state.facts, event.attempt, at, state.lease_end_max, short_digest(event.response.sha256))


def _failed(state: Live, event: CommandFailed, at: Micros) -> State:
    origin, answer = _shared(event.origin), short_digest(event.sha256)
    return Failed(state.facts, event.attempt, at, lease_end_max_of(state), origin, answer)


def _expired(state: Live, event: CommandExpired, at: Micros) -> State:
    return Expired(state.facts, event.attempt, at, lease_end_max_of(state), _shared(event.reason))


def _late(state: Terminal, event: LateResponseRecorded, at: Micros) -> State:
    late = (*state.late, short_digest(event.sha256))
    if isinstance(state, Succeeded):
        return Succeeded(state.facts, state.attempt, state.ended_at, state.lease_end_max, state.answer, late)
    return _after_the_end(state, late, state.redriven_as)


def _redriven(state: Failed | Expired, event: CommandRedriven, at: Micros) -> State:
    return _after_the_end(state, state.late, event.redriven_as)


def _after_the_end(state: Failed | Expired, late: tuple[int, ...], redriven_as: str | None) -> State:
    facts, attempt, ended_at, lease_end_max = state.facts, state.attempt, state.ended_at, state.lease_end_max
    if isinstance(state, Failed):
        return Failed(facts, attempt, ended_at, lease_end_max, state.origin, state.answer, late, redriven_as)
    return Expired(facts, attempt, ended_at, lease_end_max, state.reason, late, redriven_as)


def _archived(state: Terminal, event: CommandArchived, at: Micros) -> State:
    return state


def _erased(state: Terminal, event: CommandErased, at: Micros) -> State:
    """The same as if the private parts had never been folded."""
    old = state.facts
    options = Options(
        priority=old.options.priority,
        not_before=old.options.not_before,
        redrive_of=old.options.redrive_of,
        is_erased=True,
    )
    facts = Facts(old.route, old.created_at, old.deadline, old.params_place, old.params_size, options)
    attempt, ended_at, lease_end_max = state.attempt, state.ended_at, state.lease_end_max
    if isinstance(state, Succeeded):
        return Succeeded(facts, attempt, ended_at, lease_end_max, 0)
    if isinstance(state, Failed):
        return Failed(facts, attempt, ended_at, lease_end_max, state.origin, 0, (), state.redriven_as)
    return Expired(facts, attempt, ended_at, lease_end_max, state.reason, (), state.redriven_as)


class Move(NamedTuple):
    """One row of the table: where the event may lead, and the function that fills the new state's fields."""

    to: tuple[type[Any], ...]
    apply: Callable[[Any, Any, Micros], State]


TRANSITIONS: Final[Mapping[tuple[type[Any], type[Any]], Move]] = {
    (type(None), CommandCreated): Move((Pending, PendingUpload), _created),
    (PendingUpload, UploadCompleted): Move((Pending,), _uploaded),
    (PendingUpload, CommandFailed): Move((Failed,), _failed),
    (PendingUpload, CommandExpired): Move((Expired,), _expired),
    (Pending, CommandLeased): Move((Leased,), _leased),
    (Pending, CommandDispatched): Move((Dispatched,), _dispatched),
    (Pending, CommandSucceeded): Move((Succeeded,), _succeeded),
    (Pending, CommandFailed): Move((Failed,), _failed),
    (Pending, CommandExpired): Move((Expired,), _expired),
    (Leased, LeaseRenewed): Move((Leased,), _renewed),
    (Leased, LeaseReleased): Move((Pending,), _released),
    (Leased, LeaseExpired): Move((Pending,), _attempt_ended),
    (Leased, CommandSucceeded): Move((Succeeded,), _succeeded),
    (Leased, CommandFailed): Move((Failed,), _failed),
    (Leased, CommandExpired): Move((Expired,), _expired),
    (Dispatched, LeaseExpired): Move((Pending,), _attempt_ended),
    (Dispatched, LeaseReleased): Move((Pending,), _released),
    (Dispatched, DeliveryFailed): Move((Pending,), _attempt_ended),
    (Dispatched, CommandSucceeded): Move((Succeeded,), _succeeded),
    (Dispatched, CommandFailed): Move((Failed,), _failed),
    (Dispatched, CommandExpired): Move((Expired,), _expired),
    (Succeeded, LateResponseRecorded): Move((Succeeded,), _late),
    (Failed, LateResponseRecorded): Move((Failed,), _late),
    (Expired, LateResponseRecorded): Move((Expired,), _late),
    (Failed, CommandRedriven): Move((Failed,), _redriven),
    (Expired, CommandRedriven): Move((Expired,), _redriven),
    (Succeeded, CommandArchived): Move((Succeeded,), _archived),
    (Failed, CommandArchived): Move((Failed,), _archived),
    (Expired, CommandArchived): Move((Expired,), _archived),
    (Succeeded, CommandErased): Move((Succeeded,), _erased),
    (Failed, CommandErased): Move((Failed,), _erased),
    (Expired, CommandErased): Move((Expired,), _erased),
}


def evolve(state: State | None, event: CommandEvent, at: Micros) -> State:
    """The state after `event`, decided at `at`.

    Raises:
        ImpossibleHistory: the table has no row for this event in this state.
    """
    move = TRANSITIONS.get((type(state), type(event)))
    if move is None:
        raise ImpossibleHistory(f"{type(event).__name__} cannot follow {type(state).__name__}")
    return move.apply(state, event, at)


def fold(state: State | None, events: Iterable[CommandEvent], at: Micros) -> State | None:
    """The state after all events of one decision."""
    for event in events:
        state = evolve(state, event, at)
    return state


def needs_body(event: Event) -> Body | None:
    """The body that an event refers to, if any; of several, the one that lies beside the event."""
    match event:
        case CommandCreated() | UploadCompleted():
            return event.params
        case CommandSucceeded():
            return event.response
        case CommandFailed():
            return event.body
        case PayloadStored():
            bodies = (event.params, event.response, event.body)
            return next((body for body in bodies if body is not None and body.place == "message"), None)
        case _:
            return None
