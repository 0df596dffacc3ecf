"""The feed of any history, in pages of any size, with a ring of any size."""

from __future__ import annotations

import json
import math
from typing import Any

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arc_es.codec import encode
from arc_es.domain.events import LeaseRenewed
from arc_es.domain.recorded import SERVICE, CommandKey, Decision
from arc_es.domain.tokens import Grant
from arc_es.feed import Feed, Page, Ring, Wanted
from arc_es.journal.memory import MemoryJournal
from arc_es.ports import Append, Message
from tests.http.test_feed import keys


class Books:
    """What the feed looks at, of a journal without a service."""

    def __init__(self) -> None:
        self.applied = 0
        self.on_message: Any = None
        self.deployments = None
        self.draining = False


@given(
    sizes=st.lists(st.integers(1, 3), max_size=40),
    late=st.integers(0, 40),
    ring_bytes=st.sampled_from([0, 3_000, 20_000, 10**6]),
    events_max=st.integers(1, 7),
    start=st.integers(0, 60),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_pages_from_any_position_are_the_rest_of_the_history(
    sizes: list[int], late: int, ring_bytes: int, events_max: int, start: int
) -> None:
    trio.run(check_pages, sizes, late, ring_bytes, events_max, start)


async def check_pages(sizes: list[int], late: int, ring_bytes: int, events_max: int, start: int) -> None:
    journal, books = MemoryJournal(), Books()
    feed = Feed(
        journal=journal,
        models=books,  # type: ignore[arg-type]
        follower=books,  # type: ignore[arg-type]
        lookup=books,  # type: ignore[arg-type]
        long_waits=books,  # type: ignore[arg-type]
        ring_bytes_max=ring_bytes,
    )
    expected: list[tuple[int, int]] = []
    for number, size in enumerate(sizes):
        key = CommandKey("dep", f"c{number}")
        events = tuple(LeaseRenewed(lease_id="l", expires_at=n) for n in range(size))
        payload = encode(Decision("d", 1, SERVICE, events))
        body = b"B" if number % 3 == 0 else None
        (at,) = await journal.append([Append(key, 0, "d", payload, body)])
        assert isinstance(at, int)
        if number >= late:
            books.on_message(at, key, payload)
        books.applied = at
        expected += [(at, index) for index in range(size)]
    got: list[tuple[int, int]] = []
    page = Page([], start, is_end=False)
    while not page.is_end:
        page = await feed.page(page.next, Wanted(Grant("open")), events_max, 10**6)
        got += keys([json.loads(event) for told in page.decisions for event in told.events])
        assert sum(len(told.events) for told in page.decisions) <= max(events_max, 3)
    assert got == [one for one in expected if one[0] > start]


def test_a_ring_keeps_the_newest_and_knows_how_far_it_reaches() -> None:
    ring = Ring(50_000)
    assert not ring.reaches(10**9)
    for position in range(5, 2000, 2):
        ring.put(Message(position, CommandKey("d", "c"), b"x" * 100))
    assert ring._bytes <= 50_000
    assert not ring.reaches(0)
    floor = ring._floor
    assert floor is not math.inf
    entries = ring.after(int(floor), 1000)
    assert [entry.message.position for entry in entries] == list(range(int(floor) + 2, 2000, 2))
    assert ring.after(1999, 10) == []
    assert len(ring._entries) < 500, "what was dropped is let go"
