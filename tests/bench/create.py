"""Durable create over HTTP, 16 connections, fsync always, as a share of a bare Quart-Trio endpoint.

python -m tests.bench.create [--rounds 5] [--requests 1500]

The two are measured in turn, in the same run, each in a process of its own. Wanted: a share of at least 0.70.
"""

from __future__ import annotations

import argparse
import statistics

from tests.bench.drive import Session, drive, request
from tests.bench.servers import Server, bare_endpoint, service

CONNECTIONS = 16
BODY = (
    b'{"deploymentId":"dep_7","command":"report/build","targetResourceId":"indexer",'
    b'"params":{"mode":"inline","inlineBase64":"eyJkYXkiOiIyMDI2LTAzLTAxIn0="}}'
)
CREATE = request("POST", "/v1/commands", BODY)


def creates(count: int) -> Session:
    """Create that many commands, one after the other."""
    for _ in range(count):
        answer = yield CREATE
        assert answer.status == 200, answer


def measure(server: Server, requests: int) -> tuple[float, float]:
    """Requests/s and milliseconds of the process's CPU a request."""
    each = requests // CONNECTIONS
    before = server.cpu_seconds()
    seconds = drive(server.port, [creates(each) for _ in range(CONNECTIONS)])
    return each * CONNECTIONS / seconds, (server.cpu_seconds() - before) / (each * CONNECTIONS) * 1e3


def main() -> None:
    """Print both rates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1_500)
    options = parser.parse_args()
    with bare_endpoint() as bare, service() as real:
        measure(bare, options.requests // 3)
        measure(real, options.requests // 3)
        pairs = [(measure(bare, options.requests), measure(real, options.requests)) for _ in range(options.rounds)]
    floors, ours = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    shares = [our[0] / floor[0] for floor, our in zip(floors, ours, strict=True)]
    for name, rows in (("floor: bare Quart-Trio endpoint", floors), ("durable create", ours)):
        rate, cpu = statistics.median(row[0] for row in rows), statistics.median(row[1] for row in rows)
        print(f"{name:34} {rate:8,.0f} requests/s   {cpu:6.3f} ms CPU of its process a request")
    print(
        f"{'share of the floor':34} {statistics.median(shares):8.2f} median"
        f"   ({min(shares):.2f} to {max(shares):.2f} over {len(shares)} pairs)"
    )


if __name__ == "__main__":
    main()
