"""Checkpoints, exports and their verification on a real service that is killed again and again."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from arc_es.codec import digest
from arc_es.domain.merkle import leaf_data, leaf_hash, root_of
from arc_es.journal.server import run_server
from arc_es.journal.stream import api
from arc_es.nats_access import Access
from arc_es.nats_bridge import open_bridge
from arc_es.proof.notes import Checkpoint, parse_checkpoint, parse_note
from arc_es.proof.verify import verify_export
from tests.e2e.http import SUCCESS, Client, NoAnswer, create_body, lease_body, submit_path
from tests.e2e.process import ServiceProcess, environ, serving

KILLS = ("service", "nats", "service", "both")
COMMANDS_A_LIFE = 12


@pytest.mark.slow
async def test_the_log_proves_itself_across_kills(tmp_path: Path) -> None:
    kept: list[str] = []
    with trio.fail_after(120):
        async with serving(tmp_path / "data", ARC_CHECKPOINT_SECONDS="1", ARC_APPEND_SECONDS_MAX="1") as service:
            for kill in KILLS:
                command_id = await work(service)
                kept.append(await checkpoint(service, command_id))
                await do(service, kill)
            command_id = await work(service)
            await check_kept(service, command_id, kept)
            assert await arc_es(tmp_path, "verify", "--data-dir", "data") == 0
            assert await service.terminate() == 0
        assert "Traceback" not in service.stderr.read_text()
        assert "CRITICAL" not in service.stderr.read_text()
        await check_harm(tmp_path, kept[0])


async def work(service: ServiceProcess) -> str:
    """Commands that are made, leased and answered, some of them while the last kill is being got over."""
    done, command_id = 0, ""
    async with service.client() as client:
        while done < COMMANDS_A_LIFE:
            try:
                created = await client.call("POST", "/commands", create_body("a"))
                leased = await client.call("POST", "/commands/leases", lease_body("a", waitSeconds=2))
                if created.status == leased.status == 200 and leased.json["leases"]:
                    await client.call("PUT", submit_path(leased.json["leases"][0]), SUCCESS)
                    command_id, done = created.json["commandId"], done + 1
                    continue
            except NoAnswer:
                pass
            await trio.sleep(0.05)  # another process cannot set our event
    return command_id


async def do(service: ServiceProcess, kill: str) -> None:
    if kill in ("nats", "both"):
        service.signal_nats(signal.SIGKILL)
    if kill in ("service", "both"):
        await service.kill()
        await service.start()


async def checkpoint(service: ServiceProcess, command_id: str) -> str:
    """A checkpoint that covers the command, as somebody outside would keep it."""
    async with service.client() as client:
        await proof(client, command_id)
        return (await client.call("GET", "/v1/checkpoint")).body.decode()


async def proof(client: Client, command_id: str, query: str = "") -> bytes:
    while True:
        answer = await client.call("GET", f"/v1/commands/{command_id}/proof{query}")
        if answer.status == 200:
            return answer.body
        assert answer.status == 503, answer
        await trio.sleep(0.1)  # another process cannot set our event


async def check_kept(service: ServiceProcess, command_id: str, kept: list[str]) -> None:
    """What was signed before each kill is the beginning of what is signed after all of them."""
    checkpoints: list[Checkpoint] = [parse_checkpoint(parse_note(note)) for note in kept]
    assert len({one.size for one in checkpoints}) == len(KILLS)
    async with service.client() as client:
        for note, one in zip(kept, checkpoints, strict=True):
            lines = (await proof(client, command_id, f"?from={one.size}")).splitlines(keepends=True)
            report = verify_export(lines, witnessed=note)
            assert report.problems == []
            assert report.messages >= 3
        everything = (await client.call("GET", "/v1/export?since=2020-01-01T00:00:00Z&bodies=true")).body
    assert verify_export(everything.splitlines(keepends=True), key=report.signers[0]).problems == []
    messages = [json.loads(line) for line in everything.splitlines() if line.startswith(b'{"position"')]
    leaves = [
        leaf_hash(leaf_data(one["position"], one["subject"], digest(base64.b64decode(one["payload"]))))
        for one in messages
    ]
    for one in checkpoints:
        assert root_of(leaves[: one.size]) == one.root


async def arc_es(folder: Path, *arguments: str) -> int:
    """The exit status of a sub-command; what it says is appended to the file `said`."""
    with (folder / "said").open("ab") as said:
        done = await trio.run_process(
            [sys.executable, "-m", "arc_es", *arguments],
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environ({}),
            check=False,
        )
    return done.returncode


async def check_harm(folder: Path, kept: str) -> None:
    """One message is deleted from the stream: it shows, against the checkpoints in the log and one that was kept."""
    (folder / "kept").write_text(kept)
    assert await arc_es(folder, "verify", "--data-dir", "data", "--checkpoint", "kept") == 0
    async with run_server(folder / "data") as server:
        endpoint = server.endpoint
        async with open_bridge(Access([endpoint.url], endpoint.user, endpoint.password)) as bridge:
            await bridge.wait_available()
            answer = await api(bridge, "STREAM.MSG.DELETE.ARC", {"seq": 5})
            assert answer.get("success"), answer
    assert await arc_es(folder, "verify", "--data-dir", "data", "--checkpoint", "kept") == 1
    said = (folder / "said").read_text()
    assert "was signed over other ones" in said
    assert "are not those that the checkpoint given was signed over" in said


async def test_an_auditor_with_the_command_line(tmp_path: Path) -> None:
    """Export, verify, change one byte, verify again."""
    with trio.fail_after(60):
        async with serving(tmp_path / "data") as service:
            command_id = await work(service)
            url = f"http://127.0.0.1:{service.port}"
            assert await arc_es(tmp_path, "export", command_id, "--bodies", "--output", "one", "--url", url) == 0
            assert await arc_es(tmp_path, "export", "--deployment", "e2e", "--output", "all", "--url", url) == 0
            unknown = ("export", "cmd_unknown", "--output", "none", "--url", url)
            assert await arc_es(tmp_path, *unknown) == 1
            assert await arc_es(tmp_path, "export", "--output", "none", "--url", url) == 2
        assert not (tmp_path / "none").exists()
        (key,) = verify_export((tmp_path / "one").read_bytes().splitlines(keepends=True)).signers
        assert await arc_es(tmp_path, "verify", "one", "--key", key) == 0
        assert await arc_es(tmp_path, "verify", "all", "--key", key) == 0
        assert await arc_es(tmp_path, "verify", "all", "--key", key[:-4] + "AAAA") == 2
        changed = bytearray((tmp_path / "all").read_bytes())
        at = changed.index(b'"payload":"') + 200
        changed[at] = ord("A") if changed[at] != ord("A") else ord("B")
        (tmp_path / "all").write_bytes(changed)
        assert await arc_es(tmp_path, "verify", "all", "--key", key) == 1
    assert "arc.event.command.e2e." in (tmp_path / "said").read_text()
