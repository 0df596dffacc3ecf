"""Creating a command, its idempotency key, and uploading its params."""

from __future__ import annotations

from typing import Any

from arc_es.domain.errors import (
    CommandNotFound,
    IdempotencyConflict,
    InvalidCommand,
    InvalidStateTransition,
    KeyWindowOver,
    NotLeasable,
)
from arc_es.domain.events import CommandExpired, CommandFailed, UploadCompleted
from arc_es.domain.ids import Target
from arc_es.domain.intents import (
    Cancel,
    CompleteUpload,
    Create,
    Dispatch,
    Lease,
    LoseParams,
    RejectDelivery,
    Release,
    Renew,
    Tick,
)
from arc_es.domain.limits import IDEMPOTENCY_WINDOW, SECOND, UPLOAD_WINDOW
from tests.domain.story import T0, body, created, given, success


def create(**changes: Any) -> Create:
    plain: dict[str, Any] = {
        "deployment_id": "dep",
        "command": "report/build",
        "target": Target("indexer", "worker"),
        "delivery": "pull",
        "params": body(),
    }
    return Create(**(plain | changes))


def test_a_create_is_stored_as_asked() -> None:
    given().when(create(priority=5, labels={"k": "v"}, deadline=T0 + 1)).then(
        created(priority=5, labels={"k": "v"}, deadline=T0 + 1)
    )


def test_without_params_an_upload_window_opens() -> None:
    given().when(create(params=None, upload_size=7)).then(
        created(params=None, upload_size=7, upload_until=T0 + UPLOAD_WINDOW)
    )


def test_a_deadline_must_be_in_the_future() -> None:
    refusal = given().when(create(deadline=T0)).refused(InvalidCommand)
    assert refusal.message == "deadline is not in the future"


def test_a_past_deadline_fails_even_on_a_replay() -> None:
    given(created()).when(create(deadline=T0)).refused(InvalidCommand)


def test_the_same_create_with_a_key_creates_nothing_new() -> None:
    given(created(idempotency_key="k", params_digest="d")).when(
        create(idempotency_key="k", params_digest="d"), at=T0 + IDEMPOTENCY_WINDOW - 1
    ).nothing()


def test_a_key_used_with_other_params_is_a_conflict() -> None:
    given(created(idempotency_key="k", params_digest="d")).when(create(idempotency_key="k", params_digest="e")).refused(
        IdempotencyConflict
    )


def test_a_deployment_may_answer_a_conflict_like_a_replay() -> None:
    given(created(idempotency_key="k", params_digest="d")).when(
        create(idempotency_key="k", params_digest="e", replay_on_conflict=True)
    ).nothing()


def test_a_key_is_free_again_after_the_window() -> None:
    given(created(idempotency_key="k", params_digest="d")).when(
        create(idempotency_key="k", params_digest="d"), at=T0 + IDEMPOTENCY_WINDOW
    ).refused(KeyWindowOver)


def test_deadline_and_trace_are_not_compared() -> None:
    given(created(idempotency_key="k", params_digest="d", deadline=T0 + SECOND)).when(
        create(idempotency_key="k", params_digest="d", deadline=T0 + 9 * SECOND)
    ).nothing()


def test_nothing_can_be_asked_of_a_command_that_does_not_exist() -> None:
    for intent in (
        Tick(),
        Lease(lease_id="a", seconds=1, target_type="worker"),
        Renew(lease_id="a", seconds=1),
        Release(lease_id="a"),
        success(),
        Cancel(reason=""),
        CompleteUpload(params=body()),
        Dispatch(lease_id="a", seconds=1),
        RejectDelivery(lease_id="a", reason="", jitter=0),
        LoseParams(),
    ):
        given().when(intent).refused(CommandNotFound)


AWAITS_UPLOAD = created(params=None, upload_until=T0 + UPLOAD_WINDOW)


def test_a_completed_upload_makes_the_command_pending() -> None:
    given(AWAITS_UPLOAD).when(CompleteUpload(params=body(7))).then(UploadCompleted(params=body(7)))


def test_not_before_holds_after_an_upload_too() -> None:
    story = given(
        created(params=None, upload_until=T0 + UPLOAD_WINDOW, not_before=T0 + 1), UploadCompleted(params=body())
    )
    story.when(Lease(lease_id="a", seconds=1, target_type="worker"), at=T0).refused(NotLeasable)


def test_an_upload_is_completed_once() -> None:
    given(AWAITS_UPLOAD, UploadCompleted(params=body(7))).when(CompleteUpload(params=body(7))).refused(
        InvalidStateTransition
    )


def test_inline_params_need_no_upload() -> None:
    given(created()).when(CompleteUpload(params=body())).refused(InvalidStateTransition)


def test_the_upload_window_closes() -> None:
    given(AWAITS_UPLOAD).when(Tick(), at=T0 + UPLOAD_WINDOW - 1).nothing()
    given(AWAITS_UPLOAD).when(Tick(), at=T0 + UPLOAD_WINDOW).then(CommandExpired(attempt=1, reason="upload"))


def test_nobody_can_answer_before_the_upload() -> None:
    given(AWAITS_UPLOAD).when(success()).refused(InvalidStateTransition)


def test_lost_params_fail_a_pending_command_only() -> None:
    given(created()).when(LoseParams()).then(
        CommandFailed(attempt=1, origin="storage", code="STORAGE_OPERATION_FAILED", message="The params object is gone")
    )
    given(AWAITS_UPLOAD).when(LoseParams()).nothing()
