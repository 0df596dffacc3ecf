"""kill -9 at each step of archiving, on a real nats-server: nothing is lost, and the next round finishes it."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from arc_es.domain.recorded import CommandKey
from arc_es.journal.jetstream import JetStreamJournal, open_journal
from arc_es.journal.stream import ensure_stream
from arc_es.nats_access import Access
from arc_es.nats_bridge import open_bridge
from tests.archive.told import DAY, LARGE, answers, archived, archiving, ended
from tests.contract.nats_process import NatsProcess
from tests.http.driver import Clock, Served, inline, success

pytestmark = pytest.mark.slow
STEPS = ("draft", "written", "half told", "told", "half purged")


@asynccontextmanager
async def node(url: str, folder: Path, clock: Clock) -> AsyncGenerator[tuple[Served, JetStreamJournal], None]:
    with trio.fail_after(60):
        async with open_bridge(Access([url])) as bridge:
            await bridge.wait_available()
            await ensure_stream(bridge)
            async with open_journal(bridge) as journal, archiving(folder, journal, clock) as served:
                yield served, journal


@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_a_step(tmp_path: Path, step: str) -> None:
    nats, folder, clock = NatsProcess(tmp_path), tmp_path / "archive", Clock()
    await nats.start()
    try:
        async with node(nats.url, folder, clock) as (served, _):
            made = [await ended(served, success(LARGE), params=inline(LARGE)) for _ in range(4)]
            before = [await answers(served, command) for command in made]
            log = await served.node.journal.page(0, 1000, 1 << 30)
        with trio.fail_after(60):
            child = await trio.run_process(
                [sys.executable, "-m", "tests.archive.child", nats.url, str(folder), step], check=False
            )
        assert child.returncode == -signal.SIGKILL
        clock.advance(2 * DAY)
        async with node(nats.url, folder, clock) as (served, journal):
            assert [await answers(served, command) for command in made] == before
            assert await archived(served) == 4
            assert await archived(served) == 0
            assert [await answers(served, command) for command in made] == before
            for command in made:
                (left,) = await journal.history(CommandKey("dep", command))
                assert b"CommandArchived" in left.payload
            assert (await served.node.journal.page(0, 1000, 1 << 30))[: len(log)] == log
        async with node(nats.url, folder, clock) as (served, _):
            assert [await answers(served, command) for command in made] == before
            (await served.respond(made[0], success(b"late"))).ok()
            assert (await served.types(made[0]))[-2:] == ["CommandArchived", "LateResponseRecorded"]
    finally:
        nats.kill()
