"""The same work on arc_es and on other queues, in one run on this machine: a table with ratios.

python -m tests.bench.peers                     all, three rounds, about ten minutes
python -m tests.bench.peers --only arc_es saq   some

A job has a payload of 300 bytes, its handler does nothing and returns 300 bytes, and the result is stored durably.
Single: 16 callers, each waiting for a result before the next job. Bulk: many jobs enqueued at once, until all results
are stored. Wake: from the enqueue of one job to the start of its handler, with idle workers. Rates are medians of
rounds; systems take turns within a round. CPU is that of client, workers and server. Ratios (x) are to arc_es: above 1
is more jobs, or a longer wait; ~ marks a tie. What each system runs with, and why: docs/reference/peers.md.

Needs PostgreSQL, Redis, beanstalkd and Node.js; says what to install if one is missing, and goes on with the others.
Servers run on loopback, on data of their own that is removed at the end. Packages are installed once, in the folder
given with --home.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from tests.bench.peers.catalogue import NAMES, PEERS
from tests.bench.peers.installing import ROOT, command
from tests.bench.peers.running import Amounts, FailedError, run
from tests.bench.peers.servers import MissingError
from tests.bench.peers.table import Row, markdown, percentile

SYNCS = 200


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=NAMES, default=NAMES, help=", ".join(NAMES))
    parser.add_argument("--rounds", type=int, default=3, help="how often each system has its turn (3)")
    parser.add_argument("--seconds", type=float, default=3, help="of the single path in each round (3)")
    parser.add_argument("--bulk", type=float, default=1, metavar="SHARE", help="of the usual jobs in bulk (1)")
    parser.add_argument("--workers", type=int, help="processes of each system instead of what is best on two cores")
    parser.add_argument("--wakes", type=int, default=40, help="in each round (40)")
    parser.add_argument("--minutes", type=float, default=12, help="start nothing more after that long (12)")
    parser.add_argument("--home", type=Path, default=ROOT / ".peers", help="where packages are installed (.peers)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round there too")
    return parser.parse_args(given)


def sync_ms() -> float:
    """The floor under all: how long this disk takes to keep 512 bytes."""
    taken = []
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(SYNCS):
            started = time.perf_counter()
            os.write(file.fileno(), b"x" * 512)
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - started) * 1e3)
    return percentile(taken, 0.5)


def measure(given: argparse.Namespace) -> tuple[list[Row], list[float]]:
    """Rounds of all systems, in turn; a system that fails once is left out from then on."""
    peers = [replace(peer, workers=given.workers or peer.workers) for peer in PEERS if peer.name in given.only]
    rows = {peer.name: Row(peer.name, peer.stores_in, peer.workers) for peer in peers}
    syncs: list[float] = []
    ends = time.monotonic() + given.minutes * 60
    amounts = Amounts(given.seconds, given.bulk, given.wakes)
    for turn in range(given.rounds):
        syncs.append(sync_ms())
        for peer in peers:
            row = rows[peer.name]
            if row.problem or time.monotonic() > ends:
                continue
            print(f"round {turn + 1} of {given.rounds}: {peer.name}", file=sys.stderr, flush=True)
            try:
                row.rounds.append(run(*command(peer, given.home), peer, amounts))
            except MissingError as missing:
                row.problem = str(missing)
            except (FailedError, subprocess.SubprocessError) as failure:
                row.problem = "failed"
                print(failure, file=sys.stderr)
    return list(rows.values()), syncs


def main() -> int:
    """Measure and print; the exit status says whether all that was asked for was measured."""
    given = arguments()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # so that servers are stopped, as by Ctrl-C
    rows, syncs = measure(given)
    print(markdown(rows))
    print(f"\nfdatasync of 512 bytes here, p50 before each round: {', '.join(f'{sync:.2f}' for sync in syncs)} ms")
    for row in rows:
        if row.problem:
            print(f"{row.name}: {row.problem}")
    if given.json:
        given.json.write_text(json.dumps({"sync_ms": syncs, "rows": [asdict(row) for row in rows]}, indent=1))
    return 1 if any(row.problem for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
