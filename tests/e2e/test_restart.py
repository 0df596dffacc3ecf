"""Real services that start from snapshots: whatever happened to those, all answers are those of a full replay."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from tests.e2e.http import SUCCESS, create_body, lease_body, submit_path
from tests.e2e.process import ServiceProcess, environ, gone, serving

pytestmark = pytest.mark.slow

SECONDS_MAX = 120
POLL_SECONDS = 0.02
OFF = {"ARC_SNAPSHOT_SECONDS": "0"}
OFTEN = {"ARC_SNAPSHOT_SECONDS": "0.5"}
COMMANDS = 40


def arc(data_dir: Path, *arguments: str, limit: str = "") -> subprocess.CompletedProcess[str]:
    """Run `arc-es` on a data directory; limit: what bash does first."""
    command = [sys.executable, "-m", "arc_es", *arguments, "--data-dir", str(data_dir)]
    wrapped = ["bash", "-c", f'{limit}; exec "$@"', "bash", *command] if limit else command
    return subprocess.run(
        wrapped, capture_output=True, text=True, check=False, env=environ({}), cwd=data_dir.parent, timeout=60
    )


async def arc_beside(data_dir: Path, *arguments: str, limit: str = "") -> subprocess.CompletedProcess[str]:
    return await trio.to_thread.run_sync(lambda: arc(data_dir, *arguments, limit=limit))


async def some_life(service: ServiceProcess, commands: int = COMMANDS) -> list[str]:
    """Commands in every state; returns their ids."""
    created = []
    async with service.client() as client:
        for number in range(commands):
            body = create_body(f"t{number % 3}", idempotencyKey=f"{Random().random()}", labels={"n": str(number)})
            created.append((await client.call("POST", "/v1/commands", body)).json["commandId"])
        leases = (await client.call("POST", "/v1/commands/leases", lease_body("t0", leaseSeconds=3_600))).json["leases"]
        leases += (await client.call("POST", "/v1/commands/leases", lease_body("t1", limit=9))).json["leases"]
        for lease in leases[1:]:
            assert (await client.call("PUT", submit_path(lease), SUCCESS)).status == 200
    return created


async def answers(service: ServiceProcess, command_ids: list[str]) -> dict[str, Any]:
    """What it says about everything."""
    async with service.client() as client:
        told: dict[str, Any] = {}
        for name in command_ids:
            told[name] = (await client.call("GET", f"/v1/commands/{name}?view=full")).json
        queues = (await client.call("GET", "/v1/queues")).json["queues"]
        lasting = ("deploymentId", "target", "pending", "delayed", "leased")
        told["queues"] = [{key: queue[key] for key in lasting} for queue in queues]
        told["list"] = (await client.call("GET", "/v1/commands?limit=1000")).json["commands"]
        told["deployments"] = (await client.call("GET", "/v1/deployments")).json
        return told


def snapshots(data_dir: Path) -> list[Path]:
    return sorted((data_dir / "snapshots").glob("*.snapshot"))


async def until_snapshot(data_dir: Path, count: int = 1) -> list[Path]:
    while len(found := snapshots(data_dir)) < count:  # noqa: ASYNC110 - another process cannot set our event
        await trio.sleep(POLL_SECONDS)
    return found


async def full_replay(data_dir: Path, command_ids: list[str]) -> dict[str, Any]:
    """What a service says that had no snapshot."""
    kept = data_dir.with_name("kept")
    (data_dir / "snapshots").rename(kept)
    async with serving(data_dir, **OFF) as service:
        told = await answers(service, command_ids)
        assert await service.terminate() == 0
    if (data_dir / "snapshots").exists():
        shutil.rmtree(data_dir / "snapshots")
    kept.rename(data_dir / "snapshots")
    return told


async def test_a_killed_service_starts_from_its_snapshot_and_knows_all(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with trio.fail_after(SECONDS_MAX):
        async with serving(data_dir, **OFTEN) as service:
            ids = await some_life(service)
            await until_snapshot(data_dir)
            ids += await some_life(service)
            told = await answers(service, ids)
            await service.kill()
        async with serving(data_dir, **OFF) as service:
            assert await answers(service, ids) == told
            verified = await arc_beside(data_dir, "replay", "--verify", "--json")
            assert verified.returncode == 0, verified.stdout + verified.stderr
            whole, *others = json.loads(verified.stdout)["replays"]
            assert others
            assert {entry["digest"] for entry in others} == {whole["digest"]}
            assert "Starting from the snapshot" in service.stderr.read_text()
            assert await service.terminate() == 0
        assert await full_replay(data_dir, ids) == told


async def test_the_service_keeps_few_snapshots_and_ends_without_leaving_a_child(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with trio.fail_after(SECONDS_MAX):
        async with serving(data_dir, **OFTEN) as service:
            for _ in range(4):
                before = {path.name for path in snapshots(data_dir)}
                await some_life(service, 3)
                while {path.name for path in snapshots(data_dir)} <= before:  # noqa: ASYNC110 - the same
                    await trio.sleep(POLL_SECONDS)
            assert len(snapshots(data_dir)) < 9  # two, and older ones ever farther apart
            await some_life(service, 3)
            child = None
            while child is None:
                child = _taking(service.process.pid)
                await trio.sleep(POLL_SECONDS)
            await service.kill()
            await gone(child)
        checked = await arc_beside(data_dir, "snapshot", "check")
        assert checked.returncode == 0, checked.stdout + checked.stderr


def _taking(parent: int) -> int | None:
    """The process that takes a snapshot for a service."""
    for task in Path(f"/proc/{parent}/task").iterdir():
        for pid in (task / "children").read_text().split():
            if b"snapshot" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
    return None


@pytest.mark.parametrize("delay_ms", [300, 700, 1_100, 1_500, 1_900])
async def test_a_killed_writer_leaves_nothing_that_a_start_would_use(tmp_path: Path, delay_ms: int) -> None:
    data_dir = tmp_path / "data"
    with trio.fail_after(SECONDS_MAX):
        async with serving(data_dir, **OFF) as service:
            ids = await some_life(service)
            command = [sys.executable, "-m", "arc_es", "snapshot", "take", "--data-dir", str(data_dir)]
            writer = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL, env=environ({}))
            with trio.move_on_after(delay_ms / 1_000):
                await writer.wait()
            writer.kill()
            await writer.wait()
            told = await answers(service, ids)
            await service.kill()
        async with serving(data_dir, **OFF) as service:
            assert await answers(service, ids) == told
            taken = await arc_beside(data_dir, "snapshot", "take")
            assert taken.returncode == 0, taken.stderr
            assert list((data_dir / "snapshots").glob("*.part")) == []
            checked = await arc_beside(data_dir, "snapshot", "check")
            assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("harm", ["cut", "changed", "foreign", "empty"])
async def test_a_harmed_snapshot_means_a_full_replay_that_is_told_of(tmp_path: Path, harm: str) -> None:
    data_dir = tmp_path / "data"
    with trio.fail_after(SECONDS_MAX):
        async with serving(data_dir, **OFF) as service:
            ids = await some_life(service)
            assert (await arc_beside(data_dir, "snapshot", "take")).returncode == 0
            told = await answers(service, ids)
            await service.kill()
        (path,) = snapshots(data_dir)
        raw = path.read_bytes()
        middle = len(raw) // 2
        if harm == "foreign":
            await _put_snapshot_of_another_service(tmp_path, path)
        else:
            changed = raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]
            path.write_bytes({"cut": raw[:middle], "changed": changed, "empty": b""}[harm])
        async with serving(data_dir, **OFF) as service:
            assert await answers(service, ids) == told
            said = service.stderr.read_text()
            assert f"The snapshot {path.name} is not used, because" in said
            assert "the whole journal is replayed" in said
            assert (await arc_beside(data_dir, "snapshot", "check")).returncode == 1


async def _put_snapshot_of_another_service(tmp_path: Path, path: Path) -> None:
    async with serving(tmp_path / "other", **OFF) as other:
        await some_life(other)
        assert (await arc_beside(tmp_path / "other", "snapshot", "take")).returncode == 0
    (theirs,) = snapshots(tmp_path / "other")
    shutil.copy(theirs, path)


async def test_a_restored_older_journal_is_not_given_a_newer_snapshot(tmp_path: Path) -> None:
    data_dir, copy = tmp_path / "data", tmp_path / "copy"
    with trio.fail_after(SECONDS_MAX):
        async with serving(data_dir, **OFF) as service:
            ids = await some_life(service)
            told = await answers(service, ids)
            assert await service.terminate() == 0
        shutil.copytree(data_dir, copy)
        async with serving(data_dir, **OFF) as service:
            await some_life(service)
            assert (await arc_beside(data_dir, "snapshot", "take")).returncode == 0
            assert await service.terminate() == 0
        shutil.copytree(data_dir / "snapshots", copy / "snapshots")
        shutil.rmtree(data_dir)
        copy.rename(data_dir)
        async with serving(data_dir, **OFF) as service:
            assert await answers(service, ids) == told
            assert "is not used, because it is ahead of the journal" in service.stderr.read_text()
            ids += await some_life(service, 200)  # past the position of the snapshot, with another story
            told = await answers(service, ids)
            await service.kill()
        async with serving(data_dir, **OFF) as service:
            assert await answers(service, ids) == told
            assert "of the journal is another one" in service.stderr.read_text()


async def test_a_full_disk_costs_a_snapshot_and_nothing_else(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with trio.fail_after(SECONDS_MAX):
        async with serving(data_dir, **OFF) as service:
            ids = await some_life(service)
            failed = await arc_beside(data_dir, "snapshot", "take", limit="ulimit -f 1")
            assert failed.returncode == 1
            assert "File too large" in failed.stderr
            assert list((data_dir / "snapshots").iterdir()) == []
            told = await answers(service, ids)
            await service.kill()
        async with serving(data_dir, **OFF) as service:
            assert await answers(service, ids) == told


async def test_the_past_of_a_running_service(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with trio.fail_after(SECONDS_MAX):
        async with serving(data_dir, ARC_AS_OF_MESSAGES_MAX="150", **OFF) as service, service.client() as client:
            ids = await some_life(service, 10)
            now = (await client.call("GET", "/v1/queues")).json
            assert (await arc_beside(data_dir, "snapshot", "take")).returncode == 0
            await some_life(service, 20)
            then = (await client.call("GET", f"/v1/queues?asOf={now['appliedSeq']}")).json
            assert then["appliedSeq"] == now["appliedSeq"]
            names = ("deploymentId", "target", "pending", "delayed", "leased")
            assert [{n: q[n] for n in names} for q in then["queues"]] == [
                {n: q[n] for n in names} for q in now["queues"]
            ]
            offline = await arc_beside(data_dir, "replay", "--at", str(now["appliedSeq"]), "--json")
            assert json.loads(offline.stdout)["states"]["PENDING"] == sum(queue["pending"] for queue in now["queues"])
            await some_life(service, 150)
            far = await client.call("GET", "/v1/queues?asOf=2999-01-01T00:00:00Z")
            assert far.status == 422
            assert "arc-es replay" in far.json["message"]
            status = (await client.call("GET", f"/v1/commands/{ids[0]}?asOf={now['appliedSeq']}")).json
            assert status["appliedSeq"] == now["appliedSeq"]


async def test_two_versions_are_compared_command_by_command(tmp_path: Path) -> None:
    data_dir, digests = tmp_path / "data", tmp_path / "old.digests"
    with trio.fail_after(SECONDS_MAX):
        async with serving(data_dir, **OFF) as service:
            ids = await some_life(service)
            saved = await arc_beside(data_dir, "replay", "--save", str(digests))
            assert saved.returncode == 0, saved.stderr
            await some_life(service)  # what came later does not matter
            same = await arc_beside(data_dir, "replay", "--diff", str(digests))
            assert same.returncode == 0, same.stdout
        lines = digests.read_text().splitlines()
        at = next(n for n, line in enumerate(lines) if ids[3] in line)
        lines[at] = "0" * 32 + lines[at][32:]
        digests.write_text("\n".join([*lines[:2], *lines[3:], "1" * 32 + " cmd_lost", ""]))
        differs = await arc_beside(data_dir, "replay", "--diff", str(digests), "--json")
        assert differs.returncode == 1
        found = {entry["name"]: entry["what"] for entry in json.loads(differs.stdout)["differences"]}
        left_out = lines[2].split(" ", 1)[1]
        assert found == {ids[3]: "changed", left_out: "new", "cmd_lost": "missing"}


def installed(folder: Path, change: tuple[str, str]) -> Path:
    """The arc-es program of another version, which in one line says something else."""
    root = Path(__file__).resolve().parents[2]
    for package in ("arc_es", "projections"):
        shutil.copytree(root / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "nats.conf", folder / "arc_es" / "nats.conf")
    source = folder / "arc_es" / "snapshots" / "public.py"
    text = source.read_text()
    assert text.count(change[0]) == 1
    source.write_text(text.replace(*change))
    program = folder / "arc-es"
    path = f"import sys\nsys.path.insert(0, {str(folder)!r})\n"
    program.write_text(f"#!{sys.executable} -I\n{path}from arc_es.cli.main import main\nsys.exit(main())\n")
    program.chmod(0o755)
    return program


async def test_two_installed_versions_are_compared(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    same = installed(tmp_path / "same", ('said["availableAt"]', 'said[("availableAt")]'))
    next_one = installed(tmp_path / "next", ('"attempt": attempt_of(state)', '"attempt": attempt_of(state) + 1'))
    with trio.fail_after(SECONDS_MAX):
        async with serving(data_dir, **OFF) as service:
            ids = await some_life(service)
            agree = await arc_beside(data_dir, "replay", "--diff", str(same))
            assert agree.returncode == 0, agree.stdout + agree.stderr
            differ = await arc_beside(data_dir, "replay", "--json", "--diff", str(same), str(next_one))
            assert differ.returncode == 1, differ.stdout + differ.stderr
            found = {entry["name"]: entry["what"] for entry in json.loads(differ.stdout)["differences"]}
            assert found == dict.fromkeys(ids, "changed")
            broken = await arc_beside(data_dir, "replay", "--diff", sys.executable)
            assert broken.returncode == 1
            assert "could not fold the journal" in broken.stderr
