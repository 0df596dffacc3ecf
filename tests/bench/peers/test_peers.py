"""The harness around other queues: what it takes, prints, and says is missing. None of the queues is needed here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.peers import installing
from tests.bench.peers.__main__ import arguments
from tests.bench.peers.catalogue import NAMES, PEERS
from tests.bench.peers.running import Phase, Round, descendants_cpu_seconds
from tests.bench.peers.servers import MissingError, find
from tests.bench.peers.table import HEAD, Row, markdown, percentile, ratio

PAGE = installing.ROOT / "docs" / "reference" / "peers.md"
SMALL = ["--rounds", "1", "--seconds", "0.5", "--bulk", "0.02", "--wakes", "3"]


def a_round(single: float, bulk: float, wake_ms: float) -> Round:
    """Rates a second, with 10 and 1 ms of CPU a job."""
    return Round(Phase(100, 100 / single, 1.0), Phase(1_000, 1_000 / bulk, 1.0), [wake_ms])


def row(name: str, *rounds: Round) -> Row:
    return Row(name, "somewhere", 1, list(rounds))


def test_all_are_measured_unless_some_are_named() -> None:
    assert arguments([]).only == NAMES
    assert arguments(["--only", "arc_es", "saq"]).only == ["arc_es", "saq"]


def test_a_system_that_is_unknown_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(["--only", "cron"])
    assert "choose from" in capsys.readouterr().err


def test_a_row_gives_medians_of_rounds() -> None:
    measured = row("queue", a_round(100, 1_000, 5), a_round(300, 1_200, 7), a_round(200, 5_000, 9))
    assert "| queue | somewhere | 1 | 200 |  | 10.00 | 1,200 |  | 1.00 | 7.0 |  | 9.0 |" in markdown([measured])


def test_ratios_are_to_arc_es_and_mark_ties() -> None:
    *_, last = markdown([row("arc_es", a_round(100, 1_000, 5)), row("queue", a_round(300, 900, 10))]).splitlines()
    assert last == "| queue | somewhere | 1 | 300 | 3.00 | 10.00 | 900 | 0.90~ | 1.00 | 10.0 | 2.00 | 10.0 |"
    assert [ratio(value, 100) for value in (50, 72, 139, 140)] == ["0.50", "0.72~", "1.39~", "1.40"]


def test_a_system_without_its_server_says_so_in_its_row() -> None:
    missing = Row("queue", "Redis", 1, problem="redis-server is not installed: apt-get install redis-server")
    *_, last = markdown([row("arc_es", a_round(100, 1_000, 5)), missing]).splitlines()
    assert "apt-get install redis-server" in last
    assert last.count("|") == len(HEAD) + 1


def test_the_processor_time_of_children_is_counted() -> None:
    before = descendants_cpu_seconds()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        while descendants_cpu_seconds() < before + 0.05:
            assert busy.poll() is None
        busy.kill()


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1)] == [51.0, 100.0, 100.0]


def test_what_is_missing_is_said_with_how_to_install_it() -> None:
    with pytest.raises(MissingError, match="apt-get install some-package"):
        find("no-such-server-anywhere", "some-package")


def test_every_system_has_a_script_and_a_section() -> None:
    page = PAGE.read_text("utf-8")
    for peer in PEERS:
        assert (Path(installing.HERE) / "systems" / peer.script).exists()
        assert f"### {peer.name}\n" in page


def test_requirements_are_exact_versions_and_nothing_else() -> None:
    lines = [line for line in installing.REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w,\[\]-]+==[\d.]+(; python_version >= \"3\.\d+\")?", line) for line in lines), lines
    package = json.loads(installing.PACKAGE_JSON.read_text())
    assert all(re.fullmatch(r"[\d.]+", version) for version in package["dependencies"].values())


@pytest.mark.slow
def test_our_own_row_is_measured() -> None:
    """The others run in the same way, but need their servers."""
    command = [sys.executable, "-m", "tests.bench.peers", "--only", "arc_es", *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\| arc_es \| JetStream \| 1 \| [\d,]+ \| 1\.00~ \| [\d.]+ \| [\d,]+ \| 1\.00~ \|", done.stdout)
