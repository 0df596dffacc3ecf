"""How fast a restart folds history, and what a command costs in memory.

    python tests/bench/fold.py [--commands 200000]

Folds create, lease and success of many commands through `codec.decode_recorded` and `Projections.apply`, with the
garbage collector off as during a replay in the service. Speed is also printed as a ratio to a floor measured in the
same run, `orjson.loads` of the same bytes: the ratio is what can be compared between machines. Memory is
`tracemalloc`, in a run of its own because tracing slows everything down.
"""

from __future__ import annotations

import argparse
import gc
import time
import tracemalloc
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import orjson

from arc_es.codec import decode_recorded, encode
from arc_es.domain.events import Body, CommandCreated, CommandLeased, CommandSucceeded, Event
from arc_es.domain.limits import SECOND
from arc_es.domain.recorded import CommandKey, Decision, Principal
from projections import Projections

Stored: TypeAlias = tuple[int, str, bytes]
"""Position, command id, payload. The command id is copied on use: in the service each message brings its own."""

START: Final = 1_760_000_000 * SECOND
DEPLOYMENTS: Final = 20
TARGETS: Final = 5
PRINCIPAL: Final = Principal("agent-7", "agent", "10.1.2.3", "arc-worker/1.0", "req-1")


def _sha256() -> str:
    return uuid.uuid4().hex * 2


def _created(number: int) -> CommandCreated:
    return CommandCreated(
        deployment_id=f"deployment-{number % DEPLOYMENTS}",
        command="reboot-device",
        target_id=f"target-{number // DEPLOYMENTS % TARGETS}",
        target_type="container",
        params=Body(place="event", size=1_000 + number % 3_000, sha256=_sha256(), base64="e30=" * 10),
    )


def _encode(events: tuple[Event, ...], at: int) -> bytes:
    return encode(Decision(str(uuid.uuid4()), at, PRINCIPAL, events, _sha256()))


def history(commands: int) -> tuple[list[Stored], list[Stored]]:
    """All creates, then lease and success of each command in turn."""
    ids = [f"cmd_{uuid.uuid4()}" for _ in range(commands)]
    creates = [(n + 1, ids[n], _encode((_created(n),), START + n)) for n in range(commands)]
    answers: list[Stored] = []
    for number, command_id in enumerate(ids):
        at, position = START + commands + number, commands + 2 * number + 1
        lease = CommandLeased(
            lease_id=f"lease_{uuid.uuid4()}",
            attempt=1,
            expires_at=at + 60 * SECOND,
            target_type="container",
            agent="agent-7",
        )
        success = CommandSucceeded(attempt=1, response=Body(place="event", size=20, sha256=_sha256(), base64="e30="))
        answers.append((position, command_id, _encode((lease,), at)))
        answers.append((position + 1, command_id, _encode((success,), at + 50)))
    return creates, answers


def messages(stored: Iterable[Stored]) -> Iterator[tuple[int, CommandKey, bytes]]:
    """Stored messages with keys that share no strings, as a follower would give them."""
    for position, command_id, payload in stored:
        yield position, CommandKey("deployment", command_id.encode().decode()), payload


def fold(projections: Projections, stored: Sequence[Stored]) -> float:
    """Seconds to decode and apply, as a start does it."""
    started = time.perf_counter()
    projections.begin_replay(len(stored))
    for position, key, payload in messages(stored):
        projections.apply(decode_recorded(position, key, payload))
    projections.end_replay()
    return time.perf_counter() - started


def floor(stored: Iterable[Stored]) -> float:
    """Seconds that only reading the JSON takes."""
    started = time.perf_counter()
    for _, _, payload in messages(stored):
        for line in payload.split(b"\n"):
            orjson.loads(line)
    return time.perf_counter() - started


def decode(stored: Iterable[Stored]) -> float:
    """Seconds to decode without applying."""
    started = time.perf_counter()
    for position, key, payload in messages(stored):
        decode_recorded(position, key, payload)
    return time.perf_counter() - started


def _report(name: str, count: int, seconds: float, floor_seconds: float) -> None:
    print(f"{name:28} {count / seconds:10,.0f} events/s   {seconds / floor_seconds:5.1f} x the floor")


def speed(creates: list[Stored], answers: list[Stored]) -> None:
    """Print events/s."""
    everything = creates + answers
    floor_seconds = floor(everything)
    _report("floor: orjson.loads", len(everything), floor_seconds, floor_seconds)
    _report("decode only", len(everything), decode(everything), floor_seconds)
    projections = Projections()
    pending_seconds = fold(projections, creates)
    _report("creates (all pending)", len(creates), pending_seconds, floor(creates))
    _report("create, lease, success", len(everything), pending_seconds + fold(projections, answers), floor_seconds)


def memory(creates: list[Stored], answers: list[Stored]) -> None:
    """Print bytes a command, for all projections together."""
    tracemalloc.start()
    projections = Projections()
    before = tracemalloc.get_traced_memory()[0]
    for name, stored in (("pending", creates), ("terminal", answers)):
        fold(projections, stored)
        held = tracemalloc.get_traced_memory()[0] - before
        print(f"{name:28} {held / len(projections.status):10,.0f} bytes a command (tracemalloc)")
    tracemalloc.stop()


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=200_000)
    creates, answers = history(parser.parse_args().commands)
    gc.collect()
    gc.freeze()
    gc.disable()
    speed(creates, answers)
    memory(creates, answers)


if __name__ == "__main__":
    main()
