"""Erases a command in a process of its own, which kills itself at a step: URL FOLDER STEP COMMAND."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import trio

from arc_es.journal.jetstream import open_journal
from arc_es.nats_access import Access
from arc_es.nats_bridge import open_bridge
from arc_es.ports import Journal
from tests.archive.child import die
from tests.archive.told import archiving
from tests.http.driver import Clock


class Dying:
    """A journal that is the last thing of this process."""

    def __init__(self, journal: Journal, step: str) -> None:
        self._journal = journal
        self._step = step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    async def append(self, appends: Any) -> Any:
        is_mine = b"CommandErased" in appends[0].payload
        if is_mine and self._step == "decided":
            die()
        outcomes = await self._journal.append(appends)
        if is_mine and self._step == "told":
            die()
        return outcomes

    async def purge(self, key: Any, before: int) -> None:
        if self._step == "half overwritten":
            await self._journal.purge(key, before - 2)
            die()
        await self._journal.purge(key, before)
        if self._step == "overwritten":
            die()


async def main(url: str, folder: Path, step: str, command: str) -> None:
    if step == "draft":
        Path.rename = die  # type: ignore[assignment,method-assign]
    if step == "rewritten":
        Path.unlink = lambda path, missing_ok=False: die()  # type: ignore[assignment,method-assign]
    async with open_bridge(Access([url])) as bridge:
        await bridge.wait_available()
        async with (
            open_journal(bridge) as journal,
            archiving(folder, Dying(journal, step), Clock()) as served,
        ):
            await served.client.post(f"/v1/commands/{command}/erase", {"reason": "case 17"})


if __name__ == "__main__":
    trio.run(main, sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4])
