"""Notes are kept whole, found again, bounded, and gone when they are forgotten."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from arc_es.client import FolderNotes, MemoryNotes, Notes
from arc_es.client.notes import NOTE_BYTES_MAX


@pytest.fixture(params=["memory", "folder"])
def notes(request: pytest.FixtureRequest, tmp_path: Path) -> Notes:
    return MemoryNotes(notes_max=10) if request.param == "memory" else FolderNotes(tmp_path / "notes", notes_max=10)


def test_a_note_is_read_as_it_was_written_last(notes: Notes) -> None:
    assert notes.read("cmd_1") is None
    notes.write("cmd_1", b"first")
    notes.write("cmd_1", b"second")
    notes.write("cmd_2", b"other")
    assert (notes.read("cmd_1"), notes.read("cmd_2")) == (b"second", b"other")
    notes.forget("cmd_1")
    notes.forget("cmd_1")
    assert (notes.read("cmd_1"), notes.read("cmd_2")) == (None, b"other")


def test_a_note_that_is_too_long_is_refused_and_the_old_one_stays(notes: Notes) -> None:
    notes.write("cmd_1", b"x" * NOTE_BYTES_MAX)
    with pytest.raises(ValueError, match="at most"):
        notes.write("cmd_1", b"x" * (NOTE_BYTES_MAX + 1))
    assert notes.read("cmd_1") == b"x" * NOTE_BYTES_MAX


def test_there_are_never_more_than_so_many_and_the_newest_stay(notes: Notes) -> None:
    for n in range(30):
        notes.write(f"cmd_{n}", b"n")
    kept = [n for n in range(30) if notes.read(f"cmd_{n}")]
    assert len(kept) <= 10
    assert 29 in kept


def test_notes_in_a_folder_outlive_the_process_and_half_written_ones_do_not(tmp_path: Path) -> None:
    FolderNotes(tmp_path).write("cmd_1", b"kept")
    (tmp_path / "cmd_2.part").write_bytes(b"ha")
    again = FolderNotes(tmp_path)
    assert (again.read("cmd_1"), again.read("cmd_2")) == (b"kept", None)
    assert [path.name for path in tmp_path.iterdir()] == ["cmd_1.note"]


def test_old_notes_go_at_the_start(tmp_path: Path) -> None:
    notes = FolderNotes(tmp_path)
    notes.write("cmd_old", b"old")
    notes.write("cmd_new", b"new")
    os.utime(tmp_path / "cmd_old.note", (0, 0))
    again = FolderNotes(tmp_path)
    assert (again.read("cmd_old"), again.read("cmd_new")) == (None, b"new")


def test_a_name_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no command id"):
        FolderNotes(tmp_path).write("../etc/passwd", b"")
