"""Every benchmark runs to its end and prints its ratio; how large that is depends on the machine and is no test."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.bench.__main__ import BENCHMARKS

SMALL = {
    "create": ["--rounds", "1", "--requests", "160"],
    "lifecycle": ["--commands", "64"],
    "workers": ["--rounds", "1", "--commands", "160"],
    "loop": ["--commands", "64"],
    "batch": ["--commands", "300", "--rounds", "1"],
    "idle": ["--agents", "50", "--seconds", "1", "--commands", "20", "--leases", "10"],
    "push": ["--commands", "64"],
    "bodies": ["--rounds", "1", "--bodies", "16"],
    "auth": ["--rounds", "1", "--requests", "160"],
    "wake": ["--commands", "20"],
    "replay": ["--commands", "500"],
    "restart": ["--commands", "500"],
    "fold": ["--commands", "500"],
    "pauses": ["--commands", "2000"],
    "feed": ["--commands", "160", "--rounds", "1", "--readers", "10", "--requests", "160"],
    "verify": ["--commands", "2000"],
    "memory": ["--live", "50", "--events", "500", "900"],
    "finding": ["--few", "4000", "--commands", "4000"],
    "journal": ["--replay", "500", "--appends", "200"],
}
SECONDS_MAX = 180


def test_every_benchmark_has_a_small_form() -> None:
    """A new benchmark is run by the test below."""
    assert set(SMALL) == set(BENCHMARKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_prints_a_ratio_to_its_floor(name: str) -> None:
    """Small sizes, real servers."""
    command = [sys.executable, "-m", f"tests.bench.{name}", *SMALL[name]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"floor|nats-py", done.stdout)
    assert re.search(r"\d\.\d+", done.stdout)
