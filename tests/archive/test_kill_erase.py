"""kill -9 at each step of erasing, on a real nats-server: the next start finishes it, and no file holds any of it."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
import trio
import zstandard

from arc_es.journal.subjects import event_subject
from arc_es.proof.audit import Audit
from arc_es.proof.tiles import Tiles
from tests.archive.test_kill import node
from tests.archive.told import DAY, archived, ended
from tests.contract.nats_process import NatsProcess
from tests.http.driver import Clock, inline, success

pytestmark = pytest.mark.slow
MARK = b"Marker-4711-" * 2
STEPS = ("decided", "told", "half overwritten", "overwritten", "draft", "rewritten")


def held(tmp_path: Path, folder: Path) -> set[str]:
    """The files that hold the text of a command in some form."""
    form = inline(MARK)["inlineBase64"].encode()
    found = {path.name for path in (tmp_path / "store").rglob("*") if path.is_file() and form in path.read_bytes()}
    for path in folder.glob("*.zst"):
        frames = zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True)
        if form in frames.read():
            found.add(path.name)
    return found


@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_a_step(tmp_path: Path, step: str) -> None:
    nats, folder, clock = NatsProcess(tmp_path), tmp_path / "archive", Clock()
    await nats.start()
    try:
        async with node(nats.url, folder, clock) as (served, _):
            other = await ended(served)
            command = await ended(served, success(MARK), params=inline(MARK), labels={"who": "x"})
            clock.advance(2 * DAY)
            if step in ("draft", "rewritten", "half overwritten"):
                assert await archived(served) == 2
            before = await served.status(other)
        assert held(tmp_path, folder)
        with trio.fail_after(120):
            words = [sys.executable, "-m", "tests.archive.child_erase", nats.url, str(folder), step, command]
            child = await trio.run_process(words, check=False)
        assert child.returncode == -signal.SIGKILL
        async with node(nats.url, folder, clock) as (served, _):
            is_gone = False
            while not is_gone:
                answer = await served.client.post(f"/v1/commands/{command}/erase", {"reason": "case 17"})
                is_gone = answer.ok()["gone"]
            assert (await served.types(command)).count("CommandErased") == 1
            assert await served.status(other) == before
            audit = Audit(Tiles())
            messages = await served.node.journal.page(0, 1000, 1 << 30)
            audit.take([(one.position, event_subject(one.key), one.payload) for one in messages])
            assert audit.end().problems == []
        assert held(tmp_path, folder) == set()
    finally:
        nats.kill()
