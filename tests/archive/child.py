"""Archives what is old in a process of its own, which kills itself at a step: URL FOLDER STEP."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, Never

import trio

from arc_es.journal.jetstream import open_journal
from arc_es.nats_access import Access
from arc_es.nats_bridge import open_bridge
from arc_es.ports import Journal
from tests.archive.told import DAY, archived, archiving
from tests.http.driver import Clock

PURGES_MAX = 2


def die(*given: object) -> Never:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


class Dying:
    """A journal that is the last thing of this process."""

    def __init__(self, journal: Journal, step: str) -> None:
        self._journal = journal
        self._step = step
        self._purges = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    async def append(self, appends: Any) -> Any:
        is_mine = b"CommandArchived" in appends[0].payload
        if is_mine and self._step == "written":
            die()
        if is_mine and self._step == "half told":
            await self._journal.append(appends[:1])
            die()
        outcomes = await self._journal.append(appends)
        if is_mine and self._step == "told":
            die()
        return outcomes

    async def purge(self, key: Any, before: int) -> None:
        await self._journal.purge(key, before)
        self._purges += 1
        if self._step == "half purged" and self._purges == PURGES_MAX:
            die()


async def main(url: str, folder: Path, step: str) -> None:
    if step == "draft":
        Path.rename = die  # type: ignore[assignment,method-assign]
    clock = Clock()
    clock.advance(2 * DAY)
    async with open_bridge(Access([url])) as bridge:
        await bridge.wait_available()
        async with (
            open_journal(bridge) as journal,
            archiving(folder, Dying(journal, step), clock) as served,
        ):
            await archived(served)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], Path(sys.argv[2]), sys.argv[3])
