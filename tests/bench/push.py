"""Push commands (create, push, answer, read) per second with 16 callers, and their p50 and p99.

python -m tests.bench.push [--commands 1600]

Callers create for four push targets and long-poll the status; one worker runtime for all of them answers 202 and then
the command. The floor is four bare requests, as for the full lifecycle with leases.
"""

from __future__ import annotations

import argparse
import os

import orjson

from tests.bench import create
from tests.bench.drive import Session, drive, percentile, request
from tests.bench.servers import bare_endpoint, service, worker

CALLERS = 16
TARGETS = 4
BASE = "http://arc.bench/v1"
"""The public URL of the service; the worker takes the paths of its URLs only."""


def declare(port: int) -> Session:
    """Declare the targets."""
    push = {"url": f"http://127.0.0.1:{port}/push"}
    targets = [{"resourceId": f"w{number}", "resourceType": "worker", "push": push} for number in range(TARGETS)]
    declared = yield request("PUT", "/v1/deployments/dep_p", orjson.dumps({"model": "push", "targets": targets}))
    assert declared.status == 200, declared


def caller(number: int, count: int, seconds: list[float]) -> Session:
    """Create commands one after the other and wait for each result."""
    body = {
        "deploymentId": "dep_p",
        "command": "report/build",
        "params": {"mode": "inline", "inlineBase64": "eyJkYXkiOiIyMDI2LTAzLTAxIn0="},
        "targetResourceId": f"w{number % TARGETS}",
    }
    for _ in range(count):
        created = yield request("POST", "/v1/commands", orjson.dumps(body))
        assert created.status == 200, created
        command_id = orjson.loads(created.body)["commandId"]
        done = yield request("GET", f"/v1/commands/{command_id}?waitSeconds=30")
        assert orjson.loads(done.body)["state"] == "SUCCEEDED", done
        seconds.append(created.seconds + done.seconds)


def main() -> None:
    """Print the rate, its percentiles and the share of the floor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=1_600)
    commands = parser.parse_args().commands
    os.environ["ARC_PUBLIC_URL"] = BASE
    with bare_endpoint() as bare, service() as real, worker(real.port) as runtime:
        drive(real.port, [declare(runtime.port)])
        rates, floors, seconds = [], [], []
        for measured in (False, True, True, True):
            floor_rate, _ = create.measure(bare, commands // 2)
            taken: list[float] = []
            spent = drive(real.port, [caller(n, commands // CALLERS // 2, taken) for n in range(CALLERS)])
            if measured:
                rates.append(len(taken) / spent)
                floors.append(floor_rate / 4)
                seconds += taken
    rate, floor = percentile(rates, 0.5), percentile(floors, 0.5)
    print(f"{'floor: four bare requests':34} {floor:8,.0f} /s")
    print(f"{'push deliveries, answered':34} {rate:8,.0f} /s   {rate / floor:5.2f} of the floor")
    p50, p99 = percentile(seconds, 0.5) * 1e3, percentile(seconds, 0.99) * 1e3
    print(f"{'create to result, 16 callers':34} p50 {p50:.1f} ms, p99 {p99:.1f} ms")


if __name__ == "__main__":
    main()
