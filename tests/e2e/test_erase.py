"""Erasing on a real service: no file in its data directory holds a byte of it any more, whenever it was killed."""

from __future__ import annotations

import base64
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import zstandard

from tests.contract.nats_process import NatsProcess
from tests.e2e.http import lease_body, submit_path
from tests.e2e.process import ServiceProcess, environ, serving
from tests.e2e.test_archive import archive

pytestmark = pytest.mark.slow
SECONDS_MAX = 180
MARK = "Marker-4711"
RAW = MARK.encode()
SIZES = (1, 1_500, 40_000)
"""Repetitions: inside the event, beside it, in the body store."""
OTHER = "Stays-0815"


def forms(text: str) -> list[bytes]:
    """How a text may be found: as it is, or as base64 at each offset."""
    raw = text.encode()
    return [raw, *(base64.b64encode(b"x" * at + raw)[4:-4] for at in range(3))]


def contents(path: Path) -> list[bytes]:
    """A file as it is, and whatever can be decompressed from any place in it."""
    raw = path.read_bytes()
    found = [raw]
    at = raw.find(zstandard.MAGIC_NUMBER.to_bytes(4, "little"))
    while at >= 0:
        with suppress(zstandard.ZstdError):
            found.append(zstandard.ZstdDecompressor().decompressobj().decompress(raw[at:]))
        at = raw.find(zstandard.MAGIC_NUMBER.to_bytes(4, "little"), at + 1)
    return found


def files_with(data_dir: Path, text: str) -> set[str]:
    paths = [path for path in data_dir.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(data_dir))
        for path in paths
        if any(form in content for content in contents(path) for form in forms(text))
    }


def inline(text: str, times: int) -> dict[str, str]:
    return {"mode": "inline", "inlineBase64": base64.b64encode(text.encode() * times).decode()}


async def a_life(service: ServiceProcess, text: str, times: int, *, fails: bool = False) -> str:
    """A command that has its text wherever a text can be."""
    headers = {"User-Agent": text, "traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": f"x={text}"}
    async with service.client(**headers) as client:
        more = {"labels": {"who": text, text: "1"}, "idempotencyKey": f"{text}-{times}-{fails}"}
        created = {"deploymentId": "e2e", "command": "greet", "targetResourceId": "t", "params": inline(text, times)}
        command: str = (await client.call("POST", "/v1/commands", created | more)).json["commandId"]
        asked = lease_body("t") | {"agent": {"id": text}}
        (lease,) = (await client.call("POST", "/v1/commands/leases", asked)).json["leases"]
        answer: dict[str, Any] = {"status": "success", "response": inline(text, times)}
        if fails:
            answer = {"status": "error", "code": "E", "message": text, "details": text * times}
        assert (await client.call("PUT", submit_path(lease), answer)).status == 200
        late = {"status": "error", "code": "LATE", "message": text}
        assert (await client.call("PUT", submit_path(lease), late)).status == 200
    return command


async def some_lives(service: ServiceProcess, text: str) -> list[str]:
    """The first lease of a target is an event of its deployment, which stays: so begin with what stays."""
    return [
        *[await a_life(service, text, times) for times in SIZES],
        await a_life(service, text, 1, fails=True),
        await a_life(service, text, 1_500, fails=True),
    ]


async def arc(*arguments: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "arc_es", *map(str, arguments)]
    done = await trio.run_process(
        command, capture_stdout=True, capture_stderr=True, check=False, cwd=cwd, env=environ(env)
    )
    assert done.returncode == 0, done
    return done


async def erase(service: ServiceProcess, made: list[str]) -> None:
    async with service.client() as client:
        for command in made:
            is_gone = False
            while not is_gone:
                answer = await client.call("POST", f"/v1/commands/{command}/erase", {"reason": "case 17"})
                assert answer.status == 200, answer
                is_gone = answer.json["gone"]


async def checked(service: ServiceProcess, made: list[str], kept: list[str], tmp_path: Path) -> None:
    """Nothing is found of what was erased, everything of the rest, and all of it can be proved."""
    data = service.data_dir
    async with service.client() as client:
        for command in made:
            events = (await client.call("GET", f"/v1/commands/{command}/events")).json["events"]
            assert (events[0]["type"], events[-1]["type"]) == ("CommandCreated", "CommandErased")
            assert MARK not in str(events)
        for command in kept:
            assert OTHER in str((await client.call("GET", f"/v1/commands/{command}?view=full")).json)
    assert files_with(data, MARK) == set()
    await arc("verify", "--data-dir", data, cwd=tmp_path)
    await arc("replay", "--verify", "--data-dir", data, cwd=tmp_path)
    export = tmp_path / f"{uuid.uuid4()}.jsonl"
    url = {"ARC_URL": f"http://127.0.0.1:{service.port}"}
    await arc("export", made[0], "--bodies", "--output", export, cwd=tmp_path, **url)
    await arc("verify", export, cwd=tmp_path)


async def test_no_file_holds_what_was_erased(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with trio.fail_after(SECONDS_MAX):
        async with serving(data) as service:
            kept, made = await some_lives(service, OTHER), await some_lives(service, MARK)
            await arc("snapshot", "take", "--data-dir", data, cwd=tmp_path)
            before = files_with(data, MARK)
            assert any("OBJ_ARC" in name for name in before)
            assert any("snapshot" in name for name in before)
            assert any("index" in name for name in before)
            await erase(service, made)
            await checked(service, made, kept, tmp_path)
            assert await service.terminate() == 0
        assert files_with(data, MARK) == set()
        assert files_with(data, OTHER)
        async with serving(data) as service:
            await checked(service, made, kept, tmp_path)


async def test_nor_when_it_was_archived_before(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with trio.fail_after(SECONDS_MAX):
        async with serving(data) as service:
            kept, made = await some_lives(service, OTHER), await some_lives(service, MARK)
            assert await service.terminate() == 0
        await archive(data)
        assert any("archive" in name for name in files_with(data, MARK))
        async with serving(data) as service:
            await erase(service, made)
            await checked(service, made, kept, tmp_path)
            assert await service.terminate() == 0
        async with serving(data) as service:
            await checked(service, made, kept, tmp_path)


async def test_another_node_forgets_as_well(tmp_path: Path) -> None:
    nats = NatsProcess(tmp_path)
    await nats.start()
    try:
        with trio.fail_after(SECONDS_MAX):
            one, other = tmp_path / "one", tmp_path / "other"
            async with serving(one, "--nats-url", nats.url) as first, serving(other, "--nats-url", nats.url) as second:
                kept, made = await some_lives(second, OTHER), await some_lives(first, MARK)
                async with second.client() as client:
                    for command in made:
                        assert MARK in str((await client.call("GET", f"/v1/commands/{command}?view=full")).json)
                await erase(first, made)
                await erase(second, made)
                async with second.client() as client:
                    for command in made:
                        told = (await client.call("GET", f"/v1/commands/{command}?view=full")).json
                        assert MARK not in str(told)
                    for command in kept:
                        assert OTHER in str((await client.call("GET", f"/v1/commands/{command}?view=full")).json)
                for data in (one, other, (tmp_path / "store")):
                    assert files_with(data, MARK) == set()
                    assert files_with(data, OTHER) or data == (tmp_path / "store")
    finally:
        nats.kill()
