"""A group goes the way that has cost less, and what was once slow is tried again."""

from __future__ import annotations

from arc_es.journal.pace import FIRST_GUESS_MESSAGES, TRIAL_MESSAGES_MAX, Pace


def taught(single_seconds: float, batch_seconds: float) -> Pace:
    """A pace that has met these costs."""
    pace = Pace()
    for _ in range(20):
        pace.measured_singles(16, 16 * single_seconds)
        pace.measured_batch(16, batch_seconds)
    return pace


def test_at_first_both_ways_are_tried() -> None:
    pace = Pace()
    assert not pace.prefers_batch(TRIAL_MESSAGES_MAX, 0)
    assert pace.prefers_batch(TRIAL_MESSAGES_MAX + 1, 0)
    pace.measured_singles(16, 0.003)
    assert not pace.prefers_batch(FIRST_GUESS_MESSAGES, 0)
    assert pace.prefers_batch(FIRST_GUESS_MESSAGES + 1, 0)


def test_a_body_needs_a_batch_that_then_carries_all() -> None:
    assert not Pace().prefers_batch(0, 1)  # by itself it is a batch of its own anyway
    assert Pace().prefers_batch(1, 1)


def test_one_message_is_no_batch_however_slow_single_messages_were() -> None:
    assert not taught(single_seconds=1.0, batch_seconds=0.001).prefers_batch(1, 0)


def test_the_cheaper_way_wins() -> None:
    assert not taught(single_seconds=0.0002, batch_seconds=0.008).prefers_batch(16, 0)
    assert taught(single_seconds=0.0002, batch_seconds=0.008).prefers_batch(128, 0)
    assert taught(single_seconds=0.005, batch_seconds=0.020).prefers_batch(16, 0)


def test_a_way_that_was_once_slow_is_tried_again() -> None:
    pace = taught(single_seconds=0.0002, batch_seconds=1.0)
    groups = 0
    while not pace.prefers_batch(64, 0):
        pace.measured_singles(64, 64 * 0.0002)
        groups += 1
    assert 10 < groups < 500


def test_groups_of_single_messages_are_not_tried_where_they_would_take_long() -> None:
    pace = taught(single_seconds=0.005, batch_seconds=0.020)
    for _ in range(1000):
        pace.measured_batch(1000, 0.050)
    assert pace.prefers_batch(1000, 0)
