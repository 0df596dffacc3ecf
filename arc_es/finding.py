"""Lists of commands, and one of them with all that is known of it (extensions, "Finding")."""

from __future__ import annotations

from arc_es.actors.follower import Follower
from arc_es.codec import decode_recorded
from arc_es.domain.recorded import CommandKey
from arc_es.lookup import Lookup
from arc_es.ports import Journal
from arc_es.summaries import CommandIndex, Find, Page, Summary, Traces, summary_of
from arc_es.views import Row


class Finding:
    """Finds commands by the index, and reads one command from its history."""

    def __init__(self, index: CommandIndex, lookup: Lookup, follower: Follower, journal: Journal) -> None:
        self._index = index
        self._lookup = lookup
        self._follower = follower
        self._journal = journal

    async def page(self, find: Find) -> Page:
        """A page of a list, at least as new as everything that was applied before.

        Raises:
            Overloaded: the index does not come so far in time.
        """
        await self._index.reached(self._follower.applied)
        return await self._index.find(find)

    async def summary(self, command_id: str) -> tuple[Summary, Row]:
        """The summary of a command, folded from its history. Between its return and the next checkpoint row agrees.

        Raises:
            CommandNotFound: unknown id.
            JournalError: the history cannot be read.
        """
        row = await self._lookup.current(command_id)
        key = CommandKey(row.state.facts.route.deployment_id, command_id)
        while True:
            history = await self._journal.history(key)
            await self._follower.reached(history[-1].position)
            row = await self._lookup.known(command_id)
            if row.version == history[-1].position:
                break
        traces = Traces()
        for message in history:
            recorded = decode_recorded(message.position, key, message.payload)
            traces.follow(recorded.events, recorded.at)
        return summary_of(command_id, row.state, traces), row
