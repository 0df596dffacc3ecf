"""A real data directory with an archive: the service, the command line and a backup see one journal."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio

from arc_es.archive.archiver import Archiver
from arc_es.bootstrap import assemble
from arc_es.config import Config
from arc_es.domain.ids import Micros
from arc_es.domain.limits import SECOND
from arc_es.stores import open_stores
from tests.archive.told import DAY
from tests.e2e.http import SUCCESS, create_body, lease_body, submit_path
from tests.e2e.process import ServiceProcess, environ, serving

pytestmark = pytest.mark.slow
SECONDS_MAX = 180
ENDED, LIVE = 12, 3
OFF = {"ARC_SNAPSHOT_SECONDS": "0"}


class Later:
    """A clock that is two days ahead."""

    def now(self) -> Micros:
        return time.time_ns() // 1_000 + 2 * DAY * SECOND


async def archive(data_dir: Path) -> int:
    """Archive what has ended, as the service would in two days."""
    config = Config(data_dir=data_dir, checkpoint_seconds=3_600)
    async with open_stores(config) as (journal, store, _), trio.open_nursery() as nursery:
        node = assemble(journal, config, store=store, index_dir=data_dir / "index")
        await nursery.start(node.run)
        await node.index.reached(node.follower.applied)
        archived = await Archiver(journal, node.index, Later(), after_seconds=DAY, append_seconds_max=5).once()
        nursery.cancel_scope.cancel()
    return archived


async def arc(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "arc_es", *map(str, arguments)]
    done = await trio.run_process(
        command, capture_stdout=True, capture_stderr=True, check=False, cwd=cwd, env=environ({})
    )
    assert done.returncode == 0, done
    return done


async def some_life(service: ServiceProcess) -> list[str]:
    async with service.client() as client:
        bodies = [create_body(f"t{number}") for number in range(ENDED + LIVE)]
        created = [(await client.call("POST", "/v1/commands", body)).json["commandId"] for body in bodies]
        for number in range(ENDED):
            (lease,) = (await client.call("POST", "/v1/commands/leases", lease_body(f"t{number}"))).json["leases"]
            assert (await client.call("PUT", submit_path(lease), SUCCESS)).status == 200
    return created


async def answers(service: ServiceProcess, command_ids: list[str]) -> list[Any]:
    async with service.client() as client:
        told = [(await client.call("GET", f"/v1/commands/{name}")).json for name in command_ids]
        for name in command_ids:
            events = (await client.call("GET", f"/v1/commands/{name}/events")).json["events"]
            told.append([event for event in events if event["type"] != "CommandArchived"])
        return told


async def types(service: ServiceProcess) -> Counter[str]:
    async with service.client() as client:
        events = (await client.call("GET", "/v1/events?after=0&limit=1000")).json["events"]
        return Counter(event["type"] for event in events)


async def test_an_archive_is_part_of_the_journal(tmp_path: Path) -> None:
    data, copy, restored = tmp_path / "data", tmp_path / "copy", tmp_path / "restored"
    with trio.fail_after(SECONDS_MAX):
        async with serving(data, **OFF) as service:
            made = await some_life(service)
            before = await answers(service, made)
            assert await service.terminate() == 0
        assert await archive(data) == ENDED
        async with serving(data, **OFF) as service:
            assert await answers(service, made) == before
            told = await types(service)
            assert (told["CommandCreated"], told["CommandArchived"]) == (ENDED + LIVE, ENDED)
            await arc("verify", "--data-dir", data, cwd=tmp_path)
            await arc("snapshot", "take", "--data-dir", data, cwd=tmp_path)
            await arc("replay", "--verify", "--data-dir", data, cwd=tmp_path)
            await arc("backup", copy, "--data-dir", data, cwd=tmp_path)
            assert await service.terminate() == 0
        await arc("restore", copy, "--data-dir", restored, cwd=tmp_path)
        async with serving(restored, **OFF) as service:
            assert await answers(service, made) == before
            assert await service.terminate() == 0
        await refused_without(restored)


async def refused_without(data_dir: Path) -> None:
    """A start without the files says which one is missing."""
    (segment,) = (data_dir / "archive").glob("*.zst")
    for path in (data_dir / "archive").iterdir():
        path.unlink()
    service = ServiceProcess(data_dir, **OFF)
    await service.spawn()
    assert await service.wait() != 0
    assert segment.name in service.stderr.read_text()
    assert "bug" not in service.stderr.read_text()
