"""Which position a moment is: one behind which something later comes, the same one however long the journal grows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arc_es.codec import encode
from arc_es.domain.events import TokenRevoked
from arc_es.domain.recorded import SERVICE, Decision, TokenKey
from arc_es.journal.memory import MemoryJournal
from arc_es.ports import Append
from arc_es.snapshots.moment import PRESENT, Moment, located
from tests.http.virtual_time import run


async def journal_of(times: list[int]) -> MemoryJournal:
    """A journal of decisions of these times, some with a body beside them."""
    journal = MemoryJournal()
    for number, at in enumerate(times):
        payload = encode(Decision(f"id-{number}", at, SERVICE, (TokenRevoked(),), None))
        body = b"body" if number % 3 == 2 else None
        await journal.append([Append(TokenKey(f"{number}"), 0, f"id-{number}", payload, body)])
    return journal


async def positions(journal: MemoryJournal) -> list[int]:
    return [message.position for message in await journal.page(0, 1_000, 10**9)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=30), st.integers(0, 51))
def test_clocks_that_go_on_give_the_last_message_up_to_a_time(times: list[int], at: int) -> None:
    async def main() -> None:
        journal = await journal_of(sorted(times))
        places = [0, *await positions(journal)]
        assert await located(journal, Moment(time=at)) == places[sum(time <= at for time in times)]

    run(main)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 20), max_size=30), st.integers(0, 21), st.integers(1, 40))
def test_clocks_that_differ_give_a_border_that_stays_when_the_journal_grows(
    times: list[int], at: int, more: int
) -> None:
    async def main() -> None:
        journal = await journal_of(times)
        places = [0, *await positions(journal)]
        found = places.index(await located(journal, Moment(time=at)))
        assert found == 0 or times[found - 1] <= at
        assert found == len(times) or times[found] > at
        grown = await journal_of([*times, *[at + 1] * more])
        assert await located(grown, Moment(time=at)) == places[found]

    run(main)


@pytest.mark.parametrize("asked", [0, 1, 2, 3])
async def test_a_position_is_itself_up_to_the_present(asked: int) -> None:
    journal = await journal_of([1, 2])
    assert await located(journal, Moment(position=asked)) == min(asked, 2)
    assert await located(journal, PRESENT) == 2
