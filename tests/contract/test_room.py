"""How much room is left, and who may have it."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from arc_es.journal.room import LIVE_BYTES, Bound, Room

MIB = 1024**2
sizes = st.integers(0, 100 * MIB)


def room(limit: int, used: int, *, live: int = 0, headroom: int = -1, hard: bool = False) -> Room:
    made = Room(headroom)
    made.live = lambda: live
    made.looked([Bound(limit, used, hard)])
    return made


def test_without_a_bound_there_is_room() -> None:
    assert Room().spacious
    assert Room().fits(1 << 60)
    assert not Room().stale


def test_a_tenth_of_the_limit_is_kept() -> None:
    assert room(8 * MIB, 7 * MIB).spacious
    assert not room(8 * MIB, 7 * MIB + MIB // 4).spacious


def test_live_commands_keep_more() -> None:
    assert not room(8 * MIB, 4 * MIB, live=2_000).spacious
    assert room(8 * MIB, 4 * MIB, live=1_000).spacious


def test_a_head_room_that_is_set_counts_alone() -> None:
    assert room(8 * MIB, 8 * MIB - 100, live=1_000_000, headroom=100).spacious
    assert not room(8 * MIB, 8 * MIB - 99, headroom=100).spacious


def test_a_hard_bound_is_not_reached() -> None:
    near = room(20 * MIB, 18 * MIB, hard=True)
    assert near.fits(MIB // 2)
    assert not near.fits(MIB // 2 + 1)
    near.appended(MIB)
    assert not near.fits(1)
    assert room(20 * MIB, 20 * MIB).fits(MIB), "the server itself refuses there, and cleanly"


def test_large_params_leave_all_the_head_room_and_large_answers_half() -> None:
    shared = room(20 * MIB, 10 * MIB, hard=True)  # 9 MiB above the margin, of which 2 are head-room
    assert not shared.take_beside(7 * MIB + 1, "params")
    assert shared.take_beside(7 * MIB, "params")
    assert not shared.take_beside(1, "params")
    assert shared.take_beside(MIB, "response")
    assert not shared.take_beside(1, "response")
    assert not shared.spacious
    assert shared.fits(MIB // 2)


def test_bodies_have_no_part_in_the_limit_of_the_stream() -> None:
    own = room(20 * MIB, 10 * MIB)
    assert own.take_beside(100 * MIB, "params")
    assert own.spacious


@given(limit=sizes, used=sizes, appends=st.lists(st.integers(0, MIB)), live=st.integers(0, 10_000))
def test_what_is_appended_counts_as_if_it_had_been_seen(limit: int, used: int, appends: list[int], live: int) -> None:
    counted = room(limit, used, live=live)
    for size in appends:
        counted.appended(size)
    assert counted.spacious == room(limit, used + sum(appends), live=live).spacious


@given(limit=st.integers(1, 100 * MIB), steps=st.lists(st.integers(-MIB, MIB)))
def test_it_does_not_flap(limit: int, steps: list[int]) -> None:
    """Between closing and opening again lies a quarter of the head-room."""
    watched, used = room(limit, 0), 0
    turned_at: list[int] = []
    for step in steps:
        used = max(0, used + step)
        before = watched.spacious
        watched.looked([Bound(limit, used)])
        if watched.spacious != before:
            turned_at.append(used)
    for one, other in pairwise(turned_at):
        assert abs(one - other) > limit // 10 // 4 - 2


@given(limit=sizes, used=sizes, live=st.integers(0, 10_000))
def test_what_is_kept_is_enough_for_the_live(limit: int, used: int, live: int) -> None:
    if room(limit, used, live=live).spacious:
        assert limit - used >= live * LIVE_BYTES
