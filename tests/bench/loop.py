"""Full lifecycles per second with one round trip a side: creates that wait, agents that answer and lease in one call.

python -m tests.bench.loop [--commands 1600]

16 callers and 16 agents. The floor is two bare requests: one of a caller, one of an agent. Wanted: 800 /s on all cores.
"""

from __future__ import annotations

import argparse

import orjson

from tests.bench import create
from tests.bench.drive import Session, drive, percentile, request
from tests.bench.servers import bare_endpoint, service

CALLERS = AGENTS = 16
CREATE = request("POST", "/v1/commands", create.BODY[:-1] + b',"waitSeconds":30}')
ASK = {"deploymentId": "dep_7", "target": {"resourceId": "indexer", "resourceType": "daemon"}, "waitSeconds": 30}
RESULT = {"status": "success", "response": {"mode": "inline", "inlineBase64": "eyJyb3dzIjoxN30="}}


def caller(count: int, seconds: list[float]) -> Session:
    """Create commands one after the other; each answer brings the result."""
    for _ in range(count):
        done = yield CREATE
        assert orjson.loads(done.body)["state"] == "SUCCEEDED", done
        seconds.append(done.seconds)


def agent(name: str) -> Session:
    """Answer and lease, for ever."""
    complete: list[dict[str, object]] = []
    while True:
        asked = ASK | {"agent": {"id": name}, "complete": complete}
        answer = yield request("POST", "/v1/commands/leases", orjson.dumps(asked))
        assert answer.status == 200, answer
        complete = [
            {"commandId": lease["commandId"], "leaseId": lease["leaseId"], "response": RESULT}
            for lease in orjson.loads(answer.body)["leases"]
        ]


def main() -> None:
    """Print the rate, its percentiles and the share of the floor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=1_600)
    commands = parser.parse_args().commands
    rates, floors, seconds = [], [], []
    with bare_endpoint() as bare, service() as real:
        for measured in (False, True, True, True):
            floor_rate, _ = create.measure(bare, commands // 2)
            taken: list[float] = []
            callers = [caller(commands // CALLERS // 2, taken) for _ in range(CALLERS)]
            agents = [agent(f"a{number}") for number in range(AGENTS)]
            spent = drive(real.port, [*callers, *agents], callers)
            if measured:
                rates.append(len(taken) / spent)
                floors.append(floor_rate / 2)
                seconds += taken
    rate, floor = percentile(rates, 0.5), percentile(floors, 0.5)
    print(f"{'floor: two bare requests':34} {floor:8,.0f} /s")
    print(f"{'lifecycles by one call a side':34} {rate:8,.0f} /s   {rate / floor:5.2f} of the floor")
    p50, p99 = percentile(seconds, 0.5) * 1e3, percentile(seconds, 0.99) * 1e3
    print(f"{'create to result, 16 callers':34} p50 {p50:.1f} ms, p99 {p99:.1f} ms")


if __name__ == "__main__":
    main()
