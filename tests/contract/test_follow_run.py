"""What a follower takes of many frames at once is what it would have taken one by one."""

from __future__ import annotations

import itertools
from typing import TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from arc_es.domain.recorded import CommandKey, DeploymentKey, Key, TokenKey
from arc_es.journal.follow import Cursor, _frame_of
from arc_es.journal.room import Room
from arc_es.journal.subjects import event_subject
from arc_es.journal.watch import StreamWatch
from arc_es.nats_access import Access
from arc_es.nats_bridge import Bridge
from arc_es.nats_frames import Sorter, Taker, none_at_once
from tests.contract.test_frames import HEAD, frame

Handled: TypeAlias = list[tuple[int, Key, bytes]]

IDLE = b"NATS/1.0 100 Idle Heartbeat\r\n\r\n"
NAMES = st.sampled_from(["cmd_1", "a.b", "=", "prod"])
KEYS = st.builds(CommandKey, NAMES, NAMES) | st.sampled_from([DeploymentKey("prod"), TokenKey("t")])
BODIES = st.sampled_from([b"{}", b"x\r\nHMSG arc.event.command.a.b 1 r 1 2\r\n", b"y" * 50])
ACKS = st.sampled_from(["$JS.ACK.ARC", "$JS.ACK.domain.hash.ARC"])


class Refused(Exception):
    """What is handled is refused."""


def delivered(pieces: list[bytes], *, at_once: bool, refuse: int) -> tuple[Handled, int, bool, bool]:
    """What a cursor makes of a stream: what it handled, and how it stands then."""
    bridge = Bridge(None, Access(["nats://127.0.0.1:1"]), 5.0, 3.0)
    handled: Handled = []

    def handle(position: int, key: Key, payload: bytes) -> None:
        if len(handled) == refuse:
            raise Refused
        handled.append((position, key, payload))

    cursor = Cursor(bridge, StreamWatch(bridge, Room()), 0, handle)
    cursor._match = _frame_of("me").match
    sorter = Sorter()
    sorter.takers[b"7"] = Taker(cursor._take, cursor._run if at_once else none_at_once)
    for piece in pieces:
        sorter.sort(piece)
    return handled, cursor.position, cursor.ended.is_set(), isinstance(cursor.failure, Refused)


@given(
    st.lists(st.tuples(KEYS, BODIES, st.booleans()), max_size=9),
    st.integers(0, 30),
    st.integers(0, 30),
    ACKS,
    st.lists(st.integers(0, 2_000), max_size=6),
)
def test_many_at_once_are_the_same_as_one_by_one(
    messages: list[tuple[Key, bytes, bool]], lost: int, refuse: int, ack: str, at: list[int]
) -> None:
    """Whatever their keys, with heartbeats between, with one lost or refused, and wherever the stream is cut."""
    frames = [frame("deliver", 7, "", IDLE, b"")]
    for number, (key, body, beats) in enumerate(messages, start=1):
        if number != lost:
            reply = f"{ack}.me.1.{10 * number}.{number}.1795698017697434669.{len(messages) - number}"
            frames.append(frame(event_subject(key), 7, reply, HEAD if number % 3 else b"", body))
        if beats:
            frames.append(frame("deliver", 7, "", IDLE, b""))
    stream = b"".join(frames)
    marks = sorted({0, len(stream), *(mark for mark in at if mark < len(stream))})
    pieces = [stream[start:end] for start, end in itertools.pairwise(marks)]
    one_by_one = delivered(pieces, at_once=False, refuse=refuse)
    assert one_by_one == delivered(pieces, at_once=True, refuse=refuse)
