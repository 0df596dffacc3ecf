"""The how-to for auditors keeps its word on the log of a service that was killed again and again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
import trio

from tests.e2e.crowd import Crowd, Log
from tests.e2e.process import ServiceProcess, environ, serving
from tests.e2e.test_kill import AGENTS, CALLERS, check_histories, kill_now, settle

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"<!-- audit -->\n```bash\n(.*?)```\n<!-- end of audit -->", re.DOTALL)
KILLS = ("service", "both", "nats", "twice")
OFTEN = {"ARC_SNAPSHOT_SECONDS": "1", "ARC_CHECKPOINT_SECONDS": "1", "ARC_APPEND_SECONDS_MAX": "1"}
EXAMPLE_ID, EXAMPLE_MOMENT = "cmd_345f9123-71d2-8864-88ea-4694001a7cca", "2026-11-17T14:02:00Z"


async def test_an_auditor_gets_from_a_question_to_a_proof_after_kills(tmp_path: Path) -> None:
    began = now()
    with trio.fail_after(240):
        async with serving(tmp_path / "data", "--log-level", "WARNING", **OFTEN) as service:
            log, early, moment = await stormed(service)
            script = walk(tmp_path, early, began, moment)
            said = await shell(tmp_path, service, script)
            check_said(said, log)
            await check_feed(tmp_path, service, log)
            offline = await arc(tmp_path, "replay", "--verify", "--json", "--data-dir", "data")
            replays = json.loads(offline.stdout)["replays"]
            assert offline.returncode == 0, offline.stdout + offline.stderr
            assert len({one["digest"] for one in replays if "digest" in one}) == 1
            assert await service.terminate() == 0
    assert log.violations == []
    assert "Traceback" not in service.stderr.read_text()


async def stormed(service: ServiceProcess) -> tuple[Log, str, datetime]:
    """Callers and agents at work while all is killed again and again.

    Their log, a moment in the middle, and a command that was created before it.
    """
    log, random, early, moment = Log(), Random(7), "", now()
    async with trio.open_nursery() as nursery:
        crowd = Crowd(service, log, random)
        for _ in range(CALLERS):
            nursery.start_soon(crowd.caller)
        for _ in range(AGENTS):
            nursery.start_soon(crowd.agent)
        for number, kill in enumerate(KILLS):
            await log.until(log.progress + 100)
            early = early or min(log.created)
            moment = now() if number == len(KILLS) // 2 else moment
            await kill_now(service, kill, crowd, log)
        crowd.callers_stop = True
        await settle(service)
        crowd.agents_stop = True
    await check_histories(service, log)
    return log, early, moment


def now() -> datetime:
    return datetime.now(UTC)


def walk(folder: Path, command_id: str, began: datetime, moment: datetime) -> str:
    """The commands of the page, for this service and this day. The key comes from its operator, as the page says."""
    page = (ROOT / "docs/howto/history.md").read_text("utf-8")
    blocks = BLOCK.findall(page)
    assert len(blocks) == 6
    script = "".join(blocks)
    for example, real in (
        (EXAMPLE_ID, command_id),
        (EXAMPLE_MOMENT, moment.strftime("%Y-%m-%dT%H:%M:%SZ")),
        ("2026-11-17T", began.strftime("%Y-%m-%dT")),
        ("2026-11-18T", (now() + timedelta(days=1)).strftime("%Y-%m-%dT")),
        ("dep-7", "e2e"),
    ):
        assert example in script, example
        script = script.replace(example, real)
    return script


async def shell(folder: Path, service: ServiceProcess, script: str) -> str:
    signed = await arc(folder, "verify", "--data-dir", "data")
    found = re.search(r"signed by (\S+)", signed.stdout)
    assert found, signed.stdout + signed.stderr
    (folder / "arc.pub").write_text(found[1])
    bin_dir = folder / "bin"
    bin_dir.mkdir()
    (bin_dir / "arc-es").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m arc_es "$@"\n')
    (bin_dir / "arc-es").chmod(0o755)
    env = environ({}) | {"PATH": f"{bin_dir}:{os.environ['PATH']}", "ARC_URL": f"http://127.0.0.1:{service.port}"}
    done = await trio.run_process(
        ["bash", "-eux", "-o", "pipefail"],
        stdin=script.encode(),
        cwd=folder,
        env=env,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done.stdout.decode()


async def arc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "arc_es", *arguments]
    return await trio.to_thread.run_sync(
        lambda: subprocess.run(command, cwd=folder, env=environ({}), capture_output=True, text=True, check=False)
    )


def check_said(said: str, log: Log) -> None:
    """All that was acknowledged is in what the auditor saw, and the file verifies."""
    assert {owner for owner, _ in log.leases.values()} <= set(re.findall(r"cmd_[0-9a-f-]{36}", said))
    assert len(re.findall(r"CommandLeased", said)) >= len(log.leases)
    assert "dep-7.jsonl" not in said
    assert "e2e.jsonl verifies" in said
    (of_command,) = re.findall(r"\"appliedSeq\":(\d+)\}", said)
    (of_queues,) = re.findall(r"as of seq ([0-9,]+)", said)
    assert of_command == of_queues.replace(",", "")


async def check_feed(folder: Path, service: ServiceProcess, log: Log) -> None:
    """The feed has the whole history of each command, once."""
    async with service.client() as client:
        seen: dict[str, list[tuple[int, int]]] = {}
        after, is_end = 0, False
        while not is_end:
            page = (await client.call("GET", f"/v1/events?limit=1000&after={after}")).json
            for event in page["events"]:
                seen.setdefault(event.get("commandId", ""), []).append((event["seq"], event["index"]))
            after, is_end = page["next"], page["end"]
        for command_id in log.created:
            events = (await client.call("GET", f"/v1/commands/{command_id}/events")).json["events"]
            assert [(event["seq"], event["index"]) for event in events] == seen[command_id]
