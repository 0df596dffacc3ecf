"""A backup of a running service, and a service made from it."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from tests.e2e.audit import promised_but_not_told
from tests.e2e.crowd import Crowd, Log, without_url
from tests.e2e.http import create_body
from tests.e2e.process import ROOT, ServiceProcess, environ, serving

SECONDS_MAX = 120


async def arc(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """Run `arc-es` to its end."""
    return await trio.run_process(
        [sys.executable, "-m", "arc_es", *arguments],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        cwd=cwd,
        env=environ({}),
    )


def copied(events: list[dict[str, Any]], until: int) -> list[str]:
    """The hashes of what was in the backup; what comes later is the copy's own life."""
    return [event["hash"] for event in events if event["seq"] <= until]


async def histories(service: ServiceProcess, command_ids: set[str]) -> dict[str, list[dict[str, Any]]]:
    async with service.client() as client:
        found = {}
        for command_id in sorted(command_ids):
            answer = await client.call("GET", f"/commands/{command_id}/events")
            assert answer.status == 200, (command_id, answer)
            found[command_id] = answer.json["events"]
        return found


@pytest.mark.slow
@pytest.mark.parametrize("progress", [100, 600])
async def test_a_backup_of_a_busy_service_holds_all_that_was_acknowledged(tmp_path: Path, progress: int) -> None:
    log, copy, target = Log(), tmp_path / "copy", tmp_path / "restored"
    with trio.fail_after(SECONDS_MAX):
        async with serving(tmp_path / "data", "--log-level", "WARNING") as service:
            crowd = Crowd(service, log, Random(7))
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(crowd.caller)
                    nursery.start_soon(crowd.agent)
                await log.until(progress)
                acknowledged, ends = set(log.created), dict(log.ends)
                known = Log(leases=dict(log.leases), released=set(log.released), sent=log.sent)
                known.answered |= {command_id: set(answers) for command_id, answers in log.answered.items()}
                before = await histories(service, acknowledged)
                started = log.progress
                done = await arc("backup", str(copy), "--data-dir", str(service.data_dir), cwd=ROOT)
                during = log.progress - started
                crowd.callers_stop = crowd.agents_stop = True
            after = await histories(service, acknowledged)
            assert await service.terminate() == 0
        assert (done.returncode, done.stderr) == (0, b""), done
        assert during > 0, "nothing happened meanwhile: nothing was tested"
        restored = await arc("restore", str(copy), "--data-dir", str(target), cwd=ROOT)
        assert (restored.returncode, restored.stderr) == (0, b""), restored
        parts = json.loads((copy / "manifest.json").read_text())["parts"]
        until = max(part["stream"]["state"]["last_seq"] for part in parts if part["name"].startswith("ARC."))
        async with serving(target, "--log-level", "WARNING") as service:
            found = await histories(service, acknowledged)
            async with service.client() as client:
                for command_id, end in ends.items():
                    assert without_url((await client.call("GET", f"/commands/{command_id}")).json) == end
                assert (await client.call("POST", "/commands", create_body("a"))).status == 200
    for command_id, events in found.items():
        # what was there before the backup began is there; what was added since may be, as it was
        assert events[: len(before[command_id])] == before[command_id]
        assert copied(events, until) == copied(after[command_id], until)
    for command_id, end in ends.items():
        assert promised_but_not_told(command_id, end, found[command_id], known) == []
    assert log.violations == []


async def test_keys_and_modes(tmp_path: Path) -> None:
    """The directory is its owner's alone; the key comes back, so URLs that were handed out go on working."""
    copy, target = tmp_path / "copy", tmp_path / "restored"
    with trio.fail_after(SECONDS_MAX):
        async with serving(tmp_path / "data") as service, service.client() as client:
            await client.call("POST", "/commands", create_body("a"))
            done = await arc("backup", str(copy), "--data-dir", str(service.data_dir), cwd=ROOT)
            assert done.returncode == 0, done
        restored = await arc("restore", str(copy), "--data-dir", str(target), cwd=ROOT)
    assert restored.returncode == 0, restored
    assert stat.S_IMODE(copy.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in copy.iterdir()} == {0o600}
    names = {part["name"] for part in json.loads((copy / "manifest.json").read_text())["parts"]}
    assert names | {"manifest.json"} == {path.name for path in copy.iterdir()}
    for name in names:
        if not name.endswith(".snapshot"):
            assert (target / name).read_bytes() == (tmp_path / "data" / name).read_bytes()
            assert stat.S_IMODE((target / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
