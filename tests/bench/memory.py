"""Memory of a service whose history grows: flat, with the same number of live commands.

python -m tests.bench.memory [--live 2000] [--events 20000 60000] [--data-dir DIR]

Fills a stream with live (pending) commands, and with commands that have ended until there are so many events; at each
number it takes a snapshot, starts the service from it, and prints the resident sets of service and nats-server when it
is ready and has answered a list. The floor is the first number. With --data-dir the directory is kept, and gone on
with. Wanted: flat up to 10 million events with 100 000 live commands: --live 100000 --events 2800000 10000000.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from typing import Final

import trio

from tests.bench.fill import fill
from tests.bench.restart import arc, started
from tests.bench.servers import resident_bytes

EVENTS_EACH: Final = 3
MIB: Final = 2**20


def nats_of(pid: int) -> int:
    """The process of its nats-server."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"nats-server" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    raise LookupError("the service has no nats-server")


def measured(data_dir: Path) -> tuple[float, float, float]:
    """Seconds from a snapshot to ready, and the resident sets, in MiB, of service and nats-server."""
    with started(data_dir):  # the index follows, if anything is new
        subprocess.run(arc(data_dir, "snapshot", "take"), check=True, stdout=subprocess.DEVNULL)
    with started(data_dir) as (port, pid, seconds):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/commands?limit=1000") as answer:
            answer.read()
        return seconds, resident_bytes(pid) / MIB, resident_bytes(nats_of(pid)) / MIB


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--live", type=int, default=2_000)
    parser.add_argument("--events", type=int, nargs="+", default=[20_000, 60_000])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--there", type=int, default=0, help="commands that the directory holds already")
    options = parser.parse_args()
    floor = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        data_dir, there = options.data_dir or Path(scratch) / "data", options.there
        for events in sorted(options.events):
            live = 0 if there else options.live
            wanted = options.live + (events - options.live) // EVENTS_EACH
            if wanted > there:
                trio.run(fill, data_dir, wanted - there, live, there)
                there = wanted
            seconds, service, nats = measured(data_dir)
            floor = floor or service
            print(f"{events:12,} events, {options.live:,} live: service {service:7,.0f} MiB", end="", flush=True)
            print(f" {service / floor:5.2f} of the floor, nats-server {nats:7,.0f} MiB, ready in {seconds:.2f} s")


if __name__ == "__main__":
    main()
