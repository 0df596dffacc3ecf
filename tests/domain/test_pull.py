"""Leasing, renewing, releasing and the end of a lease."""

from __future__ import annotations

import pytest

from arc_es.domain.errors import LeaseNotFound, NotLeasable
from arc_es.domain.events import (
    CommandExpired,
    CommandFailed,
    CommandLeased,
    LeaseExpired,
    LeaseReleased,
    LeaseRenewed,
    RetryPolicy,
)
from arc_es.domain.intents import Lease, LoseParams, Release, Renew, Tick
from arc_es.domain.limits import RENEWALS_PER_LEASE_MAX, SECOND, UPLOAD_WINDOW
from arc_es.domain.state import lease_end_max_of
from tests.domain.story import T0, Given, created, error, given, need, success

LEASE_END = T0 + 60 * SECOND


def lease(lease_id: str = "a") -> Lease:
    return Lease(lease_id=lease_id, seconds=60, target_type="worker", agent="a-17")


def leased(lease_id: str = "a", attempt: int = 1) -> CommandLeased:
    return CommandLeased(lease_id=lease_id, attempt=attempt, expires_at=LEASE_END, target_type="worker", agent="a-17")


def released(attempt: int = 1) -> LeaseReleased:
    return LeaseReleased(lease_id="a", attempt=attempt)


def given_up(attempt: int) -> CommandFailed:
    return CommandFailed(
        attempt=attempt,
        origin="attempts",
        code="MAX_ATTEMPTS_EXCEEDED",
        message=f"Attempt {attempt} of {attempt} ended without an answer",
    )


def test_a_pending_command_is_leased() -> None:
    given(created()).when(lease()).then(leased())


def test_the_same_lease_again_is_no_new_lease() -> None:
    given(created(), leased("a")).when(lease("a")).nothing()


def test_a_held_command_is_not_leased_to_another() -> None:
    given(created(), leased("a")).when(lease("b")).refused(NotLeasable)


@pytest.mark.parametrize(
    "state",
    [
        given(created(delivery="push")),
        given(created(params=None, upload_until=T0 + UPLOAD_WINDOW)),
        given(created(not_before=T0 + 1)),
        given(created(), CommandExpired(attempt=1, reason="deadline")),
    ],
    ids=["push", "awaits upload", "too early", "ended"],
)
def test_what_cannot_be_leased(state: Given) -> None:
    state.when(lease()).refused(NotLeasable)


def test_not_before_is_the_first_moment() -> None:
    given(created(not_before=LEASE_END - 60 * SECOND)).when(lease()).then(leased())


def test_a_lease_does_not_change_the_attempt() -> None:
    given(created(), leased(), released()).when(lease("b")).then(leased("b", attempt=2))


def test_a_renewal_counts_from_now() -> None:
    given(created(), leased()).when(Renew(lease_id="a", seconds=60), at=T0 + SECOND).then(
        LeaseRenewed(lease_id="a", expires_at=LEASE_END + SECOND)
    )


def test_a_shorter_renewal_does_not_shorten_the_life_of_response_tokens() -> None:
    story = given(created(), leased(), LeaseRenewed(lease_id="a", expires_at=T0 + SECOND))
    assert lease_end_max_of(need(story.state)) == LEASE_END


def test_a_renewal_that_changes_nothing_is_not_stored() -> None:
    given(created(), leased()).when(Renew(lease_id="a", seconds=60)).nothing()


@pytest.mark.parametrize(
    "state",
    [given(created()), given(created(), leased("b")), given(created(), leased(), released())],
    ids=["never leased", "held under another lease", "released"],
)
def test_only_the_live_lease_is_renewed_or_released(state: Given) -> None:
    state.when(Renew(lease_id="a", seconds=1)).refused(LeaseNotFound)
    state.when(Release(lease_id="a")).refused(LeaseNotFound)


