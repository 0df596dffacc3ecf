"""The faults of the journal in memory look to its users like those of a real one."""

from __future__ import annotations

import pytest

from arc_es.journal.memory import Fault, MemoryJournal
from arc_es.ports import JournalClosed, JournalError, JournalFull, JournalUnavailable, OutcomeUnknown
from tests.contract.story import command, item


@pytest.mark.parametrize(
    ("fault", "error", "stored"),
    [
        (Fault.LOST_ACK, OutcomeUnknown, True),
        (Fault.LOST_SEND, OutcomeUnknown, False),
        (Fault.FULL, JournalFull, False),
        (Fault.UNAVAILABLE, JournalUnavailable, False),
    ],
)
async def test_a_fault_has_its_outcome(fault: Fault, error: type[JournalError], *, stored: bool) -> None:
    journal = MemoryJournal()
    journal.fault = fault
    (outcome,) = await journal.append([item(command("a"), "one")])
    assert type(outcome) is error
    journal.fault = None
    assert (await journal.last(command("a")) is not None) == stored


async def test_an_unavailable_journal_cannot_be_read() -> None:
    journal = MemoryJournal()
    journal.fault = Fault.UNAVAILABLE
    assert not journal.available
    for read in (journal.end(), journal.read([1]), journal.last(command("a")), journal.history(command("a"))):
        with pytest.raises(JournalUnavailable):
            await read


async def test_a_closed_journal_refuses_further_use() -> None:
    journal = MemoryJournal()
    journal.close()
    with pytest.raises(JournalClosed):
        await journal.append([item(command("a"), "one")])
    with pytest.raises(JournalClosed):
        await journal.end()
