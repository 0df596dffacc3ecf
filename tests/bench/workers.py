"""Two workers against one: creates, full lifecycles, wake latency, and what following the other's writes costs.

python -m tests.bench.workers [--rounds 3] [--commands 1200]

The floor is the service with one worker, driven in turn with the one with two. The load shares the machine: on two
cores two workers, nats-server and the load driver want four, so the CPU seconds say more than the rates.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench import create, lifecycle
from tests.bench.drive import Session, drive, percentile
from tests.bench.servers import Server, resident_bytes, service
from tests.bench.wake import Wakes

WORKER = b"arc_es.workers.worker"


def processes(server: Server) -> list[Server]:
    """The processes that serve: the workers, or the only one."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    workers = [int(pid) for pid in children if WORKER in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]
    return [Server(server.port, pid) for pid in workers] or [server]


class Work(NamedTuple):
    """What one server did: commands a second, and milliseconds of CPU of all its workers for each."""

    rate: float
    cpu_ms: float


def creates(server: Server, commands: int) -> Work:
    """Creates on 16 connections. What is left over from other runs does not wait for an agent."""
    each = commands // create.CONNECTIONS
    return _measured(server, [create.creates(each) for _ in range(create.CONNECTIONS)], each * create.CONNECTIONS)


def lifecycles(server: Server, commands: int) -> Work:
    """Full lifecycles, 16 callers and 16 agents."""
    each = commands // lifecycle.CALLERS
    callers = [lifecycle.caller(each, []) for _ in range(lifecycle.CALLERS)]
    return _measured(server, callers, each * lifecycle.CALLERS, [lifecycle.agent() for _ in range(lifecycle.AGENTS)])


def _measured(server: Server, callers: list[Session], commands: int, agents: Sequence[Session] = ()) -> Work:
    workers = processes(server)
    before = sum(worker.cpu_seconds() for worker in workers)
    seconds = drive(server.port, [*callers, *agents], callers)
    return Work(commands / seconds, (sum(worker.cpu_seconds() for worker in workers) - before) / commands * 1e3)


def wake_seconds(server: Server, count: int) -> float:
    """p50 from a create to the answer of the agent that waits."""
    wakes = Wakes(count)
    caller = wakes.caller()
    drive(server.port, [caller, wakes.agent()], [caller])
    return percentile(wakes.seconds[count // 10 :], 0.5)


def main() -> None:
    """Print rates and ratios, wake latency, the cost of following, and memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--commands", type=int, default=1_200)
    options = parser.parse_args()
    with service() as one, service(workers=2) as two:
        wakes = [wake_seconds(server, options.commands // 8) for server in (one, two)]
        sizes = (lifecycles, options.commands // 2), (creates, options.commands)
        lived: list[list[Work]] = []
        created: list[list[Work]] = []
        for rows, (measure, commands) in zip((lived, created), sizes, strict=True):
            for _ in range(options.rounds + 1):
                rows.append([measure(server, commands) for server in (one, two)])
            del rows[0]  # it has warmed them up
        memory = [sum(resident_bytes(each.pid) for each in processes(server)) / 1e6 for server in (one, two)]
    for name, rows in (("creates, 16 connections", created), ("full lifecycles, 16 and 16", lived)):
        show(name, rows)
    print(f"{'create to the agent, p50':34} one worker {wakes[0] * 1e3:.2f} ms   two {wakes[1] * 1e3:.2f} ms")
    print(f"{'resident memory, all that serve':34} one worker {memory[0]:.0f} MB   two {memory[1]:.0f} MB")


def show(name: str, rows: list[list[Work]]) -> None:
    """Print medians over rounds of one and two workers, and what the second one costs."""
    one, two = ([row[at] for row in rows] for at in (0, 1))
    rates = [statistics.median(work.rate for work in works) for works in (one, two)]
    cpu = [statistics.median(work.cpu_ms for work in works) for works in (one, two)]
    ratio = statistics.median(ours.rate / floor.rate for floor, ours in zip(one, two, strict=True))
    print(f"{name:34} one worker (floor) {rates[0]:7,.0f} /s   two {rates[1]:7,.0f} /s   ratio {ratio:.2f}")
    more = cpu[1] / cpu[0] - 1
    print(f"{'  CPU of all workers for each':34} one worker {cpu[0]:.2f} ms   two {cpu[1]:.2f} ms   {more:+.0%}")
    print(f"{'  so with cores enough':34} two workers are {2 / (1 + more):.2f} times one")


if __name__ == "__main__":
    main()
