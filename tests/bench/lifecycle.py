"""Full lifecycles (create, lease, respond, read) per second with 16 callers and 16 agents, and their p50 and p99.

python -m tests.bench.lifecycle [--commands 1600]

Callers create and long-poll the status; agents long-poll for leases. The floor is four bare requests.
"""

from __future__ import annotations

import argparse

import orjson

from tests.bench import create
from tests.bench.drive import Session, drive, percentile, request
from tests.bench.servers import bare_endpoint, service

CALLERS = AGENTS = 16
LEASE = request(
    "POST",
    "/v1/commands/leases",
    b'{"deploymentId":"dep_7","target":{"resourceId":"indexer","resourceType":"daemon"},"waitSeconds":30}',
)
RESULT = b'{"status":"success","response":{"mode":"inline","inlineBase64":"eyJyb3dzIjoxN30="}}'


def caller(count: int, seconds: list[float]) -> Session:
    """Create commands one after the other and wait for each result."""
    for _ in range(count):
        created = yield create.CREATE
        assert created.status == 200, created
        command_id = orjson.loads(created.body)["commandId"]
        done = yield request("GET", f"/v1/commands/{command_id}?waitSeconds=30")
        assert orjson.loads(done.body)["state"] == "SUCCEEDED", done
        seconds.append(created.seconds + done.seconds)


def agent() -> Session:
    """Lease, answer, for ever."""
    while True:
        leased = yield LEASE
        assert leased.status == 200, leased
        for lease in orjson.loads(leased.body)["leases"]:
            url = lease["envelope"]["responseHandling"]["submitResponseUrl"]
            answered = yield request("PUT", f"/v1/commands/{url}", RESULT)
            assert answered.status == 200, answered


def main() -> None:
    """Print the rate, its percentiles and the share of the floor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=1_600)
    commands = parser.parse_args().commands
    with bare_endpoint() as bare, service() as real:
        rates, floors, seconds = [], [], []
        for measured in (False, True, True, True):
            floor_rate, _ = create.measure(bare, commands // 2)
            taken: list[float] = []
            callers = [caller(commands // CALLERS // 2, taken) for _ in range(CALLERS)]
            spent = drive(real.port, [*callers, *(agent() for _ in range(AGENTS))], callers)
            if measured:
                rates.append(len(taken) / spent)
                floors.append(floor_rate / 4)
                seconds += taken
    rate, floor = percentile(rates, 0.5), percentile(floors, 0.5)
    print(f"{'floor: four bare requests':34} {floor:8,.0f} /s")
    print(f"{'full lifecycles':34} {rate:8,.0f} /s   {rate / floor:5.2f} of the floor")
    p50, p99 = percentile(seconds, 0.5) * 1e3, percentile(seconds, 0.99) * 1e3
    print(f"{'create to result, 16 callers':34} p50 {p50:.1f} ms, p99 {p99:.1f} ms")


if __name__ == "__main__":
    main()
