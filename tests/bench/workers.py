"""Two workers against one: creates, full lifecycles, wake latency, and what following the other's writes costs.

python -m tests.bench.workers [--rounds 3] [--commands 1200]

The floor is the service with one worker, driven in turn with the one with two. The load shares the machine: on two
cores two workers, nats-server and the load driver want four, so the CPU seconds say more than the rates.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import orjson

from tests.bench import create, lifecycle
from tests.bench.drive import Session, drive, percentile, request
from tests.bench.servers import Server, resident_bytes, service
from tests.bench.wake import Wakes

WORKER = b"arc_es.workers.worker"


def processes(server: Server) -> list[Server]:
    """The processes that serve: the workers, or the only one."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    workers = [int(pid) for pid in children if WORKER in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]
    return [Server(server.port, pid) for pid in workers] or [server]


def lifecycles(server: Server, commands: int) -> float:
    """Full lifecycles/s, 16 callers and 16 agents."""
    taken: list[float] = []
    callers = [lifecycle.caller(commands // lifecycle.CALLERS, taken) for _ in range(lifecycle.CALLERS)]
    agents = [lifecycle.agent() for _ in range(lifecycle.AGENTS)]
    seconds = drive(server.port, [*callers, *agents], callers)
    return len(taken) / seconds


def alone(count: int) -> Session:
    """Create, lease, answer and read, all on one connection, and so at one worker."""
    target = b'{"resourceId":"alone","resourceType":"daemon"}'
    body = create.BODY.replace(b'"indexer"', b'"alone"')
    for _ in range(count):
        created = yield request("POST", "/v1/commands", body)
        leased = yield request("POST", "/v1/commands/leases", b'{"deploymentId":"dep_7","target":' + target + b"}")
        (lease,) = orjson.loads(leased.body)["leases"]
        url = lease["envelope"]["responseHandling"]["submitResponseUrl"]
        yield request("PUT", f"/v1/commands/{url}", lifecycle.RESULT)
        yield request("GET", f"/v1/commands/{orjson.loads(created.body)['commandId']}")


def cost_of_following(server: Server, count: int) -> tuple[float, float]:
    """Milliseconds of CPU a lifecycle: of the worker that serves it, and of the one that only follows."""
    workers = processes(server)
    before = [worker.cpu_seconds() for worker in workers]
    drive(server.port, [alone(count)])
    spent = sorted(worker.cpu_seconds() - was for worker, was in zip(workers, before, strict=True))
    return spent[-1] / count * 1e3, spent[0] / count * 1e3


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
        wake = {name: wake_seconds(server, options.commands // 8) for name, server in (("one", one), ("two", two))}
        serving, following = cost_of_following(two, options.commands // 4)
        creates, lives = [], []
        for measured in range(options.rounds + 1):
            rates = [create.measure(server, options.commands)[0] for server in (one, two)]
            lived = [lifecycles(server, options.commands // 2) for server in (one, two)]
            if measured:
                creates.append(rates)
                lives.append(lived)
        memory = [sum(resident_bytes(each.pid) for each in processes(server)) / 1e6 for server in (one, two)]
    for name, rows in (("creates, 16 connections", creates), ("full lifecycles, 16 and 16", lives)):
        floor, ours = (statistics.median(row[at] for row in rows) for at in (0, 1))
        ratio = statistics.median(row[1] / row[0] for row in rows)
        print(f"{name:34} one worker (floor) {floor:7,.0f} /s   two {ours:7,.0f} /s   ratio {ratio:.2f}")
    print(f"{'create to the agent, p50':34} one worker {wake['one'] * 1e3:.2f} ms   two {wake['two'] * 1e3:.2f} ms")
    print(f"{'CPU of a lifecycle':34} serving it {serving:.2f} ms   following it {following:.2f} ms")
    print(f"{'so with cores enough, N workers are':34} N / (1 + (N - 1) x {following / serving:.3f}) times one")
    print(f"{'resident memory, all that serve':34} one worker {memory[0]:.0f} MB   two {memory[1]:.0f} MB")


if __name__ == "__main__":
    main()
