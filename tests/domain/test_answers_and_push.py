"""Answers, late answers, cancelling, and delivery by push."""

from __future__ import annotations

import pytest

from arc_es.domain.decide import DELIVERY_FAILED_MESSAGE
from arc_es.domain.errors import InvalidStateTransition, NotLeasable
from arc_es.domain.events import (
    CommandDispatched,
    CommandEvent,
    CommandExpired,
    CommandFailed,
    CommandLeased,
    CommandSucceeded,
    DeliveryFailed,
    LateResponseRecorded,
    LeaseExpired,
    RetryPolicy,
)
from arc_es.domain.intents import Cancel, Dispatch, RejectDelivery, Tick
from arc_es.domain.limits import LATE_RESPONSES_MAX, SECOND
from tests.domain.story import T0, body, created, error, given, success

LEASED = CommandLeased(lease_id="a", attempt=1, expires_at=T0 + SECOND, target_type="worker")
SUCCEEDED = CommandSucceeded(attempt=1, response=body(7, "b"))
CANCELLED = CommandFailed(attempt=1, origin="cancel", code="CANCELLED", message="changed my mind")
EXPIRED = CommandExpired(attempt=1, reason="deadline")
LATE_SUCCESS = LateResponseRecorded(status="success", size=7, sha256="b" * 64)
LATE_ERROR = LateResponseRecorded(status="error", size=9, sha256="c" * 64, code="HANDLER_ERROR")


def test_a_result_ends_the_command() -> None:
    given(created(), LEASED).when(success("b")).then(SUCCEEDED)


def test_an_error_ends_the_command() -> None:
    given(created(), LEASED).when(error("c")).then(
        CommandFailed(attempt=1, origin="agent", code="HANDLER_ERROR", message="no disk", sha256="c" * 64)
    )


def test_nobody_can_answer_what_was_never_dispatched() -> None:
    given(created()).when(success()).refused(InvalidStateTransition)


def test_the_same_answer_again_is_not_recorded() -> None:
    given(created(), LEASED, SUCCEEDED).when(success("b")).nothing()


@pytest.mark.parametrize("end", [SUCCEEDED, CANCELLED, EXPIRED])
def test_another_answer_is_recorded_and_not_applied(end: CommandEvent) -> None:
    given(created(), LEASED, end).when(error("c")).then(LATE_ERROR)
    given(created(), LEASED, end, LATE_ERROR).when(error("c")).nothing()


def test_a_late_result_is_recorded_with_its_digest() -> None:
    given(created(), LEASED, EXPIRED).when(success("b")).then(LATE_SUCCESS)


def test_late_answers_are_bounded() -> None:
    late = [LateResponseRecorded(status="error", size=1, sha256=f"{n:064d}"[::-1]) for n in range(LATE_RESPONSES_MAX)]
    assert given(created(), LEASED, EXPIRED, *late[1:]).when(success("f")).events
    given(created(), LEASED, EXPIRED, *late).when(success("f")).nothing()


def test_cancelling_fails_a_command_from_every_live_state() -> None:
    for story in (given(created()), given(created(), LEASED), given(created(params=None, upload_until=T0 + 1))):
        story.when(Cancel(reason="changed my mind")).then(CANCELLED)


def test_cancelling_what_has_ended_does_nothing() -> None:
    for end in (SUCCEEDED, CANCELLED, EXPIRED):
        given(created(), LEASED, end).when(Cancel(reason="again")).nothing()


# --- push

PUSHED = created(delivery="push")
RETRIED = created(delivery="push", max_attempts=2, retry=RetryPolicy(initial_seconds=2, max_seconds=60, factor=2))
DISPATCHED = CommandDispatched(lease_id="d", attempt=1, expires_at=T0 + 240 * SECOND)
REJECTED = RejectDelivery(lease_id="d", reason="status 503", jitter=1.0)
DELIVERY_FAILED = DeliveryFailed(lease_id="d", attempt=1, reason="status 503")
RESTS = DeliveryFailed(lease_id="d", attempt=1, reason="status 503", available_at=T0 + 2 * SECOND)


def test_a_push_is_recorded_before_it_is_sent() -> None:
    given(PUSHED).when(Dispatch(lease_id="d", seconds=240)).then(DISPATCHED)
    given(PUSHED, DISPATCHED).when(Dispatch(lease_id="d", seconds=240)).nothing()


def test_a_command_is_not_pushed_twice_at_once() -> None:
    given(PUSHED, DISPATCHED).when(Dispatch(lease_id="e", seconds=240)).refused(NotLeasable)


def test_a_pull_command_is_never_pushed() -> None:
    given(created()).when(Dispatch(lease_id="d", seconds=240)).refused(NotLeasable)


def test_a_rejected_push_fails_the_command() -> None:
    given(PUSHED, DISPATCHED).when(REJECTED).then(
        DELIVERY_FAILED,
        CommandFailed(attempt=1, origin="delivery", code="DELIVERY_FAILED", message=DELIVERY_FAILED_MESSAGE),
    )


def test_the_message_of_a_rejected_push_is_the_one_that_clients_know() -> None:
    assert DELIVERY_FAILED_MESSAGE == "Worker runtime did not accept command delivery"


def test_with_retry_a_rejected_push_rests_and_is_pushed_again() -> None:
    given(RETRIED, DISPATCHED).when(REJECTED).then(RESTS)
    again = given(RETRIED, DISPATCHED, RESTS)
    again.when(Dispatch(lease_id="e", seconds=1), at=T0 + 2 * SECOND - 1).refused(NotLeasable)
    again.when(Dispatch(lease_id="e", seconds=1), at=T0 + 2 * SECOND).then(
        CommandDispatched(lease_id="e", attempt=2, expires_at=T0 + 3 * SECOND)
    )


def test_with_retry_the_last_rejected_push_fails_the_command() -> None:
    second = CommandDispatched(lease_id="d", attempt=2, expires_at=T0 + 240 * SECOND)
    outcome = given(RETRIED, DISPATCHED, RESTS, second).when(REJECTED)
    assert outcome.events is not None
    failed = outcome.events[-1]
    assert isinstance(failed, CommandFailed)
    assert (failed.attempt, failed.code) == (2, "MAX_ATTEMPTS_EXCEEDED")


def test_an_answer_before_the_push_result_wins() -> None:
    given(PUSHED, DISPATCHED, SUCCEEDED).when(REJECTED).nothing()


def test_the_result_of_an_older_push_is_ignored() -> None:
    newer = CommandDispatched(lease_id="e", attempt=2, expires_at=T0 + 240 * SECOND)
    given(PUSHED, DISPATCHED, LeaseExpired(lease_id="d", attempt=1), newer).when(REJECTED).nothing()


def test_a_delivery_lease_ends() -> None:
    story = given(PUSHED, DISPATCHED)
    story.when(Tick(), at=DISPATCHED.expires_at - 1).nothing()
    story.when(Tick(), at=DISPATCHED.expires_at).then(LeaseExpired(lease_id="d", attempt=1))


def test_an_answer_while_a_push_rests_counts() -> None:
    given(RETRIED, DISPATCHED, RESTS).when(success("b")).then(CommandSucceeded(attempt=2, response=body(7, "b")))
