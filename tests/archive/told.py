"""Sentences about a service that archives."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from arc_es.archive.archive import Archive
from arc_es.archive.archiver import Archiver
from arc_es.archive.journal import ArchivedJournal
from arc_es.journal.memory import MemoryJournal
from arc_es.ports import Journal
from tests.http.driver import Clock, Served, serving, success

DAY = 86_400
LARGE = b"x" * 20_000
"""Lies beside its event."""


def opened(folder: Path) -> Archive:
    archive = Archive(folder)
    archive.open()
    return archive


@asynccontextmanager
async def archiving(
    folder: Path, journal: Journal | None = None, clock: Clock | None = None, **settings: Any
) -> AsyncGenerator[Served, None]:
    """A service with an archive; what is a day old goes there when it is told to."""
    merged = ArchivedJournal(journal or MemoryJournal(), opened(folder))
    await merged.check()
    await merged.prepare()
    async with serving(merged, clock, **settings) as served:  # type: ignore[arg-type]  # looks at most inside its own
        yield served
    merged.archive.close()


def archiver_of(served: Served) -> Archiver:
    journal = served.node.journal
    assert isinstance(journal, ArchivedJournal)
    return Archiver(journal, served.node.index, served.clock, after_seconds=DAY, append_seconds_max=5)


async def archived(served: Served, archiver: Archiver | None = None) -> int:
    with trio.fail_after(30):
        await served.node.follower.caught_up()
        await served.node.index.reached(served.node.follower.applied)
        count = await (archiver or archiver_of(served)).once()
        await served.node.follower.caught_up()
        return count


async def ended(served: Served, answer: Any = None, **more: Any) -> str:
    command = await served.create(**more)
    await served.lease()
    (await served.respond(command, answer or success())).ok()
    return command


async def answers(served: Served, command: str) -> list[Any]:
    """All that is said of a command, but for what tells that it was archived."""
    ways = [f"/v1/commands/{command}{way}" for way in ("", "/payload", "?view=full", "/explain", "/events")]
    told = [(await served.client.get(way)).ok() for way in ways]
    events = told[-1]["events"] = [event for event in told[-1]["events"] if event["type"] != "CommandArchived"]
    positions = [event["seq"] for event in events]
    told += [(await served.client.get(f"/v1/commands/{command}?asOf={position}")).ok() for position in positions]
    return told
