"""One round of one system: its server, its driver and workers, and the processor time that all of them took."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.bench.peers.catalogue import Peer
from tests.bench.peers.installing import ROOT

SECONDS_MAX = 75
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Phase:
    """So many jobs from enqueue to stored result."""

    jobs: int
    seconds: float
    cpu_seconds: float
    """Of client, workers and server: what a busy neighbour changes least."""

    @property
    def rate(self) -> float:
        return self.jobs / self.seconds

    @property
    def cpu_ms(self) -> float:
        return self.cpu_seconds * 1e3 / self.jobs


@dataclass(frozen=True, slots=True)
class Round:
    """What one turn of a system gave."""

    single: Phase
    bulk: Phase
    wakes_ms: list[float]


class FailedError(Exception):
    """A driver ended without a result; the message is the end of what it and its workers wrote."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much a round does."""

    single_seconds: float
    bulk_share: float
    wakes: int

    def plan(self, peer: Peer, url: str) -> str:
        """For the driver of a system."""
        return json.dumps(
            {
                "url": url,
                "workers": peer.workers,
                "single_seconds": self.single_seconds,
                "bulk_jobs": max(int(peer.bulk_jobs * self.bulk_share), 1),
                "wakes": self.wakes,
            }
        )


def run(starts: list[str], variables: Mapping[str, str], peer: Peer, amounts: Amounts) -> Round:
    """Start the server of a system and its driver, and take what that says.

    Raises:
        FailedError: it ended otherwise, or took too long.
    """
    with (
        peer.serving() as url,
        tempfile.TemporaryFile("w+") as log,
        _driver([*starts, "measure", amounts.plan(peer, url)], variables, log) as said,
    ):
        measured = _listen(said)
        if measured is None:
            log.seek(0)
            raise FailedError(f"{peer.name} failed:\n{log.read()[-2_000:]}")
        return measured


@contextmanager
def _driver(starts: list[str], variables: Mapping[str, str], log: IO[str]) -> Iterator[IO[str]]:
    """What it prints. It is killed at the end, or when time is up, with the workers that it may have left."""
    environment = {**os.environ, **variables}
    process = subprocess.Popen(
        starts, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
    )

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    limit = threading.Timer(SECONDS_MAX, kill)
    limit.start()
    try:
        assert process.stdout is not None
        with process.stdout as said:
            yield said
    finally:
        limit.cancel()
        kill()
        process.wait()


def _listen(said: IO[str]) -> Round | None:
    """Follow a driver to its end; processor time is read when it says that a phase begins, and that it has ended."""
    measured = None
    phases: dict[str, Phase] = {}
    began = 0.0
    for line in said:
        if not line.startswith("{"):
            continue  # a library said something
        told: Mapping[str, Any] = json.loads(line)
        if "begins" in told:
            began = descendants_cpu_seconds()
        elif "ended" in told:
            spent = descendants_cpu_seconds() - began
            phases[told["ended"]] = Phase(told["jobs"], told["seconds"], spent)
        else:
            measured = Round(phases["single"], phases["bulk"], [wake / 1e6 for wake in told["wakes"]])
    return measured


def descendants_cpu_seconds() -> float:
    """User and system time so far of all processes below this one, with those below them that have ended."""
    children: dict[int, list[int]] = defaultdict(list)
    ticks: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            fields = stat.read_text().rsplit(")", 1)[1].split()
            pid = int(stat.parent.name)
            children[int(fields[1])].append(pid)
            ticks[pid] = sum(map(int, fields[11:15]))
    total, below = 0, list(children[os.getpid()])
    while below:
        pid = below.pop()
        total += ticks[pid]
        below += children[pid]
    return total / TICKS
