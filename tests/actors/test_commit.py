"""Appending until the outcome is known: nothing is written twice, nothing unclear is called failed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from arc_es.actors.commit import Committer
from arc_es.codec import encode
from arc_es.domain.events import CommandExpired
from arc_es.domain.recorded import SERVICE, CommandKey, Decision
from arc_es.journal.memory import Fault, MemoryJournal
from arc_es.ports import Append, AppendOutcome, Conflict, JournalClosed, JournalFull, JournalUnavailable, OutcomeUnknown

SECONDS_MAX = 10.0


def append(name: str, expected: int = 0, command_id: str = "cmd_1") -> Append:
    decision = Decision(name, 0, SERVICE, (CommandExpired(attempt=1, reason="deadline"),))
    return Append(CommandKey("dep", command_id), expected, name, encode(decision))


class Scripted(MemoryJournal):
    """A journal with one fault after the other, one an append; None is no fault. The last one stays."""

    def __init__(self, *faults: Fault | None) -> None:
        super().__init__()
        self.faults = list(faults)
        self.appended = 0

    async def append(self, appends: Sequence[Append]) -> list[AppendOutcome]:
        self.appended += 1
        self.fault = self.faults.pop(0) if len(self.faults) > 1 else self.faults[0]
        outcomes = await super().append(appends)
        self.fault = None
        return outcomes


async def stored(journal: MemoryJournal, command_id: str = "cmd_1") -> list[int]:
    journal.fault = None
    return [message.position for message in await journal.history(CommandKey("dep", command_id))]


async def test_a_lost_acknowledgement_is_committed_once() -> None:
    journal = Scripted(Fault.LOST_ACK)
    assert await Committer(journal, SECONDS_MAX).commit([append("a")]) == [1]
    assert (journal.appended, await stored(journal)) == (1, [1])


@pytest.mark.parametrize("losses", [1, 2, 5])
@pytest.mark.parametrize("fault", [Fault.LOST_SEND, Fault.UNAVAILABLE])
async def test_what_did_not_arrive_is_sent_again(fault: Fault, losses: int) -> None:
    journal = Scripted(*[fault] * losses, None)
    assert await Committer(journal, SECONDS_MAX).commit([append("a")]) == [1]
    assert (journal.appended, await stored(journal)) == (losses + 1, [1])


async def test_a_conflict_with_another_message_is_a_conflict() -> None:
    journal = Scripted(None)
    committer = Committer(journal, SECONDS_MAX)
    await committer.commit([append("other")])
    (outcome,) = await committer.commit([append("mine")])
    assert isinstance(outcome, Conflict)
    assert await stored(journal) == [1]


@pytest.mark.parametrize("fault", [Fault.LOST_SEND, Fault.LOST_ACK])
async def test_what_was_superseded_while_it_was_unclear_is_a_conflict(fault: Fault) -> None:
    journal = Scripted(None, fault, None)
    committer = Committer(journal, SECONDS_MAX)
    await committer.commit([append("other")])
    (outcome,) = await committer.commit([append("mine")])
    assert isinstance(outcome, Conflict)
    assert await stored(journal) == [1]


async def test_a_conflict_with_oneself_is_a_success() -> None:
    """The first sending arrived after all, and the second one met it."""
    journal = Scripted(None)
    mine = append("mine")
    await journal.append([mine])
    assert await Committer(journal, SECONDS_MAX).commit([mine]) == [1]


@pytest.mark.parametrize(
    ("fault", "error"), [(Fault.LOST_SEND, OutcomeUnknown), (Fault.UNAVAILABLE, JournalUnavailable)]
)
async def test_trying_is_bounded(fault: Fault, error: type[Exception]) -> None:
    before = trio.current_time()
    (outcome,) = await Committer(Scripted(fault), SECONDS_MAX).commit([append("a")])
    assert type(outcome) is error
    assert SECONDS_MAX <= trio.current_time() - before < SECONDS_MAX + 1.5


async def test_unavailable_after_a_doubt_stays_a_doubt() -> None:
    (outcome,) = await Committer(Scripted(Fault.LOST_SEND, Fault.UNAVAILABLE), SECONDS_MAX).commit([append("a")])
    assert type(outcome) is OutcomeUnknown


async def test_no_room_is_said_at_once() -> None:
    journal = Scripted(Fault.FULL)
    before = trio.current_time()
    (outcome,) = await Committer(journal, SECONDS_MAX).commit([append("a")])
    assert type(outcome) is JournalFull
    assert (journal.appended, trio.current_time()) == (1, before)


async def test_no_room_after_a_doubt_is_no_refusal() -> None:
    journal = Scripted(Fault.LOST_SEND, Fault.FULL, None)
    assert await Committer(journal, SECONDS_MAX).commit([append("a")]) == [1]
    (outcome,) = await Committer(Scripted(Fault.LOST_SEND, Fault.FULL), SECONDS_MAX).commit([append("b")])
    assert type(outcome) is OutcomeUnknown


async def test_each_of_many_is_settled_by_itself() -> None:
    journal = Scripted(None, Fault.LOST_ACK, None)
    committer = Committer(journal, SECONDS_MAX)
    await committer.commit([append("other", command_id="cmd_2")])
    outcomes = await committer.commit([append(str(n), command_id=f"cmd_{n}") for n in (1, 2, 3)])
    assert [type(outcome) for outcome in outcomes] == [int, Conflict, int]
    assert [await stored(journal, f"cmd_{n}") for n in (1, 2, 3)] == [[2], [1], [3]]


async def test_a_caller_who_leaves_leaves_nothing_half_decided() -> None:
    journal = Scripted(Fault.LOST_SEND, Fault.LOST_SEND, None)
    outcomes: list[AppendOutcome] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        outcomes = await Committer(journal, SECONDS_MAX).commit([append("a")])
    assert outcomes == [1]
    assert await stored(journal) == [1]


async def test_a_closed_journal_ends_the_trying() -> None:
    journal = MemoryJournal()
    journal.close()
    with pytest.raises(JournalClosed):
        await Committer(journal, SECONDS_MAX).commit([append("a")])


async def test_a_journal_that_closes_meanwhile_comes_out_bare() -> None:
    """Not in a group, which nobody would look into."""
    journal = Scripted(Fault.LOST_SEND)
    with trio.move_on_after(3 * SECONDS_MAX):
        async with trio.open_nursery() as nursery:

            async def close() -> None:
                await trio.sleep(1)
                journal.close()

            nursery.start_soon(close)
            with pytest.raises(JournalClosed):
                await Committer(journal, SECONDS_MAX).commit([append("a"), append("b", command_id="cmd_2")])
