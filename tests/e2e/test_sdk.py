"""Callers and workers of the SDK, through kills, cuts and hangs: every command ends once, and its history tells all."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.audit import Story
from tests.e2e.cutter import Cutter, cutting
from tests.e2e.process import ROOT, ServiceProcess, environ, serving
from tests.e2e.sdk_crowd import LEASE_SECONDS

pytestmark = pytest.mark.slow

COMMANDS = 60
BUSY_SECONDS_MAX = 4
SECONDS_MAX = 170


class Crowd:
    """Processes with the SDK, behind a proxy."""

    def __init__(self, cutter: Cutter, backend: str, folder: Path) -> None:
        self._cutter = cutter
        self._backend = backend
        self.journal = folder / "runs"
        self._said = folder / "calls"
        self._errors = folder / "errors"
        self.processes: list[trio.Process] = []

    async def start(self, role: str, argument: str) -> trio.Process:
        command = [sys.executable, "-m", "tests.e2e.sdk_crowd", role, self._backend, self._cutter.url, argument]
        with self._said.open("ab") as out, self._errors.open("ab") as err:
            process = await trio.lowlevel.open_process(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environ({}), cwd=ROOT
            )
        self.processes.append(process)
        return process

    async def worker(self) -> trio.Process:
        return await self.start("work", str(self.journal))

    @property
    def calls(self) -> list[tuple[str, str, str]]:
        """Id, name and outcome of each command that ended for its caller."""
        return [tuple(json.loads(line)) for line in self._said.read_text().splitlines()]

    @property
    def runs(self) -> Counter[tuple[str, int]]:
        """How often a handler was run for an attempt of a command."""
        lines = [json.loads(line) for line in self.journal.read_text().splitlines()]
        return Counter((command_id, attempt) for command_id, attempt, *_ in lines)

    async def busy(self, worker: trio.Process) -> None:
        """Wait until a worker begins with something longer than its lease; not for ever: others may have all of it."""
        begun = self._slow_runs_of(worker)
        with trio.move_on_after(BUSY_SECONDS_MAX):
            while self._slow_runs_of(worker) == begun:  # noqa: ASYNC110
                await trio.sleep(0.05)  # another process cannot set our event

    def _slow_runs_of(self, worker: trio.Process) -> int:
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [json.loads(line)[2:] for line in lines].count(["slow", worker.pid])

    @property
    def errors(self) -> str:
        return self._errors.read_text()


@asynccontextmanager
async def crowded(service: ServiceProcess, backend: str, folder: Path) -> AsyncIterator[tuple[Crowd, Cutter]]:
    async with cutting(service.port) as cutter:
        crowd = Crowd(cutter, backend, folder)
        try:
            yield crowd, cutter
        finally:
            for process in crowd.processes:
                process.kill()
            with trio.CancelScope(shield=True):
                for process in crowd.processes:
                    await process.wait()


async def make_trouble(service: ServiceProcess, crowd: Crowd, cutter: Cutter, workers: list[trio.Process]) -> None:
    """Everything that may happen on a bad day, one after the other."""
    await crowd.busy(workers[0])
    cutter.set("stall")
    await trio.sleep(1.5)
    cutter.set("pass")
    await crowd.busy(workers[1])
    await service.kill()
    await service.start()
    await crowd.busy(workers[0])
    workers[0].send_signal(signal.SIGSTOP)  # as a machine that is put to sleep: its clocks and leases go on without it
    cutter.set("drop")
    await trio.sleep(1)
    cutter.set("pass")
    cutter.reset()
    await trio.sleep(LEASE_SECONDS + 1)
    workers[0].send_signal(signal.SIGCONT)
    await crowd.busy(workers[1])
    workers[1].kill()
    workers.append(await crowd.worker())
    cutter.set("refuse")
    cutter.reset()
    await trio.sleep(0.5)
    cutter.set("pass")


async def history(service: ServiceProcess, command_id: str) -> list[dict[str, Any]]:
    async with service.client() as client:
        answer = await client.call("GET", f"/v1/commands/{command_id}/events")
        events: list[dict[str, Any]] = answer.json["events"]
        return events


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
async def test_every_command_ends_once_whatever_happens(backend: str, tmp_path: Path) -> None:
    with trio.fail_after(SECONDS_MAX):
        async with serving(tmp_path / "data") as service, crowded(service, backend, tmp_path) as (crowd, cutter):
            workers = [await crowd.worker(), await crowd.worker()]
            caller = await crowd.start("call", str(COMMANDS))
            await make_trouble(service, crowd, cutter, workers)
            assert await caller.wait() == 0, crowd.errors
            for worker in (workers[0], workers[2]):
                worker.send_signal(signal.SIGTERM)
                assert await worker.wait() == 0, crowd.errors
            await check(service, crowd)


async def check(service: ServiceProcess, crowd: Crowd) -> None:
    """What callers were told is right; histories are sound; handlers ran only for deliveries that are in them."""
    assert len(crowd.calls) == COMMANDS, crowd.errors
    assert [call for call in crowd.calls if call[2] != "right"] == []
    leased: set[tuple[str, int]] = set()
    types: Counter[str] = Counter()
    for command_id, *_ in crowd.calls:
        events = await history(service, command_id)
        types.update(event["type"] for event in events)
        story = Story(events)
        assert story.violations == [], command_id
        assert story.end is not None
        assert story.end["type"] == "CommandSucceeded"
        leased |= {(command_id, attempt) for _, attempt in story.leases}
    assert {run for run in crowd.runs if run not in leased} == set()
    assert {run: times for run, times in crowd.runs.items() if times > 1} == {}
    assert len({command_id for command_id, _ in crowd.runs}) == COMMANDS
    assert "Traceback" not in crowd.errors
    assert types["LeaseExpired"] > 0, "the troubles troubled nobody"
    assert types["LeaseRenewed"] > 0
