"""The processes that benchmarks measure: the real service, and a bare Quart-Trio endpoint as the floor."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STOP_SECONDS_MAX = 20
READY = re.compile(r"ready on http://127\.0\.0\.1:(\d+)")


@dataclass(frozen=True, slots=True)
class Server:
    """A server process and its port."""

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int | str = "self") -> int:
    """Memory of a process in RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def _process(command: list[str]) -> Iterator[Server]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        found = READY.search(process.stdout.readline())
        assert found, f"{command} did not start"
        yield Server(int(found[1]), process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def service(data_dir: Path | None = None, workers: int = 1) -> Iterator[Server]:
    """`arc-es serve` with its own nats-server, fsync always, on a data directory (default: a new one)."""
    with tempfile.TemporaryDirectory() as fresh:
        place = data_dir or Path(fresh) / "data"
        serve = [sys.executable, "-m", "arc_es", "serve", "--bind", "127.0.0.1:0", "--data-dir", str(place)]
        serve += ["--workers", str(workers)]
        with _process([*serve, "--log-level", "WARNING"]) as server:
            yield server


@contextmanager
def bare_endpoint() -> Iterator[Server]:
    """A Quart-Trio application that reads a body and answers JSON, under the same hypercorn settings."""
    with _process([sys.executable, "-m", "tests.bench.bare"]) as server:
        yield server


@contextmanager
def worker(service_port: int) -> Iterator[Server]:
    """A worker runtime that accepts and answers what a service pushes."""
    with _process([sys.executable, "-m", "tests.bench.worker", str(service_port)]) as server:
        yield server
