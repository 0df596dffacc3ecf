"""Agents that wait: what they take while nothing happens, and how fast one of them is woken in the middle of them.

python -m tests.bench.idle [--agents 10000] [--seconds 20] [--commands 100] [--leases 200]

Each agent is a connection with a long poll of 60 s that is made again and again. Three measurements: memory and
processor time of the service with all of them, against the service without; a create to the answer of a woken agent
(floor: one bare request); the end of a lease to its redelivery to a waiting agent. Wanted: at most 400 MB and 10 % of a
core with 10 000; p50 < 5 ms and p99 < 25 ms with 1 000; p99 < 500 ms.
"""

from __future__ import annotations

import argparse
import resource
import time
from datetime import datetime

import orjson

from tests.bench import create
from tests.bench.drive import Session, drive, percentile, request
from tests.bench.servers import Server, bare_endpoint, resident_bytes, service
from tests.bench.wake import Wakes, bare_seconds

TARGETS = 20
STARTS_PER_SECOND = 400
SETTLE_SECONDS = 2.0


def waiter(number: int) -> Session:
    """Wait for work that never comes."""
    target = {"resourceId": f"idle_{number % TARGETS}", "resourceType": "daemon"}
    asked = {"deploymentId": "dep_7", "target": target, "waitSeconds": 60, "agent": {"id": f"a{number}"}}
    poll = request("POST", "/v1/commands/leases", orjson.dumps(asked))
    while True:
        answer = yield poll
        assert answer.status == 200, answer


def healthy_for(seconds: float) -> Session:
    """Ask for the health of the service until so much time has passed."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        yield request("GET", "/healthz")
        time.sleep(0.05)


def idle(server: Server, agents: int, seconds: float) -> tuple[float, float]:
    """Resident megabytes with so many waiting agents, and the share of a core that they take."""
    used: list[float] = []

    def watch() -> Session:
        yield from healthy_for(SETTLE_SECONDS)
        before, began = server.cpu_seconds(), time.perf_counter()
        yield from healthy_for(seconds)
        used.append((server.cpu_seconds() - before) / (time.perf_counter() - began))
        used.append(resident_bytes(server.pid) / 1e6)

    watcher = watch()
    drive(
        server.port,
        [*(waiter(number) for number in range(agents)), watcher],
        [watcher],
        starts_per_second=STARTS_PER_SECOND,
    )
    return used[1], used[0]


class Redeliveries:
    """One agent that lets each lease of a second run out, and gets the command again while it waits."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.late: list[float] = []

    def agent(self) -> Session:
        """Create, lease, wait: the answer comes when the lease has ended."""
        target = {"resourceId": "again", "resourceType": "daemon"}
        ask = {"deploymentId": "dep_7", "target": target, "leaseSeconds": 1, "waitSeconds": 30, "maxLeases": self.count}
        poll = request("POST", "/v1/commands/leases", orjson.dumps(ask))
        command = orjson.loads(create.BODY) | {"targetResourceId": "again"}
        yield request("POST", "/v1/commands/batch", orjson.dumps({"commands": [command] * self.count}))
        ends: dict[str, float] = {}
        while len(self.late) < self.count:
            answer = yield poll
            now = time.time()
            for lease in orjson.loads(answer.body)["leases"]:
                if lease["commandId"] in ends:
                    self.late.append(now - ends.pop(lease["commandId"]))
                elif lease["attempt"] == 1:
                    ends[lease["commandId"]] = datetime.fromisoformat(lease["leaseExpiresAt"]).timestamp()


def main() -> None:
    """Print all three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--commands", type=int, default=100)
    parser.add_argument("--leases", type=int, default=200)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    floor: list[float] = []
    with bare_endpoint() as bare:
        drive(bare.port, [bare_seconds(options.commands, floor)])
    with service() as real:
        alone = resident_bytes(real.pid) / 1e6
        megabytes, share = idle(real, options.agents, options.seconds)
    with service() as real:
        wakes = Wakes(options.commands)
        caller = wakes.caller()
        others = [waiter(number) for number in range(options.agents // 10)]
        drive(real.port, [*others, caller, wakes.agent()], [caller])
        again = Redeliveries(options.leases)
        agent = again.agent()
        drive(real.port, [*(waiter(number) for number in range(options.agents // 10)), agent], [agent])
    each = (megabytes - alone) * 1e3 / options.agents
    print(f"{'floor: the service without agents':46} {alone:.0f} MB")
    print(
        f"{f'with {options.agents} waiting agents':46} {megabytes:.0f} MB ({each:.0f} KB each), {share:.3f} of a core"
    )
    warm = wakes.seconds[options.commands // 10 :]
    for name, values in (("floor: one bare request", floor), (f"a wake among {options.agents // 10} who wait", warm)):
        p50, p99 = percentile(values, 0.5) * 1e3, percentile(values, 0.99) * 1e3
        print(f"{name:46} p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    p50, p99 = percentile(again.late, 0.5) * 1e3, percentile(again.late, 0.99) * 1e3
    print(f"{'end of a lease to its redelivery':46} p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    print(f"{'p50 of a wake as a multiple of the floor':46} {percentile(warm, 0.5) / percentile(floor, 0.5):.1f}")


if __name__ == "__main__":
    main()
