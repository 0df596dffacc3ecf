"""Restart from a snapshot against a full replay, and what taking a snapshot or asking about the past costs requests.

python -m tests.bench.restart [--commands 20000] [--data-dir DIR]

Fills a stream with commands, three events each; the last tenth is still pending. Then: a fold of all of it (the
floor), the first start of the service (which also makes its index and its tree), creates over one connection alone,
while a snapshot is taken and while queues of the past are folded, and a start from the snapshot. With --data-dir the
directory is kept, and not filled again if it is there. Wanted: a million commands ready in at most 5 s, better 2 s.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from tests.bench.drive import percentile
from tests.bench.fill import fill
from tests.bench.servers import resident_bytes

LIVE_SHARE = 10
ALONE_SECONDS = 5.0
READY_SECONDS_MAX = 1_800
BODY = json.dumps(
    {
        "deploymentId": "bench",
        "command": "do",
        "targetResourceId": "t",
        "params": {"mode": "inline", "inlineBase64": "e30="},
    }
)


def arc(data_dir: Path, *arguments: str) -> list[str]:
    """The command that runs `arc-es` on a data directory."""
    return [sys.executable, "-m", "arc_es", *arguments, "--data-dir", str(data_dir)]


def folded(data_dir: Path) -> dict[str, Any]:
    """What a fold of everything takes and comes to."""
    done = subprocess.run(arc(data_dir, "replay", "--json"), capture_output=True, check=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@contextmanager
def started(data_dir: Path) -> Iterator[tuple[int, int, float]]:
    """A service: port, process id, and seconds until it was ready."""
    began = time.perf_counter()
    command = arc(data_dir, "serve", "--bind", "127.0.0.1:0", "--log-level", "WARNING")
    environ = {**os.environ, "ARC_SNAPSHOT_SECONDS": "0"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - began
        yield int(line.rpartition(":")[2]), process.pid, seconds
    finally:
        process.terminate()
        process.wait()


def creates_until(port: int, is_over: Any) -> list[float]:
    """The seconds that each create took, one after the other, until it is over."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    seconds: list[float] = []
    while not is_over():
        began = time.perf_counter()
        connection.request("POST", "/v1/commands", BODY, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        seconds.append(time.perf_counter() - began)
        assert answer.status == 200, answer.status
    connection.close()
    return seconds


def creates_beside(port: int, command: list[str]) -> tuple[list[float], float]:
    """Creates while a process runs, and how long that took."""
    began = time.perf_counter()
    beside = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=lambda: os.nice(10))  # noqa: PLW1509 - one thread
    seconds = creates_until(port, lambda: beside.poll() is not None)
    assert beside.returncode == 0
    return seconds, time.perf_counter() - began


def show(name: str, seconds: list[float]) -> None:
    """One line about latencies."""
    p50, p99 = percentile(seconds, 0.5) * 1e3, percentile(seconds, 0.99) * 1e3
    rate = len(seconds) / sum(seconds)
    print(f"{name:34} {rate:6,.0f} /s, p50 {p50:6.1f} ms, p99 {p99:6.1f} ms, longest {max(seconds) * 1e3:6.1f} ms")


def measure(data_dir: Path, commands: int) -> None:
    """Print everything."""
    floor = folded(data_dir)
    events, whole = floor["events"], floor["seconds"]
    print(f"{'floor: fold of all of it':34} {whole:8.2f} s, {floor['eventsPerSecond']:,} events/s, {events:,} events")
    with started(data_dir) as (port, pid, seconds):
        print(
            f"{'first start, index and tree made':34} {seconds:8.2f} s, {resident_bytes(pid) / 2**20:,.0f} MiB resident"
        )
        end = time.perf_counter() + ALONE_SECONDS
        show("creates alone", creates_until(port, lambda: time.perf_counter() > end))
        beside, took = creates_beside(port, arc(data_dir, "snapshot", "take"))
        show("creates beside a snapshot", beside)
        (path,) = (data_dir / "snapshots").glob("*.snapshot")
        print(f"{'snapshot, by another process':34} {took:8.2f} s, {path.stat().st_size / 2**20:.1f} MiB")
        url = f"http://127.0.0.1:{port}/v1/queues?asOf={int(path.stem)}"
        beside, took = creates_beside(
            port, [sys.executable, "-c", f"import urllib.request as u; u.urlopen({url!r}).read()"]
        )
        show("creates beside asOf", beside)
        print(f"{'queues as of a snapshot':34} {took:8.2f} s")
    with started(data_dir) as (_, pid, seconds):
        print(f"{'start from the snapshot':34} {seconds:8.2f} s, {resident_bytes(pid) / 2**20:,.0f} MiB resident")
    print(f"{'start, share of the floor':34} {seconds / whole:8.3f} with {commands:,} commands")


def main() -> None:
    """Seed and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=20_000)
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data_dir = options.data_dir or Path(scratch) / "data"
        if not data_dir.exists():
            trio.run(fill, data_dir, options.commands, options.commands // LIVE_SHARE)
        measure(data_dir, options.commands)


if __name__ == "__main__":
    main()
