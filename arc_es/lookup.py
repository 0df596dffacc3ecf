"""Finding a command as it is now: what is overdue on it is applied first."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import trio

from arc_es.actors.follower import Follower
from arc_es.actors.turns import Ask, Turns
from arc_es.domain.errors import CommandNotFound
from arc_es.domain.intents import Tick
from arc_es.domain.recorded import SERVICE
from arc_es.domain.state import next_due
from arc_es.ports import Clock, Journal, JournalError, Overloaded, ReadModels, Row

OVERDUE_SECONDS_MAX: Final = 2.0
"""How long a status poll waits until what is overdue has been applied."""


class Lookup:
    """Rows of commands by id."""

    def __init__(self, journal: Journal, models: ReadModels, follower: Follower, turns: Turns, clock: Clock) -> None:
        self._journal = journal
        self._models = models
        self._follower = follower
        self._turns = turns
        self._clock = clock

    async def current_if_possible(self, command_id: str) -> Row:
        """As `current`, or as last applied while the journal has trouble: a poll that fails ends its sender's call."""
        if self._journal.available:
            with trio.move_on_after(OVERDUE_SECONDS_MAX), suppress(JournalError, Overloaded):
                return await self.current(command_id)
        return self.row(command_id)

    async def current(self, command_id: str) -> Row:
        """The row, after what is overdue has been applied."""
        row = await self.known(command_id)
        due_at = next_due(row.state)
        if due_at is None or due_at > self._clock.now():
            return row
        ask = Ask(command_id, row.state.facts.route.deployment_id, Tick(), SERVICE)
        return await self._turns.perform(ask)

    async def known(self, command_id: str) -> Row:
        """The row; raises CommandNotFound only when no node has made the command."""
        if self._models.status.get(command_id) is None:
            await self.latest(command_id)  # another node may have made it a moment ago
        return self.row(command_id)

    async def latest(self, command_id: str) -> Row | None:
        """The row, with all that any node has stored up to now; None if there is no such command."""
        await self._follower.caught_up()
        return self._models.status.get(command_id)

    def row(self, command_id: str) -> Row:
        row = self._models.status.get(command_id)
        if row is None:
            raise CommandNotFound
        return row
