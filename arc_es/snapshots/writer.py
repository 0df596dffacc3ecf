"""Sees to it that there is a recent snapshot: another process makes it, from the last one and what came after.

Why another process: to go through all projections takes seconds, and every way to do that in this one costs requests
something (docs/decisions/snapshots.md). The other one folds the same journal, so what it writes is exactly as of one
position, however busy this one is.
"""

from __future__ import annotations

import logging
import math
import time
from typing import Final

import trio

from arc_es.config import Config
from arc_es.snapshots.child import Aside, OutputTooLong
from arc_es.snapshots.folder import FOLDER, remove_before
from arc_es.views import ReadModels

LOOK_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 60.0
"""After one that could not be written."""
TAIL_EVENTS_MIN: Final = 10_000
"""Fewer are folded at the next start in less than a second: no reason to make anybody wait at the end."""

LAST_SECONDS_MAX: Final = 30.0
"""How long the end of the service may wait for it; then it is done without."""

log = logging.getLogger("arc_es.snapshots")


class SnapshotWriter:
    """One of a service. `snapshot_seconds` 0 turns it off."""

    def __init__(self, models: ReadModels, aside: Aside, config: Config) -> None:
        self._models = models
        self._aside = aside
        self._every_seconds = config.snapshot_seconds
        self._every_events = config.snapshot_events
        self._folder = config.data_dir / FOLDER
        self._events = 0
        self._since = time.monotonic()
        self._one_at_a_time = trio.Lock()
        self._under_way = trio.CancelScope()

    def started_from(self, events: int) -> None:
        """There is a snapshot with so many events in it."""
        self._events = events

    async def run(self) -> None:
        """Write for ever, when it is time to."""
        while self._every_seconds > 0:
            await trio.sleep(LOOK_SECONDS)
            if self._is_due() and not await self._write():
                await trio.sleep(RETRY_SECONDS)

    def _is_due(self) -> bool:
        new = self._models.stats.events - self._events
        waited = time.monotonic() - self._since
        return new >= self._every_events or (new > 0 and waited >= self._every_seconds)

    async def forget_before(self, position: int) -> None:
        """Remove the snapshots of an earlier position, break off one that is being written, and write a new one soon.

        Raises:
            OSError: one cannot be removed.
        """
        self._under_way.cancel()
        async with self._one_at_a_time:
            await trio.to_thread.run_sync(remove_before, self._folder, position)
        self._since = -math.inf

    async def _write(self) -> bool:
        """Write one. False: it could not be."""
        async with self._one_at_a_time:
            with trio.CancelScope() as self._under_way:
                return await self._write_one()
        return True

    async def _write_one(self) -> bool:
        events = self._models.stats.events
        try:
            ended = await self._aside(["snapshot", "take"])
            why = None if ended.status == 0 else ended.last_words or f"exit status {ended.status}"
        except (OSError, OutputTooLong) as error:
            why = str(error)
        if why is None:
            self._events, self._since = events, time.monotonic()
        else:
            log.warning("No snapshot could be written: %s", why)
        return why is None

    async def last(self) -> None:
        """Write one more when nothing is applied any more, if the next start would feel that it is missing."""
        if self._every_seconds > 0 and self._models.stats.events - self._events >= TAIL_EVENTS_MIN:
            with trio.move_on_after(LAST_SECONDS_MAX):
                await self._write()
