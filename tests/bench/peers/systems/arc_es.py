"""arc_es over HTTP: a caller creates and waits for the end in one call; an agent answers and waits for more in one.

Callers and agents are connections of one thread, as cheap as can be: any program that speaks HTTP can be either.
"""

from __future__ import annotations

import base64
import random
import sys
import time
from collections.abc import Sequence
from typing import Any

import orjson

from tests.bench.drive import Answer, Session, drive, request
from tests.bench.peers.work import BYTES, CALLERS, IDLE_SECONDS, PAYLOAD, WARM_SECONDS, Plan, tell
from tests.bench.servers import service

WAIT_SECONDS = 30
AT_A_TIME = 100
"""Commands in one create, lease and answer of bulk."""
BULK_CALLERS = BULK_AGENTS = 4
TARGET = {"resourceId": "indexer", "resourceType": "daemon"}
COMMAND = {
    "deploymentId": "bench",
    "targetResourceId": TARGET["resourceId"],
    "command": "handle",
    "params": {"mode": "inline", "inlineBase64": base64.b64encode(PAYLOAD.encode()).decode()},
}
RESPONSE = {
    "status": "success",
    "response": {"mode": "inline", "inlineBase64": base64.b64encode(b"r" * BYTES).decode()},
}
CALL = request("POST", "/v1/commands", orjson.dumps({**COMMAND, "waitSeconds": WAIT_SECONDS}))


def body_of(answer: Answer) -> Any:
    """What a call answered, which must have gone well."""
    assert answer.status == 200, answer
    return orjson.loads(answer.body)


def round_of_agent(leases: Sequence[dict[str, Any]], most: int, wait_seconds: int = WAIT_SECONDS) -> bytes:
    """One call: the answers to these leases, and a wait for more."""
    answers = [{"commandId": held["commandId"], "leaseId": held["leaseId"], "response": RESPONSE} for held in leases]
    asked = {"deploymentId": "bench", "target": TARGET, "maxLeases": most, "waitSeconds": wait_seconds}
    return request("POST", "/v1/commands/leases", orjson.dumps({**asked, "complete": answers}))


def call() -> Session:
    """Create a command and wait for its result."""
    done = yield CALL
    assert body_of(done)["state"] == "SUCCEEDED", done


def agent() -> Session:
    """Answer, lease, for ever."""
    leases: list[dict[str, Any]] = []
    while True:
        leased = yield round_of_agent(leases, most=1)
        leases = body_of(leased)["leases"]


def single(port: int, seconds: float) -> int:
    """How many lifecycles callers make that each wait for a result before the next command."""
    ends, done = time.monotonic() + seconds, 0

    def caller() -> Session:
        nonlocal done
        while time.monotonic() < ends:
            yield from call()
            done += 1

    callers = [caller() for _ in range(CALLERS)]
    drive(port, [*callers, *(agent() for _ in range(CALLERS))], callers)
    return done


class Bulk:
    """Callers that only create and agents that answer, a hundred at a time, until all are answered."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.left = count
        self.sizes = [min(AT_A_TIME, count - start) for start in range(0, count, AT_A_TIME)]
        self.ended_at = 0.0

    def caller(self, sizes: Sequence[int]) -> Session:
        for size in sizes:
            created = yield request("POST", "/v1/commands/batch", orjson.dumps({"commands": [COMMAND] * size}))
            assert all("commandId" in result for result in body_of(created)["results"]), created

    def agent(self) -> Session:
        leases: list[dict[str, Any]] = []
        while self.left:
            leased = yield round_of_agent(leases, AT_A_TIME, wait_seconds=1)
            settled = body_of(leased)
            leases = settled["leases"]
            completed = settled["completed"]
            assert all(each["state"] == "SUCCEEDED" for each in completed), completed
            if completed:
                self.left -= len(completed)
                self.ended_at = time.perf_counter()

    def run(self, port: int) -> float:
        """The seconds until the last one was answered."""
        started_at = time.perf_counter()
        callers = [self.caller(self.sizes[first::BULK_CALLERS]) for first in range(min(BULK_CALLERS, len(self.sizes)))]
        drive(port, [*callers, *(self.agent() for _ in range(BULK_AGENTS))])
        assert not self.left
        return self.ended_at - started_at


def wakes(port: int, count: int) -> list[int]:
    """From sending a create to an agent's answer from its wait, with nothing else to do."""
    taken: list[int] = []
    sent_ns = 0

    def caller() -> Session:
        nonlocal sent_ns
        for _ in range(count):
            yield request("GET", "/healthz")  # meanwhile the agent asks again
            time.sleep(random.uniform(*IDLE_SECONDS))
            sent_ns = time.monotonic_ns()
            yield from call()

    def woken() -> Session:
        leases: list[dict[str, Any]] = []
        while True:
            leased = yield round_of_agent(leases, most=1)
            taken.append(time.monotonic_ns() - sent_ns)
            leases = body_of(leased)["leases"]

    only = caller()
    drive(port, [only, woken()], [only])
    return taken[:count]


def measure(port: int, plan: Plan) -> None:
    """Warm up, then everything that the plan asks for."""
    single(port, WARM_SECONDS)
    tell(begins="single")
    started_at = time.perf_counter()
    jobs = single(port, plan.single_seconds)
    tell(ended="single", jobs=jobs, seconds=time.perf_counter() - started_at)
    tell(begins="bulk")
    tell(ended="bulk", jobs=plan.bulk_jobs, seconds=Bulk(plan.bulk_jobs).run(port))
    tell(wakes=wakes(port, plan.wakes))


if __name__ == "__main__":
    asked = Plan.from_json(sys.argv[2])
    with service(workers=asked.workers) as running:
        measure(running.port, asked)
