"""Collecting bodies that nothing refers to: of creates that never came to be, of uploads that were not used.

A body is stored before the event that names it, so for a moment nothing refers to one that is needed. Such a moment is
bounded: a request ends within minutes. So what is younger than `orphan_seconds_min` (a day; never below an hour) is
left alone, and so is what this process stored within the last hour, for the clock may have jumped. Everything else that
is deleted can never be named again: its command has ended without it, or does not exist although its body is a day old.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

import trio

from arc_es.actors.follower import Follower
from arc_es.bodies import Bodies, InStore
from arc_es.domain.limits import SECOND
from arc_es.domain.state import TERMINAL, PendingUpload, Succeeded
from arc_es.lookup import Lookup
from arc_es.payloads import Payloads
from arc_es.ports import BodyStoreError, Clock, JournalError, StoredName
from arc_es.views import ReadModels, Row

BATCH_MAX: Final = 500

log = logging.getLogger("arc_es.sweep")


class Sweep:
    """Removes what is not needed from the body store."""

    def __init__(
        self,
        models: ReadModels,
        follower: Follower,
        bodies: Bodies,
        payloads: Payloads,
        lookup: Lookup,
        clock: Clock,
        *,
        every_seconds: float,
        orphan_seconds_min: float,
    ) -> None:
        self._models = models
        self._follower = follower
        self._bodies = bodies
        self._payloads = payloads
        self._lookup = lookup
        self._clock = clock
        self._every_seconds = every_seconds
        self._orphan_micros_min = round(orphan_seconds_min * SECOND)

    async def run(self) -> None:
        """Sweep for ever, every so often; what fails now is done the next time."""
        while True:
            await trio.sleep(self._every_seconds)
            try:
                deleted = await self.once()
            except (BodyStoreError, JournalError) as trouble:
                log.warning("Cannot collect unused bodies now, will try again: %s", trouble)
            else:
                if deleted:
                    log.info("Collected %d bodies that nothing refers to", deleted)

    async def once(self) -> int:
        """Look at everything that is stored; returns how many bodies were deleted.

        Raises:
            BodyStoreError, JournalError: not all could be looked at.
        """
        deleted = 0
        old: list[StoredName] = []
        async with aclosing(self._bodies.store.names()) as names:
            async for name in names:
                if name.at <= self._clock.now() - self._orphan_micros_min:
                    old.append(name)
                if len(old) >= BATCH_MAX:
                    deleted += await self._collect(old)
                    old = []
        return deleted + await self._collect(old)

    async def _collect(self, names: Sequence[StoredName]) -> int:
        if not names:
            return 0
        await self._follower.caught_up()  # also with what other nodes created before we looked
        unused = [stored for stored in names if not await self._needed(stored)]
        for stored in unused:
            await self._bodies.store.delete(stored.name)
        return len(unused)

    async def _needed(self, stored: StoredName) -> bool:
        """Whether something refers to it, or still may."""
        if self._bodies.is_young(stored.name):
            return True
        command_id = stored.slot.command_id
        row = await self._lookup.found(command_id)
        if row is not None:
            needed = self._params_needed if stored.slot.kind == "params" else self._response_needed
            return await needed(stored, row)
        if stored.is_upload or self._models.payloads.get(command_id) is None:
            return False
        payloads = self._payloads
        found = await (payloads.params if stored.slot.kind == "params" else payloads.answer)(command_id)
        return isinstance(found, InStore) and found.ref == stored.name

    async def _params_needed(self, stored: StoredName, row: Row) -> bool:
        if isinstance(row.state, PendingUpload):
            return True
        if stored.is_upload or row.state.facts.params_place != "store":
            return False
        found = await self._bodies.params(row)
        return isinstance(found, InStore) and found.ref == stored.name

    async def _response_needed(self, stored: StoredName, row: Row) -> bool:
        if not isinstance(row.state, TERMINAL):
            return True
        if stored.is_upload or not isinstance(row.state, Succeeded):
            return False
        found = await self._bodies.answer(row)
        return isinstance(found, InStore) and found.ref == stored.name
