"""Full lifecycles by batches of 100: create 100, then take 100 and answer the 100 before in one call. Fsync always.

python -m tests.bench.batch [--commands 6000] [--rounds 3]

Pairs of a sender and an agent, each with a target of its own. The floor is the same number of events of the same size,
appended to JetStream directly, in pieces of 100, with the same bodies inside them. Wanted: 3 000 lifecycles/s.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import orjson
import trio

from arc_es.domain.recorded import CommandKey
from arc_es.journal.jetstream import JetStreamJournal, open_journal
from arc_es.journal.stream import ensure_stream
from arc_es.nats_access import Access
from arc_es.nats_bridge import open_bridge
from arc_es.ports import Append
from tests.bench.drive import Session, drive, percentile, request
from tests.bench.servers import Server, service
from tests.contract.nats_process import NatsProcess

BATCH = 100
PAIRS = 3
EVENTS = {"CommandCreated": 600, "CommandLeased": 480, "CommandSucceeded": 620}
"""Bytes of the messages of one lifecycle, about."""
PARAMS = {"mode": "inline", "inlineBase64": "eyJkYXkiOiIyMDI2LTAzLTAxIn0="}
RESULT = {"status": "success", "response": {"mode": "inline", "inlineBase64": "eyJyb3dzIjoxN30="}}


def sender(target: str, count: int) -> Session:
    """Create so many commands, 100 at a time."""
    command = {"deploymentId": "dep_7", "command": "report/build", "targetResourceId": target, "params": PARAMS}
    whole = request("POST", "/v1/commands/batch", orjson.dumps({"commands": [command] * BATCH}))
    for _ in range(count // BATCH):
        answer = yield whole
        assert answer.status == 200, answer
        assert b'"error"' not in answer.body


def agent(target: str, count: int) -> Session:
    """Take up to 100 and answer those of the call before, until so many are answered."""
    ask = {"deploymentId": "dep_7", "target": {"resourceId": target, "resourceType": "daemon"}, "maxLeases": BATCH}
    ask |= {"waitSeconds": 30, "agent": {"id": target}}
    held: list[dict[str, object]] = []
    while True:
        if not count:
            return
        wait = {"waitSeconds": 0} if len(held) == count else {}
        answer = yield request("POST", "/v1/commands/leases", orjson.dumps({**ask, **wait, "complete": held}))
        found = orjson.loads(answer.body)
        assert all(entry["state"] == "SUCCEEDED" for entry in found["completed"]), found["completed"]
        count -= len(found["completed"])
        held = [
            {"commandId": lease["commandId"], "leaseId": lease["leaseId"], "response": RESULT}
            for lease in found["leases"]
        ]


def measure(server: Server, name: str, commands: int) -> tuple[float, float]:
    """Lifecycles/s, and milliseconds of the process's CPU a lifecycle."""
    each = max(commands // PAIRS // BATCH, 1) * BATCH
    targets = [f"{name}_{pair}" for pair in range(PAIRS)]
    before = server.cpu_seconds()
    seconds = drive(server.port, [session(target, each) for target in targets for session in (sender, agent)])
    return each * PAIRS / seconds, (server.cpu_seconds() - before) / (each * PAIRS) * 1e3


async def floor(url: str, commands: int) -> float:
    """Lifecycles/s of the journal alone."""
    async with open_bridge(Access([url])) as bridge:
        await bridge.wait_available()
        await ensure_stream(bridge)
        async with open_journal(bridge) as journal:
            await _append(journal, 0, BATCH)
            start = trio.current_time()
            async with trio.open_nursery() as nursery:
                for pair in range(PAIRS):
                    nursery.start_soon(_append, journal, pair + 1, commands // PAIRS)
            return commands // PAIRS * PAIRS / (trio.current_time() - start)


async def _append(journal: JetStreamJournal, number: int, count: int) -> None:
    for start in range(0, count, BATCH):
        names = [f"c{number}_{start + index}" for index in range(BATCH)]
        expected = [0] * BATCH
        for kind, size in EVENTS.items():
            payload = b"x" * size
            items = [
                Append(CommandKey("dep_7", name), version, name + kind, payload)
                for name, version in zip(names, expected, strict=True)
            ]
            outcomes = await journal.append(items)
            expected = [outcome for outcome in outcomes if isinstance(outcome, int)]
            assert len(expected) == BATCH


def main() -> None:
    """Print both rates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=6_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows: list[tuple[float, float, float]] = []
    with tempfile.TemporaryDirectory() as directory, service() as real:
        nats = NatsProcess(Path(directory))
        try:
            trio.run(nats.start)
            measure(real, "warm", options.commands // 4)
            for number in range(options.rounds):
                bare = trio.run(floor, nats.url, options.commands) if not number else rows[0][0]
                rows.append((bare, *measure(real, f"round{number}", options.commands)))
        finally:
            nats.kill()
    bare, rate, cpu = (percentile([row[index] for row in rows], 0.5) for index in range(3))
    print(f"{'floor: its events, appended directly':38} {bare:8,.0f} lifecycles/s")
    print(f"{f'lifecycles by batches of {BATCH}':38} {rate:8,.0f} lifecycles/s   {cpu:.3f} ms CPU of its process each")
    print(f"{'share of the floor':38} {rate / bare:8.2f}")


if __name__ == "__main__":
    main()
