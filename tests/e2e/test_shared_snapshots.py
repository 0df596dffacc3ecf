"""Nodes on one NATS server: a new one starts from what another one has shared, and answers as a full replay does."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import trio

from arc_es import sharing
from arc_es.config import Config
from arc_es.ports import BodyStoreError
from arc_es.sharing import KEPT, adopt, kind_of, share
from arc_es.snapshots.folder import paths
from arc_es.storage.shelf import Shelf, open_shelf
from tests.contract.nats_process import NatsProcess
from tests.e2e.process import serving
from tests.e2e.test_restart import OFF, answers, arc_beside, some_life

pytestmark = pytest.mark.slow

FEW = {"ARC_FINISHED_IN_MEMORY_MAX": "1"}
LOGGED = ("--log-level", "INFO")


async def shared(tmp_path: Path, nats: NatsProcess) -> tuple[list[str], dict[str, object]]:
    """A node with a life behind it has shared a snapshot; the ids of its commands, and what it says of them."""
    async with serving(tmp_path / "a", "--nats-url", nats.url, **OFF, **FEW) as node:
        ids = await some_life(node)
        done = await arc_beside(tmp_path / "a", "snapshot", "take", "--nats-url", nats.url)
        assert done.returncode == 0, done.stderr
        assert "shared the snapshot of position" in done.stdout, done.stdout + done.stderr
        assert [path.name for path in (tmp_path / "a" / "index").glob("copy*")] == []
        return ids, await answers(node, ids)


async def test_a_new_node_starts_from_what_another_one_shared(tmp_path: Path) -> None:
    """Also of commands that are not in the snapshot any more, because they ended long ago, it knows all."""
    nats = NatsProcess(tmp_path)
    await nats.start()
    try:
        with trio.fail_after(120):
            ids, told = await shared(tmp_path, nats)
            async with serving(tmp_path / "b", "--nats-url", nats.url, *LOGGED, **OFF, **FEW) as node:
                said = node.stderr.read_text()
                assert "Took over the shared snapshot" in said
                assert "Starting from the snapshot" in said
                assert await answers(node, ids) == told
            async with serving(tmp_path / "b", "--nats-url", nats.url, *LOGGED, **OFF, **FEW) as node:
                assert node.stderr.read_text().count("Took over") == 1  # it has its own index now
                assert await answers(node, ids) == told
            none = {**OFF, **FEW, "ARC_SNAPSHOT_SHARED": "false"}
            async with serving(tmp_path / "c", "--nats-url", nats.url, *LOGGED, **none) as node:
                assert "the whole journal is replayed" in node.stderr.read_text()
                assert await answers(node, ids) == told
    finally:
        nats.kill()


async def test_what_does_not_fit_or_is_damaged_means_a_full_replay(tmp_path: Path) -> None:
    nats = NatsProcess(tmp_path)
    await nats.start()
    try:
        with trio.fail_after(120):
            ids, told = await shared(tmp_path, nats)
            async with open_shelf(Config(nats_url=nats.url)) as shelf:
                (name,) = [name for name in await shelf.names() if name.endswith(".snapshot")]
                bad = tmp_path / "bad"
                bad.write_bytes(b"no snapshot at all")
                await shelf.put(name, bad)  # of the same name: the right kind, and damaged
            async with serving(tmp_path / "b", "--nats-url", nats.url, *LOGGED, **OFF, **FEW) as node:
                said = node.stderr.read_text()
                assert "The shared snapshot of position" in said
                assert "is not used" in said
                assert "the whole journal is replayed" in said
                assert await answers(node, ids) == told
    finally:
        nats.kill()


async def offered(shelf: Shelf, folder: Path, age_seconds: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Offer the newest snapshot, as if so long ago."""
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: 1_800_000_000.0 - age_seconds)
        return await share(shelf, paths(folder / "snapshots")[0], folder / "index") is not None


async def test_a_bounded_number_is_kept_and_nothing_that_was_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "AHEAD_MIN", 0)
    nats = NatsProcess(tmp_path)
    await nats.start()
    try:
        with trio.fail_after(120):
            await shared(tmp_path, nats)
            async with open_shelf(Config(nats_url=nats.url)) as shelf:
                begun = f"{7:020d}-1-{'0' * 16}-beef.index"
                await shelf._objects.put(begun, _one(b"half"), 1_000)
                assert await shelf.broken_off() == [begun]
                for age in (30, 20, 10):
                    async with serving(tmp_path / "a", "--nats-url", nats.url, **OFF, **FEW) as node:
                        await some_life(node, 9)
                        alone = "export ARC_SNAPSHOT_SHARED=0"
                        done = await arc_beside(tmp_path / "a", "snapshot", "take", "--nats-url", nats.url, limit=alone)
                        assert done.returncode == 0, done.stderr
                        assert await offered(shelf, tmp_path / "a", age, monkeypatch)
                        assert not await offered(shelf, tmp_path / "a", 0, monkeypatch)  # it is there already
                names = await shelf.names()
                assert len(names) == 2 * KEPT
                assert await shelf.broken_off() == []
                (stream,) = {name.split("-")[2] for name in names}
                with pytest.raises(BodyStoreError):
                    await shelf.get(begun, tmp_path / "nothing")
                assert stream != kind_of("another")
                assert await adopt(shelf, "another", tmp_path / "x", tmp_path / "y") is None
    finally:
        nats.kill()


async def _one(chunk: bytes) -> AsyncGenerator[bytes, None]:
    yield chunk
