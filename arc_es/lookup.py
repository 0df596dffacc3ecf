"""Finding a command as it is now: what is overdue on it is applied first.

What ended long ago is not in memory any more. The index says of which deployment it is, and nothing else: its history
is read from the journal, and folded as always.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import trio

from arc_es.actors.follower import Follower
from arc_es.actors.turns import Ask, Turns
from arc_es.domain.errors import CommandNotFound
from arc_es.domain.intents import Tick
from arc_es.domain.recorded import SERVICE, CommandKey
from arc_es.domain.state import next_due
from arc_es.ports import Clock, Journal, JournalError, JournalUnavailable, Overloaded
from arc_es.summaries import CommandIndex
from arc_es.views import ReadModels, Row

OVERDUE_SECONDS_MAX: Final = 2.0
"""How long a status poll waits until what is overdue has been applied."""


class Lookup:
    """Rows of commands by id."""

    def __init__(
        self,
        journal: Journal,
        models: ReadModels,
        follower: Follower,
        turns: Turns,
        clock: Clock,
        index: CommandIndex,
    ) -> None:
        self._journal = journal
        self._index = index
        self._models = models
        self._follower = follower
        self._turns = turns
        self._clock = clock

    async def current_if_possible(self, command_id: str) -> Row:
        """As `current`, or as last applied while the journal has trouble: a poll that fails ends its sender's call."""
        if self._journal.available:
            with trio.move_on_after(OVERDUE_SECONDS_MAX), suppress(JournalError, Overloaded):
                return await self.current(command_id)
        row = self._models.status.get(command_id)
        if row is not None:
            return row
        if await self._index.deployment_of(command_id) is None:
            raise CommandNotFound
        raise JournalUnavailable("This command has to be read from the journal, which is not possible now")

    async def current(self, command_id: str) -> Row:
        """The row, after what is overdue has been applied."""
        row = await self.known(command_id)
        due_at = next_due(row.state)
        if due_at is None or due_at > self._clock.now():
            return row
        tick = Tick(jitter=random.random())  # noqa: S311 - jitter, no secret
        ask = Ask(command_id, row.state.facts.route.deployment_id, tick, SERVICE)
        return await self._turns.perform(ask)

    async def known(self, command_id: str) -> Row:
        """The row; raises CommandNotFound only when no node has made the command."""
        row = await self.found(command_id) or await self.latest(command_id)  # another node may have just made it
        if row is None:
            raise CommandNotFound
        return row

    async def known_each(self, command_ids: Sequence[str]) -> list[Row | None]:
        """The rows of commands, None for those that no node has made. Raises JournalError."""
        rows = [self._models.status.get(command_id) for command_id in command_ids]
        missing = [index for index, row in enumerate(rows) if row is None]
        if missing:
            await self._follower.caught_up()
        for index in missing:
            rows[index] = await self.found(command_ids[index])
        return rows

    async def latest(self, command_id: str) -> Row | None:
        """The row, with all that any node has stored up to now; None if there is no such command."""
        await self._follower.caught_up()
        return await self.found(command_id)

    async def found(self, command_id: str) -> Row | None:
        """The row, in memory or put back there; None if this node knows of no such command."""
        row = self._models.status.get(command_id)
        if row is not None:
            return row
        deployment_id = await self._index.deployment_of(command_id)
        if deployment_id is None:
            return self._models.status.get(command_id)
        return await self._turns.recall(CommandKey(deployment_id, command_id))

    async def next_holder(self, previous: str, next_of: Callable[[str], str]) -> str:
        """The newest of the commands that came after `previous` with its idempotency key, or the id for a new one."""
        return await self._index.newest_of(next_of(previous), next_of)

    def row(self, command_id: str) -> Row:
        """The row of a command that is live, and so in memory. Raises CommandNotFound."""
        row = self._models.status.get(command_id)
        if row is None:
            raise CommandNotFound
        return row
