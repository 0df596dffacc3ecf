"""What an intent means for a command: the events to store, nothing, or a refusal.

`decide` is pure. It returns `()` when the wanted state already holds, so every retry is free. Callers first decide
`Tick`, fold its events, and then decide the intent at the same `now`: what is due happens before anything else
(`arc.v1` 4.4), and is stored even if the intent itself is then refused.
"""

from __future__ import annotations

from typing import assert_never

from arc_es.domain.backoff import delay
from arc_es.domain.errors import (
    CommandNotFound,
    IdempotencyConflict,
    InvalidCommand,
    InvalidStateTransition,
    KeyWindowOver,
    LeaseNotFound,
    NotLeasable,
)
from arc_es.domain.events import (
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
from arc_es.domain.ids import Micros
from arc_es.domain.intents import (
    Cancel,
    CompleteUpload,
    Create,
    Dispatch,
    Erase,
    Intent,
    Lease,
    LoseParams,
    Redrive,
    RejectDelivery,
    Release,
    Renew,
    RespondError,
    RespondSuccess,
    Tick,
)
from arc_es.domain.limits import (
    IDEMPOTENCY_WINDOW,
    LATE_RESPONSES_MAX,
    RENEWALS_PER_LEASE_MAX,
    SECOND,
    UPLOAD_WINDOW,
)
from arc_es.domain.state import (
    TERMINAL,
    Dispatched,
    Expired,
    Failed,
    Leased,
    Pending,
    PendingUpload,
    State,
    Succeeded,
    Terminal,
    attempt_of,
    short_digest,
)

Events = tuple[CommandEvent, ...]

DELIVERY_FAILED_MESSAGE = "Worker runtime did not accept command delivery"
"""The one message text that `arc.v1` fixes (4.4 Push)."""


def decide(intent: Intent, state: State | None, now: Micros) -> Events:  # noqa: C901, PLR0911, PLR0912 - one case an intent
    """The events that `intent` produces in `state` at time `now`.

    Raises:
        Rejected: the intent is refused; nothing is to be stored.
    """
    if isinstance(intent, Create):
        return _create(intent, state, now)
    if state is None:
        raise CommandNotFound
    match intent:
        case Tick():
            return _tick(intent, state, now)
        case Lease():
            return _lease(intent, state, now)
        case RespondSuccess() | RespondError():
            return _respond(intent, state)
        case Release():
            return _release(intent, state, now)
        case Renew():
            return _renew(intent, state, now)
        case Cancel():
            return _cancel(intent, state)
        case Redrive():
            return _redrive(intent, state)
        case CompleteUpload():
            return _complete_upload(intent, state)
        case Dispatch():
            return _dispatch(intent, state, now)
        case RejectDelivery():
            return _reject_delivery(intent, state, now)
        case LoseParams():
            return _lose_params(state)
        case Erase():
            return _erase(intent, state)
        case _:
            assert_never(intent)


def _create(intent: Create, state: State | None, now: Micros) -> Events:
    if intent.deadline is not None and intent.deadline <= now:
        raise InvalidCommand("deadline is not in the future")
    if state is not None:
        if now >= state.facts.created_at + IDEMPOTENCY_WINDOW:
            raise KeyWindowOver
        options = state.facts.options
        is_same = options.params_digest == intent.params_digest or options.is_erased  # nobody knows any more
        if not is_same and not intent.replay_on_conflict:
            raise IdempotencyConflict
        return ()
    return (
        CommandCreated(
            deployment_id=intent.deployment_id,
            command=intent.command,
            target_id=intent.target.resource_id,
            target_type=intent.target.resource_type,
            delivery=intent.delivery,
            params=intent.params,
            upload_size=intent.upload_size,
            upload_until=now + UPLOAD_WINDOW if intent.params is None else None,
            deadline=intent.deadline,
            idempotency_key=intent.idempotency_key,
            params_digest=intent.params_digest,
            max_attempts=intent.max_attempts,
            retry=intent.retry,
            priority=intent.priority,
            not_before=intent.not_before,
            labels=intent.labels,
            trace=intent.trace,
            redrive_of=intent.redrive_of,
        ),
    )


def _tick(intent: Tick, state: State, now: Micros) -> Events:
    if isinstance(state, TERMINAL):
        return ()
    deadline = state.facts.deadline
    if deadline is not None and now > deadline:
        return (CommandExpired(attempt=attempt_of(state), reason="deadline"),)
    if isinstance(state, PendingUpload) and now >= state.upload_until:
        return (CommandExpired(attempt=1, reason="upload"),)
    if isinstance(state, Leased | Dispatched) and now >= state.expires_at:
        ended = LeaseExpired(
            lease_id=state.lease_id,
            attempt=state.attempt,
            available_at=_after_rest(state, now, intent.jitter),
        )
        return (ended, *_attempts_over(state))
    return ()


def _after_rest(state: Leased | Dispatched, now: Micros, jitter: float) -> Micros | None:
    retry = state.facts.route.retry
    return None if retry is None else now + delay(retry, state.attempt, jitter)


def _attempts_over(state: Leased | Dispatched) -> Events:
    limit = state.facts.route.max_attempts
    if state.attempt < limit:
        return ()
    return (
        CommandFailed(
            attempt=state.attempt,
            origin="attempts",
            code="MAX_ATTEMPTS_EXCEEDED",
            message=f"Attempt {state.attempt} of {limit} ended without an answer",
        ),
    )


def _complete_upload(intent: CompleteUpload, state: State) -> Events:
    if not isinstance(state, PendingUpload):
        raise InvalidStateTransition("The command is not waiting for an upload")
    return (UploadCompleted(params=intent.params),)


def _lease(intent: Lease, state: State, now: Micros) -> Events:
    if isinstance(state, Leased) and state.lease_id == intent.lease_id:
        return ()
    if not isinstance(state, Pending) or state.facts.route.delivery != "pull":
        raise NotLeasable
    if state.available_at is not None and now < state.available_at:
        raise NotLeasable
    return (
        CommandLeased(
            lease_id=intent.lease_id,
            attempt=state.attempt,
            expires_at=now + intent.seconds * SECOND,
            target_type=intent.target_type,
            agent=intent.agent,
        ),
    )


def _renew(intent: Renew, state: State, now: Micros) -> Events:
    if not isinstance(state, Leased) or state.lease_id != intent.lease_id:
        raise LeaseNotFound
    expires_at = now + intent.seconds * SECOND
    if expires_at == state.expires_at:
        return ()
    if state.renewals >= RENEWALS_PER_LEASE_MAX:
        raise LeaseNotFound("This lease was renewed too often; let it end and lease the command again")
    return (LeaseRenewed(lease_id=intent.lease_id, expires_at=expires_at),)


def _release(intent: Release, state: State, now: Micros) -> Events:
    held = Leased | Dispatched if intent.undelivered else Leased  # nobody else knows the lease of a push
    if not isinstance(state, held) or state.lease_id != intent.lease_id:
        raise LeaseNotFound
    if intent.undelivered:
        return (LeaseReleased(lease_id=intent.lease_id, attempt=state.attempt, undelivered=True),)
    released = LeaseReleased(
        lease_id=intent.lease_id,
        attempt=state.attempt,
        available_at=now + intent.delay if intent.delay > 0 else None,
    )
    return (released, *_attempts_over(state))


def _respond(intent: RespondSuccess | RespondError, state: State) -> Events:
    if isinstance(state, Succeeded | Failed | Expired):
        return _respond_late(intent, state)
    if isinstance(state, PendingUpload) or (isinstance(state, Pending) and state.lease_end_max == 0):
        raise InvalidStateTransition("The command was never dispatched, so nobody can have an answer")
    if isinstance(intent, RespondSuccess):
        return (CommandSucceeded(attempt=state.attempt, response=intent.response),)
    return (
        CommandFailed(
            attempt=state.attempt,
            origin="agent",
            code=intent.code,
            message=intent.message,
            details=intent.details,
            sha256=intent.sha256,
            body=intent.body,
        ),
    )


def _respond_late(intent: RespondSuccess | RespondError, state: Terminal) -> Events:
    if state.facts.options.is_erased:
        return ()
    if isinstance(intent, RespondSuccess):
        response = intent.response
        late = LateResponseRecorded(status="success", size=response.size, sha256=response.sha256)
    else:
        late = LateResponseRecorded(status="error", size=intent.size, sha256=intent.sha256, code=intent.code)
    short = short_digest(late.sha256)
    accepted = 0 if isinstance(state, Expired) else state.answer
    if short == accepted or short in state.late or len(state.late) >= LATE_RESPONSES_MAX:
        return ()
    return (late,)


def _cancel(intent: Cancel, state: State) -> Events:
    if isinstance(state, TERMINAL):
        return ()
    return (CommandFailed(attempt=attempt_of(state), origin="cancel", code="CANCELLED", message=intent.reason),)


def _redrive(intent: Redrive, state: State) -> Events:
    if not isinstance(state, Failed | Expired):
        raise InvalidStateTransition("Only a command that is FAILED or EXPIRED can be redriven")
    if state.facts.options.is_erased:
        raise InvalidStateTransition("It was erased, so it cannot run again")
    return (CommandRedriven(redriven_as=intent.redriven_as),) if state.redriven_as == intent.newest else ()


def _dispatch(intent: Dispatch, state: State, now: Micros) -> Events:
    if isinstance(state, Dispatched) and state.lease_id == intent.lease_id:
        return ()
    if not isinstance(state, Pending) or state.facts.route.delivery != "push":
        raise NotLeasable
    if state.available_at is not None and now < state.available_at:
        raise NotLeasable
    return (
        CommandDispatched(lease_id=intent.lease_id, attempt=state.attempt, expires_at=now + intent.seconds * SECOND),
    )


def _reject_delivery(intent: RejectDelivery, state: State, now: Micros) -> Events:
    if not isinstance(state, Dispatched) or state.lease_id != intent.lease_id:
        return ()  # an answer, or a newer delivery, came before the result of this push (`arc.v1` 4.4 Push, 6)
    failed = DeliveryFailed(
        lease_id=intent.lease_id,
        attempt=state.attempt,
        reason=intent.reason,
        available_at=_after_rest(state, now, intent.jitter),
    )
    if state.facts.route.retry is not None:
        return (failed, *_attempts_over(state))
    return (
        failed,
        CommandFailed(
            attempt=state.attempt,
            origin="delivery",
            code="DELIVERY_FAILED",
            message=DELIVERY_FAILED_MESSAGE,
        ),
    )


def _lose_params(state: State) -> Events:
    if not isinstance(state, Pending):
        return ()
    return (
        CommandFailed(
            attempt=state.attempt,
            origin="storage",
            code="STORAGE_OPERATION_FAILED",
            message="The params object is gone",
        ),
    )


def _erase(intent: Erase, state: State) -> Events:
    if not isinstance(state, TERMINAL):
        raise InvalidStateTransition("Only what has ended can be erased; cancel the command first")
    if state.facts.options.is_erased:
        return ()
    return (CommandErased(reason=intent.reason, messages=intent.messages, unproven=intent.unproven),)
