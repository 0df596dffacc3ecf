"""`arc-es backup` and `arc-es restore`: what they refuse, and what is left when they fail."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import trio

from arc_es.domain.recorded import CommandKey
from arc_es.journal.jetstream import open_journal
from arc_es.journal.server import Endpoint, run_server
from arc_es.journal.stream import ensure_stream
from arc_es.nats_access import Access
from arc_es.nats_bridge import open_bridge
from arc_es.ports import Append, Slot
from arc_es.storage.object_store import open_object_store
from tests.cli.conftest import Arc

LARGE = bytes(range(256)) * 4 * 1024 * 5
KEY = CommandKey("dep", "cmd_1")
SLOT = Slot("cmd_1", "response")


async def filled(data_dir: Path) -> str:
    """A data directory with one event and one large body; its ref."""
    async with run_server(data_dir) as server, open_bridge(access_of(server.endpoint)) as bridge:
        await bridge.wait_available()
        await ensure_stream(bridge)
        async with open_journal(bridge) as journal:
            assert await journal.append([Append(KEY, 0, "one", b"{}", b"body")]) == [2]
        (data_dir / "signing.key").write_bytes(b"k" * 32)
        store = await open_object_store(bridge, replicas=1, bytes_max=-1)
        return (await store.keep(SLOT, LARGE)).ref


def access_of(endpoint: Endpoint) -> Access:
    return Access([endpoint.url], endpoint.user, endpoint.password)


async def read_back(data_dir: Path, ref: str) -> tuple[list[bytes], str]:
    """The event's payload and its body; the digest of the large body."""
    async with run_server(data_dir) as server, open_bridge(access_of(server.endpoint)) as bridge:
        await bridge.wait_available()
        async with open_journal(bridge) as journal:
            found = [payload or b"" for payload in await journal.read([2, 1])]
        digest = hashlib.sha256()
        store = await open_object_store(bridge, replicas=1, bytes_max=-1)
        async with store.read(ref) as reader:
            async for chunk in reader.chunks:
                digest.update(chunk)
    return found, digest.hexdigest()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory that has been used; its large body's ref is in the file `ref` beside it."""
    (tmp_path / "ref").write_text(trio.run(filled, tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def copy(arc: Arc, data_dir: Path, tmp_path: Path) -> Path:
    """A backup of it, made while nothing runs."""
    done = arc("backup", "copy", "--data-dir", str(data_dir))
    assert done.returncode == 0, done
    assert b"backed up to copy: the journal up to position 2, 3 parts" in done.stdout
    return tmp_path / "copy"


def test_journal_bodies_and_keys_come_back(arc: Arc, copy: Path, tmp_path: Path) -> None:
    done = arc("restore", "copy", "--data-dir", "new")
    assert done.returncode == 0, done
    assert b"arc-es serve --data-dir new" in done.stdout
    assert (tmp_path / "new" / "signing.key").read_bytes() == b"k" * 32
    found, digest = trio.run(read_back, tmp_path / "new", (tmp_path / "ref").read_text())
    assert found == [b"{}", b"body"]
    assert digest == hashlib.sha256(LARGE).hexdigest()


def test_a_directory_that_exists_is_left_alone(arc: Arc, copy: Path, data_dir: Path) -> None:
    before = {path: path.read_bytes() for path in copy.iterdir()}
    done = arc("backup", "copy", "--data-dir", str(data_dir))
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"copy exists already" in done.stderr
    assert {path: path.read_bytes() for path in copy.iterdir()} == before


def test_nothing_to_back_up(arc: Arc, tmp_path: Path) -> None:
    done = arc("backup", "copy", "--data-dir", "nowhere")
    assert done.returncode == 1
    assert b"nowhere is no data directory" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there(arc: Arc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arc_es.cli.backup._CONNECT_SECONDS_MAX", 0.5)
    done = arc("backup", "copy", "--nats-url", "nats://arc:hidden@127.0.0.1:9")
    assert done.returncode == 1
    assert b"no connection to NATS" in done.stderr
    assert b"hidden" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_data_dir_with_something_in_it_is_refused(arc: Arc, copy: Path, data_dir: Path) -> None:
    done = arc("restore", "copy", "--data-dir", str(data_dir))
    assert done.returncode == 1
    assert b"is not empty" in done.stderr


@pytest.mark.parametrize("harm", ["changed", "cut", "missing", "no manifest", "newer"])
def test_a_damaged_backup_is_refused_before_anything_is_made(arc: Arc, copy: Path, tmp_path: Path, harm: str) -> None:
    part, manifest = copy / "ARC.snapshot", copy / "manifest.json"
    raw = part.read_bytes()
    match harm:
        case "changed":
            part.write_bytes(raw[:50] + bytes([raw[50] ^ 1]) + raw[51:])
        case "cut":
            part.write_bytes(raw[:-1])
        case "missing":
            part.unlink()
        case "no manifest":
            manifest.unlink()
        case _:
            manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 2}))
    done = arc("restore", "copy", "--data-dir", "new")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"arc-es: ")
    assert not (tmp_path / "new").exists()


def test_a_restore_that_the_server_refuses_leaves_an_empty_directory(arc: Arc, copy: Path, tmp_path: Path) -> None:
    """The digests are right, and the content is not a snapshot."""
    part, manifest = copy / "ARC.snapshot", copy / "manifest.json"
    part.write_bytes(b"nonsense")
    told = json.loads(manifest.read_text())
    for entry in told["parts"]:
        if entry["name"] == part.name:
            entry |= {"sha256": hashlib.sha256(b"nonsense").hexdigest(), "size_bytes": 8}
    manifest.write_text(json.dumps(told))
    done = arc("restore", "copy", "--data-dir", "new")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"stream ARC" in done.stderr
    assert list((tmp_path / "new").iterdir()) == []


def test_three_replicas_need_a_cluster(arc: Arc, copy: Path) -> None:
    done = arc("restore", "copy", "--data-dir", "new", "--replicas", "3")
    assert done.returncode == 2


async def fill(data_dir: Path, messages: int) -> None:
    """Messages that are all alike, so that a small part of a snapshot is many of them."""
    async with run_server(data_dir) as server, open_bridge(access_of(server.endpoint)) as bridge:
        await bridge.wait_available()
        await ensure_stream(bridge)
        async with open_journal(bridge) as journal:
            for start in range(0, messages, 1_000):
                keys = [CommandKey("dep", f"cmd_{number}") for number in range(start, start + 1_000)]
                await journal.append([Append(key, 0, key.command_id, b"x" * 600) for key in keys])


def test_many_small_messages_are_restored(arc: Arc, tmp_path: Path) -> None:
    """nats-server gives up on a restore that takes it 5 s for one piece."""
    trio.run(fill, tmp_path / "data", 20_000)
    assert arc("backup", "copy", "--data-dir", "data").returncode == 0
    done = arc("restore", "copy", "--data-dir", "new")
    assert done.returncode == 0, done
    assert b"the journal up to position 20000" in done.stdout
