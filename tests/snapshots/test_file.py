"""A snapshot file is whole or not used: every way to damage it is noticed, and a failed write leaves nothing."""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arc_es.snapshots import file, schema
from arc_es.snapshots.file import Header, SnapshotUnusable
from arc_es.snapshots.folder import KEPT, paths, thin_out

HEADER = Header(stream="2026", position=42, message="a" * 64, at=7, events=3, commands=1)
PIECES: list[tuple[str, Any]] = [
    ("status", ("P", {"P": [1, None, b"x", "y" * 500]})),
    *[("more", n) for n in range(99)],
]


def written(folder: Path, position: int = 42) -> Path:
    header = Header(stream="2026", position=position, message="a" * 64, at=7, events=3, commands=1)
    return file.write(folder, header, PIECES)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "snapshots")
    header = file.check(path)
    assert list(file.read(path)) == PIECES
    assert (header.position, header.stream, header.schema) == (42, "2026", schema.fingerprint())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_changed_byte_is_noticed_wherever_it_is(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = written(tmp_path_factory.mktemp("damaged"))
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    with pytest.raises(SnapshotUnusable):
        file.check(path)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_file_that_was_cut_or_has_grown_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = written(tmp_path_factory.mktemp("cut"))
    raw = path.read_bytes()
    length = data.draw(st.integers(0, len(raw) + 9).filter(lambda n: n != len(raw)))
    path.write_bytes(raw.ljust(length, b"\0")[:length])
    with pytest.raises(SnapshotUnusable):
        file.check(path)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 10_000, b"a" * 64 + b"\n{}\n", b"a" * 64 + b"\n[1]\n", os.urandom(999)]
)
def test_what_is_no_snapshot_is_not_used(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"1{file.SUFFIX}"
    path.write_bytes(content)
    with pytest.raises(SnapshotUnusable):
        file.check(path)


def test_what_another_version_wrote_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path)
    monkeypatch.setattr(file, "fingerprint", lambda: "another")
    with pytest.raises(SnapshotUnusable, match="another version"):
        file.check(path)


def test_the_fingerprint_changes_with_whatever_decides_what_is_stored(tmp_path: Path) -> None:
    one, other = tmp_path / "state.py", tmp_path / "due.py"
    one.write_text("class Pending: attempt: int")
    other.write_text("x = 1")
    first = schema.digest_of((1, 1), [one, other])
    assert first == schema.digest_of((1, 1), [other, one])
    seen = {first, schema.digest_of((2, 1), [one, other]), schema.digest_of((1, 2), [one, other])}
    seen.add(schema.digest_of((1, 1), [one]))
    one.write_text("class Pending: attempt: int; agent: str")
    seen.add(schema.digest_of((1, 1), [one, other]))
    assert len(seen) == 5


def test_the_fingerprint_is_over_all_that_folds() -> None:
    names = {
        f"{path.parent.name}/{path.name}" for path in schema._sources("arc_es.domain", "arc_es.codec", "projections")
    }
    assert {"domain/state.py", "domain/events.py", "arc_es/codec.py", "projections/rows.py"} <= names


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    before = written(tmp_path, 1)

    def pieces() -> Iterator[tuple[str, Any]]:
        yield from PIECES
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        file.write(tmp_path, HEADER, pieces())
    assert list(tmp_path.iterdir()) == [before]


def test_parts_of_dead_writers_are_removed_and_those_of_living_ones_are_not(tmp_path: Path) -> None:
    dead = tmp_path / f"7{file.SUFFIX}.1{file.PART}"
    dead.write_bytes(b"half")

    def pieces() -> Iterator[tuple[str, Any]]:
        (mine,) = tmp_path.glob(f"*{file.PART}")
        file.remove_parts(tmp_path)
        assert mine.exists()
        yield from PIECES

    path = file.write(tmp_path, HEADER, pieces())
    assert list(tmp_path.iterdir()) == [path]


def test_the_newest_are_kept_by_when_they_were_written(tmp_path: Path) -> None:
    """Not by position: after a restore the positions begin lower, and what is ahead of them is of no use."""
    for number, position in enumerate((900, 950, 980, 10, 20)):
        os.utime(written(tmp_path, position), ns=(number, number))
    thin_out(tmp_path)
    assert [file.read_header(path).position for path in paths(tmp_path)] == [20, 10]
    assert KEPT == 2


@settings(max_examples=20, deadline=None)
@given(steps=st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_older_ones_lie_ever_farther_apart(tmp_path_factory: pytest.TempPathFactory, steps: list[int]) -> None:
    """For each moment there is one not farther before it than it lies back, and there are few."""
    folder = tmp_path_factory.mktemp("spaced")
    made, position = [], 0
    for number, step in enumerate(steps):
        position += step
        made.append(position)
        os.utime(written(folder, position), ns=(number, number))
        thin_out(folder)
        left = sorted(file.read_header(path).position for path in paths(folder))
        assert {made[0], *made[-KEPT:]} <= set(left)
        for older, newer in pairwise(left):
            gap = newer - older
            assert gap <= max(position - newer, 40), "or they were made so"
        assert len(left) <= KEPT + 2 * math.log2(position + 1) + 1


def test_older_ones_of_another_version_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, position in enumerate((10, 20, 30, 500)):
        if number == 3:
            monkeypatch.setattr(file, "fingerprint", lambda: "another")
        os.utime(written(tmp_path, position), ns=(number, number))
    thin_out(tmp_path)
    assert [file.read_header(path).position for path in paths(tmp_path)] == [500, 30]
