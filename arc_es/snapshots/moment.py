"""Moments of the past, and which position of a journal one of them is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from arc_es.codec import decode_recorded
from arc_es.domain.ids import Micros
from arc_es.ports import Journal, Message


@dataclass(frozen=True, slots=True)
class Moment:
    """A place in history: a position, or a time, or (with neither) the present."""

    position: int | None = None
    time: Micros | None = None


PRESENT: Final = Moment()


async def located(journal: Journal, moment: Moment) -> int:
    """The position up to which everything had happened then; what has not come yet is the present.

    Raises:
        JournalUnavailable: as the journal.
    """
    end = await journal.end()
    if moment.position is not None:
        return min(moment.position, end)
    return end if moment.time is None else await _last_until(journal, moment.time, end)


async def _last_until(journal: Journal, at: Micros, end: int) -> int:
    """The position of a message that was decided up to a time, and behind which a later one comes; 0 if all are later.

    Clocks of nodes differ, so there may be several such places. Which one is found does not depend on `end`: the same
    places are looked at however long the journal has become, so the same time stays the same position.
    """
    low = found = 0
    for bit in reversed(range(end.bit_length())):
        candidate = low + (1 << bit)
        page = await journal.page(candidate - 1, 1, 1) if candidate <= end else []
        if page and page[0].position <= end and _decided_at(page[0]) <= at:
            low, found = candidate, page[0].position
    return found


def _decided_at(message: Message) -> Micros:
    return decode_recorded(message.position, message.key, message.payload).at
