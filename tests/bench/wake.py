"""Wake latency: from sending a create to an agent's long-poll answer, on an otherwise idle service.

python -m tests.bench.wake [--commands 300]

The floor is one bare request on one connection. Wanted on an idle machine: p50 under 5 ms, p99 under 25 ms.
"""

from __future__ import annotations

import argparse
import time

import orjson

from tests.bench import create
from tests.bench.drive import Session, drive, percentile, request
from tests.bench.lifecycle import LEASE, RESULT
from tests.bench.servers import bare_endpoint, service


class Wakes:
    """One caller and one agent that take turns: the next create is sent when the agent waits again."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.seconds: list[float] = []
        self.sent_at = 0.0

    def caller(self) -> Session:
        """Create a command, then wait until its answer is in, which is a little after the agent's next poll."""
        for _ in range(self.count):
            self.sent_at = time.perf_counter()
            created = yield create.CREATE
            command_id = orjson.loads(created.body)["commandId"]
            yield request("GET", f"/v1/commands/{command_id}?waitSeconds=30")
            yield request("GET", "/healthz")

    def agent(self) -> Session:
        """Wait for a lease, note when it came, answer it."""
        while True:
            leased = yield LEASE
            self.seconds.append(time.perf_counter() - self.sent_at)
            (lease,) = orjson.loads(leased.body)["leases"]
            url = lease["envelope"]["responseHandling"]["submitResponseUrl"]
            yield request("PUT", f"/v1/commands/{url}", RESULT)


def bare_seconds(count: int, seconds: list[float]) -> Session:
    """Bare requests on one connection, one after the other."""
    for _ in range(count):
        answer = yield create.CREATE
        seconds.append(answer.seconds)


def main() -> None:
    """Print percentiles and their ratio to the floor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=300)
    count = parser.parse_args().commands
    floor: list[float] = []
    with bare_endpoint() as bare, service() as real:
        drive(bare.port, [bare_seconds(count, floor)])
        wakes = Wakes(count)
        caller = wakes.caller()
        drive(real.port, [caller, wakes.agent()], [caller])
    warm = wakes.seconds[count // 10 :]
    for name, values in (("floor: one bare request", floor), ("create to the agent's answer", warm)):
        p50, p99 = percentile(values, 0.5) * 1e3, percentile(values, 0.99) * 1e3
        print(f"{name:34} p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    print(f"{'p50 as a multiple of the floor':34} {percentile(warm, 0.5) / percentile(floor, 0.5):.1f}")


if __name__ == "__main__":
    main()
