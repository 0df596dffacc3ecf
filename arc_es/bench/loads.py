"""What `arc-es bench` does to a service, and what it measures."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from arc_es.bench.drive import Answer, Place, Session, drive, percentile

BATCH: Final = 100
LIVE: Final = timedelta(hours=1)
"""What nobody answers expires after this time."""
RESULT: Final = b'{"status":"success","response":{"mode":"inline","inlineBase64":"eyJyb3dzIjoxN30="}}'

Tick = Callable[[str, float, int], None]
"""Told the name of a load, the seconds it has taken so far, and how many commands are done."""


class BenchFailed(Exception):
    """The service answered otherwise than load needs it; the message says how."""


@dataclass(slots=True)
class Measured:
    """One load: how much was done in how long, and how long each took."""

    name: str
    count: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """The rate."""
        return self.count / self.seconds if self.seconds else 0.0

    def milliseconds(self, share: float) -> float:
        """The latency that so large a share stays below."""
        return percentile(self.latencies, share) * 1e3 if self.latencies else 0.0


class Loads:
    """All loads on one service, in a deployment of their own."""

    def __init__(
        self, place: Place, commands: int, connections: int, on_tick: Callable[[str, float, int], None]
    ) -> None:
        self._place = place
        self._commands = commands
        self._connections = connections
        self._on_tick = on_tick
        self.deployment = f"bench-{uuid.uuid4().hex[:8]}"

    def create(self) -> Measured:
        """Commands created by many connections, one a request."""
        found = Measured("create")
        create = self._create("create")

        def session(count: int) -> Session:
            for _ in range(count):
                answer = yield create
                _checked(answer)
                _count(found, answer.seconds)

        self._drive(found, [session(self._each) for _ in range(self._connections)])
        return found

    def batch(self) -> Measured:
        """Commands created by many connections, a hundred a request; latencies are those of requests."""
        found = Measured("batch")
        commands = [self._command("batch")] * BATCH
        create = self._place.request("POST", "/v1/commands/batch", orjson.dumps({"commands": commands}))

        def session(count: int) -> Session:
            for _ in range(count):
                answer = yield create
                wrong = [one for one in _checked(answer)["results"] if "error" in one]
                if wrong:
                    raise BenchFailed(f"a batch was not taken: {wrong[0]}")
                _count(found, answer.seconds, BATCH)

        calls = max(1, self._commands // BATCH // 4)
        self._drive(found, [session(calls) for _ in range(4)])
        return found

    def lifecycle(self) -> Measured:
        """Commands created, leased, answered and read, by as many callers as agents; latencies are those of calls."""
        found = Measured("lifecycle")
        callers = [self._caller("lifecycle", self._each, found) for _ in range(self._connections)]
        self._drive(found, [*callers, *(self._agent("lifecycle") for _ in callers)], callers)
        return found

    def wake(self) -> Measured:
        """One command at a time, on an idle service: from its create to the answer of the agent that waits for it."""
        found, sent_at = Measured("wake"), [0.0]

        def caller() -> Session:
            for _ in range(max(1, min(self._commands // 10, 300))):
                sent_at[0] = time.perf_counter()
                created = yield self._create("wake")
                yield self._wait(_checked(created)["commandId"])
                yield self._place.request("GET", "/healthz")

        calling = caller()
        agent = self._agent("wake", lambda: _count(found, time.perf_counter() - sent_at[0]))
        self._drive(found, [calling, agent], [calling])
        return found

    def _caller(self, target: str, count: int, found: Measured) -> Session:
        create = self._create(target)
        for _ in range(count):
            created = yield create
            done = yield self._wait(_checked(created)["commandId"])
            if _checked(done)["state"] != "SUCCEEDED":
                raise BenchFailed(f"a command did not succeed: {done.body!r:.200}")
            _count(found, created.seconds + done.seconds)

    def _agent(self, target: str, on_lease: Callable[[], None] = lambda: None) -> Session:
        """Lease, answer, for ever."""
        where = {"resourceId": target, "resourceType": "daemon"}
        ask = orjson.dumps({"deploymentId": self.deployment, "target": where, "waitSeconds": 30})
        lease = self._place.request("POST", "/v1/commands/leases", ask)
        while True:
            leased = yield lease
            for one in _checked(leased)["leases"]:
                on_lease()
                url = one["envelope"]["responseHandling"]["submitResponseUrl"]
                _checked((yield self._place.request("PUT", f"/v1/commands/{url}", RESULT)))

    @property
    def _each(self) -> int:
        return max(1, self._commands // self._connections)

    def _command(self, target: str) -> dict[str, Any]:
        deadline = (datetime.now(UTC) + LIVE).isoformat().replace("+00:00", "Z")
        params = {"mode": "inline", "inlineBase64": "eyJkYXkiOiIyMDI2LTAzLTAxIn0="}
        about = {"deploymentId": self.deployment, "command": "bench", "targetResourceId": target}
        return {**about, "params": params, "deadline": deadline}

    def _create(self, target: str) -> bytes:
        return self._place.request("POST", "/v1/commands", orjson.dumps(self._command(target)))

    def _wait(self, command_id: str) -> bytes:
        return self._place.request("GET", f"/v1/commands/{command_id}?waitSeconds=30")

    def _drive(self, found: Measured, sessions: Sequence[Session], until: Sequence[Session] | None = None) -> None:
        found.seconds = drive(
            self._place, sessions, until, lambda seconds: self._on_tick(found.name, seconds, found.count)
        )


def _count(found: Measured, seconds: float, commands: int = 1) -> None:
    found.count += commands
    found.latencies.append(seconds)


def _checked(answer: Answer) -> Any:
    if answer.status != 200:  # noqa: PLR2004 - every call of a bench is answered so
        raise BenchFailed(f"the service answered {answer.status}: {answer.body.decode(errors='replace'):.200}")
    return orjson.loads(answer.body) if answer.body else None
