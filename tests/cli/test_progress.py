"""The line about long work: how far it is of all, and speed and time left of what is really being done."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from arc_es.cli.export import _Shown
from arc_es.cli.progress import Bar


def test_time_left_is_measured_from_where_the_work_began() -> None:
    """A fold from a snapshot at nine tenths has not done these in no time."""
    bar = Bar("folding", "events")
    assert bar.text(100.0, 900, 1_000, 0) == f"folding [{'#' * 27}{'.' * 3}]  90% 0 events"
    assert bar.text(110.0, 950, 1_000, 500).endswith(" 95% 50 events/s, 10 s left")
    assert bar.text(120.0, 1_000, 1_000, 1_000).endswith("100% 50 events/s, 0 s left")


def test_what_nobody_knows_the_end_of_counts() -> None:
    bar = Bar("export", "messages")
    bar.text(0.0, 0, None, 0)
    assert bar.text(2.0, 4_000, None, 4_000) == "export 4,000 messages, 2,000 messages/s"


def test_a_pipe_is_shown_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Bar("verify", "lines").show(1, 2, 3)
    assert capsys.readouterr() == ("", "")


def test_an_export_of_a_time_knows_how_much_is_to_come(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        shown = _Shown(file)
        shown.write(b'{"format":"arc-es-export/1","scope":["range 10 14"],"keys":[')
        shown.write(b']}\n{"position":1,"payload":"e30="}\n{"position":2,"payload":"e30="}\n')
    assert (shown._total, shown._count) == (4, 2)
    assert (tmp_path / "file").read_bytes().count(b"payload") == 2


@pytest.mark.slow
def test_on_a_terminal_there_is_a_bar_and_it_is_cleared(tmp_path: Path) -> None:
    """`verify` of a file long enough to take a while."""
    folder = tmp_path / "file.jsonl"
    folder.write_bytes(b'{"format":"arc-es-export/1","scope":[],"keys":[],"checkpoint":""}\n')
    ours, theirs = pty.openpty()
    done = subprocess.run([sys.executable, "-m", "arc_es", "verify", str(folder)], stderr=theirs, check=False)
    os.close(theirs)
    said = os.read(ours, 65_536).decode()
    os.close(ours)
    assert done.returncode == 1
    assert "verify [" in said
    assert said.rindex("\033[K") > said.rindex("verify [")
