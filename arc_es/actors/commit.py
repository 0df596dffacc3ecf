"""Appending until the outcome is known.

A journal may lose an acknowledgement. Then the message may be there, or may still arrive, and nobody may call it
failed. The way out: read the last message of the history from the leader and compare ids. It is mine: stored. It is
another: superseded. It is the old one: absent, which is not final, so send the same bytes again; the expected version
makes that safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio

from arc_es.codec import decode
from arc_es.ports import Append, AppendOutcome, Conflict, Journal, JournalFull, JournalUnavailable, OutcomeUnknown

RETRY_SECONDS_FIRST: Final = 0.05
RETRY_SECONDS_MAX: Final = 1.0


class Committer:
    """Appends through troubles, for a bounded time."""

    def __init__(self, journal: Journal, seconds_max: float) -> None:
        self.conflicts = 0
        """How many appends lost a race to another writer."""
        self._journal = journal
        self._seconds_max = seconds_max

    async def commit(self, appends: Sequence[Append]) -> list[AppendOutcome]:
        """Store messages; each outcome is a position, Conflict, JournalFull, JournalUnavailable or OutcomeUnknown.

        JournalUnavailable (nothing was written) and OutcomeUnknown are answered only after retrying for the bound. The
        work is shielded from cancellation, so that a caller who leaves cannot leave a history half-decided.

        Raises:
            JournalClosed: the service is ending.
            JournalCorrupt: the last message of a history cannot be understood.
        """
        with trio.CancelScope(shield=True):
            outcomes = await self._journal.append(appends)
            unclear = [index for index, outcome in enumerate(outcomes) if not isinstance(outcome, int | JournalFull)]
            if unclear:
                await self._settle_each(appends, outcomes, unclear)
                self.conflicts += sum(isinstance(outcome, Conflict) for outcome in outcomes)
        return outcomes

    async def _settle_each(
        self, appends: Sequence[Append], outcomes: list[AppendOutcome], unclear: Sequence[int]
    ) -> None:
        deadline = trio.current_time() + self._seconds_max
        failures: list[Exception] = []

        async def settle(index: int) -> None:
            try:
                outcomes[index] = await self._settle(appends[index], outcomes[index], deadline)
            except Exception as failure:  # noqa: BLE001 - raised below, so that the nursery does not wrap it
                failures.append(failure)

        async with trio.open_nursery() as nursery:
            for index in unclear:
                nursery.start_soon(settle, index)
        if failures:
            raise failures[0]

    async def _settle(self, append: Append, outcome: AppendOutcome, deadline: float) -> AppendOutcome:
        """Find out what became of one append, sending it again as often as needed."""
        pause_seconds = RETRY_SECONDS_FIRST
        ambiguous = isinstance(outcome, OutcomeUnknown)
        while not isinstance(outcome, int):
            if isinstance(outcome, JournalFull) and not ambiguous:  # an earlier sending may still arrive, room or not
                break
            found = await self._look(append)
            if found is not None:
                return found
            if trio.current_time() >= deadline:
                unknown = OutcomeUnknown("The journal did not say in time whether it stored the message")
                return unknown if ambiguous else JournalUnavailable("The journal cannot be reached")
            await trio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, RETRY_SECONDS_MAX)
            outcome = (await self._journal.append([append]))[0]
            ambiguous = ambiguous or isinstance(outcome, OutcomeUnknown)
        return outcome

    async def _look(self, append: Append) -> AppendOutcome | None:
        """The settled outcome as the leader's last message shows it; None: not settled yet."""
        try:
            for part in (append, *append.together):
                last = await self._journal.last(part.key)
                if last is None or last.position == part.expected:
                    continue
                if decode(last.payload).id != part.id:
                    return Conflict(f"Message {last.position} was stored first")
                if part is append:
                    return last.position
        except JournalUnavailable:
            pass
        return None
