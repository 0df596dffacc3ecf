"""The frames of the NATS protocol, cut from a byte stream however it arrives."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from arc_es.nats_frames import Message, Sorter, Taker
from arc_es.nats_writing import publish_frame


def frame(subject: str, sid: int, reply: str, head: bytes, data: bytes) -> bytes:
    """What the server sends for one message."""
    words = ["HMSG" if head else "MSG", subject, str(sid)] + ([reply] if reply else [])
    words += [str(len(head)), str(len(head) + len(data))] if head else [str(len(data))]
    return " ".join(words).encode() + b"\r\n" + head + data + b"\r\n"


def read_all(pieces: list[bytes], *ours: bytes) -> tuple[list[Message], bytes]:
    """Messages of our subscriptions and all other frames, from a stream that comes in pieces."""
    messages: list[Message] = []
    sorter = Sorter()
    sorter.takers = dict.fromkeys(ours, Taker(messages.append))  # type: ignore[arg-type]  # no connection is lost here
    return messages, b"".join(map(sorter.sort, pieces))


HEAD = b"NATS/1.0\r\nNats-Msg-Id: x\r\nOther:  y \r\n\r\n"


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5), st.lists(st.integers(0, 400), max_size=8))
def test_messages_come_out_whole_wherever_the_stream_was_cut(bodies: list[bytes], at: list[int]) -> None:
    """Bodies may hold CRLF and frames; cuts may fall anywhere."""
    stream = b"".join(
        [
            b"PING\r\n",
            *(
                frame(f"s.{n}", n % 2, f"r.{n}" if n % 3 else "", HEAD if n % 2 else b"", body)
                for n, body in enumerate(bodies)
            ),
            b"+OK\r\n",
        ]
    )
    marks = sorted({0, len(stream), *(mark for mark in at if mark < len(stream))})
    pieces = [stream[start:end] for start, end in itertools.pairwise(marks)]
    messages, others = read_all(pieces, b"0", b"1")
    assert bodies == [message.data for message in messages]
    assert [f"s.{n}" for n in range(len(bodies))] == [message.subject for message in messages]
    assert [f"r.{n}" if n % 3 else "" for n in range(len(bodies))] == [message.reply for message in messages]
    assert others == b"PING\r\n+OK\r\n"


def test_headers_are_read_when_asked_for() -> None:
    """Values are stripped; a message without headers has none."""
    messages, _ = read_all([frame("s", 1, "", HEAD, b"x"), frame("s", 1, "", b"", b"x")], b"1")
    assert [message.headers for message in messages] == [{"Nats-Msg-Id": "x", "Other": "y"}, None]


def test_an_inline_status_is_a_header() -> None:
    """Heartbeats and flow control have a status and a description."""
    head = b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 7\r\n\r\n"
    (message,), _ = read_all([frame("s", 1, "", head, b"")], b"1")
    assert message.headers == {"Status": "100", "Description": "Idle Heartbeat", "Nats-Last-Consumer": "7"}


def test_messages_of_other_subscriptions_are_left_whole() -> None:
    """What is not ours is nats-py's to parse, frame by frame."""
    theirs = frame("s", 2, "", HEAD, b"not ours")
    assert ([], theirs) == read_all([theirs], b"1")


def test_what_is_published_is_a_frame_with_its_headers() -> None:
    """As the documentation of the protocol shows it."""
    frame = publish_frame("arc.event.x", "_INBOX.1", {"Nats-Msg-Id": "é", "Other": "y"}, b"{}\r\n")
    head = "NATS/1.0\r\nNats-Msg-Id: é\r\nOther: y\r\n\r\n".encode()
    assert frame == b"HPUB arc.event.x _INBOX.1 %d %d\r\n" % (len(head), len(head) + 4) + head + b"{}\r\n\r\n"
    assert publish_frame("s", "", {"a": "b"}, b"").startswith(b"HPUB s 18 18\r\n")