def test_renewals_are_bounded() -> None:
    renewals = [LeaseRenewed(lease_id="a", expires_at=LEASE_END)] * RENEWALS_PER_LEASE_MAX
    almost = given(created(), leased(), *renewals[1:])
    assert almost.when(Renew(lease_id="a", seconds=90)).events
    given(created(), leased(), *renewals).when(Renew(lease_id="a", seconds=90)).refused(LeaseNotFound)


def test_a_released_command_is_leasable_at_once() -> None:
    given(created(), leased()).when(Release(lease_id="a")).then(released())
    assert given(created(), leased(), released()).when(lease("b")).events


def test_a_release_may_ask_for_a_rest() -> None:
    rests = LeaseReleased(lease_id="a", attempt=1, available_at=T0 + SECOND)
    given(created(), leased()).when(Release(lease_id="a", delay=SECOND)).then(rests)
    given(created(), leased(), rests).when(lease("b"), at=T0 + SECOND - 1).refused(NotLeasable)
    assert given(created(), leased(), rests).when(lease("b"), at=T0 + SECOND).events


def test_a_lease_that_nobody_received_does_not_end_the_attempt() -> None:
    story = given(created(max_attempts=1), leased())
    back = LeaseReleased(lease_id="a", attempt=1, undelivered=True)
    story.when(Release(lease_id="a", undelivered=True)).then(back)
    given(created(max_attempts=1), leased(), back).when(lease("b")).then(leased("b", attempt=1))


def test_the_last_attempt_released_fails_the_command() -> None:
    story = given(created(max_attempts=1), leased())
    story.when(Release(lease_id="a")).then(released(), given_up(1))


def test_a_lease_ends_when_its_time_is_reached() -> None:
    story = given(created(), leased())
    story.when(Tick(), at=LEASE_END - 1).nothing()
    story.when(Tick(), at=LEASE_END).then(LeaseExpired(lease_id="a", attempt=1))


def test_the_last_attempt_run_out_fails_the_command() -> None:
    story = given(created(max_attempts=2), leased(), released(), leased(attempt=2))
    story.when(Tick(), at=LEASE_END).then(LeaseExpired(lease_id="a", attempt=2), given_up(2))
    after = given(created(max_attempts=1), leased(), LeaseExpired(lease_id="a", attempt=1), given_up(1))
    assert need(after.state).facts.route.max_attempts == 1


@pytest.mark.parametrize(("jitter", "rest"), [(0.0, 5 * SECOND), (1.0, 10 * SECOND)])
def test_a_retry_policy_rests_the_command_after_a_lease_end(jitter: float, rest: int) -> None:
    policy = RetryPolicy(initial_seconds=10, max_seconds=60, factor=2)
    given(created(retry=policy), leased()).when(Tick(jitter=jitter), at=LEASE_END).then(
        LeaseExpired(lease_id="a", attempt=1, available_at=LEASE_END + rest)
    )


def test_a_deadline_acts_when_it_is_passed_not_when_it_is_reached() -> None:
    story = given(created(deadline=T0 + SECOND), leased())
    story.when(Tick(), at=T0 + SECOND).nothing()
    story.when(Tick(), at=T0 + SECOND + 1).then(CommandExpired(attempt=1, reason="deadline"))


def test_deadline_and_lease_end_at_once_is_the_deadline() -> None:
    given(created(deadline=LEASE_END - 1), leased()).when(Tick(), at=LEASE_END).then(
        CommandExpired(attempt=1, reason="deadline")
    )


def test_a_finished_command_never_expires() -> None:
    story = given(created(deadline=T0 + 1), leased(), *(given(created(), leased()).when(success()).events or ()))
    story.when(Tick(), at=T0 + 10**12).nothing()


def test_params_of_a_held_command_are_not_lost_any_more() -> None:
    given(created(), leased()).when(LoseParams()).nothing()


def test_an_answer_from_an_earlier_holder_counts() -> None:
    story = given(created(), leased(), LeaseExpired(lease_id="a", attempt=1))
    assert story.when(success()).events
    assert story.when(error()).events
