"""Names of things, refusal messages, and the rest between attempts."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_es.domain.backoff import delay
from arc_es.domain.errors import LeaseNotFound, Rejected
from arc_es.domain.events import RetryPolicy
from arc_es.domain.ids import COMMAND_ID_PATTERN, command_id_from_key, command_id_of, lease_id_of
from arc_es.domain.limits import ATTEMPTS_MAX, SECOND
from tests.domain.strategies import jitters, retries, text

scopes = st.tuples(text, text, text, text, st.none() | st.just("cmd_1"))


def test_the_id_of_a_key_is_stored_for_ever() -> None:
    """Changing the hash would make every key in the field free again."""
    assert (
        command_id_from_key("dep_7", "indexer", "report/build", "order:42", None)
        == "cmd_5898f284-1d6a-8e10-be0d-ea49b801be17"
    )


@given(scopes, scopes)
def test_equal_scopes_meet_and_others_do_not(
    one: tuple[str, str, str, str, str | None], other: tuple[str, str, str, str, str | None]
) -> None:
    assert (command_id_from_key(*one) == command_id_from_key(*other)) == (one == other)


@given(text, text, st.data())
def test_moving_the_border_between_parts_changes_the_id(left: str, right: str, data: st.DataObject) -> None:
    joined = left + right
    border = data.draw(st.integers(0, len(joined)))
    moved = (joined[:border], joined[border:])
    same = command_id_from_key("d", "t", *moved, None) == command_id_from_key("d", "t", left, right, None)
    assert same == (moved == (left, right))


@given(scopes, st.uuids())
def test_ids_are_safe_in_a_path_and_are_uuids(scope: tuple[str, str, str, str, str | None], random: uuid.UUID) -> None:
    by_key = command_id_from_key(*scope)
    made = uuid.UUID(by_key.removeprefix("cmd_"))
    assert (made.version, made.variant) == (8, uuid.RFC_4122)
    for made_id in (by_key, command_id_of(random), lease_id_of(random)):
        assert COMMAND_ID_PATTERN.fullmatch(made_id)


POLICY = RetryPolicy(initial_seconds=2, max_seconds=60, factor=3)


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 2), (2, 6), (3, 18), (4, 54), (5, 60), (1000, 60)])
def test_the_rest_grows_up_to_its_cap(attempt: int, seconds: int) -> None:
    assert delay(POLICY, attempt, 1.0) == seconds * SECOND
    assert delay(POLICY, attempt, 0.0) == seconds * SECOND // 2


@given(retries, st.integers(1, ATTEMPTS_MAX), jitters)
def test_the_rest_is_never_longer_than_the_cap(policy: RetryPolicy, attempt: int, jitter: float) -> None:
    assert 0 <= delay(policy, attempt, jitter) <= policy.max_seconds * SECOND


def test_the_docstring_of_a_refusal_is_its_message() -> None:
    assert LeaseNotFound().message == "This lease does not exist, has ended, or was replaced by a newer one."
    assert LeaseNotFound("other words").message == "other words"


def test_every_refusal_has_a_message_and_a_code() -> None:
    for refusal in Rejected.__subclasses__():
        assert refusal().message.endswith(".")
        assert refusal.code.isupper()
