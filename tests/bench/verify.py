"""How fast the whole log is checked: every chain, the tree over all messages, every checkpoint.

    python -m tests.bench.verify [--commands 60000]

Create, lease and success of each command, with a signed checkpoint every 3 000 messages, are checked from memory: in
this process, and in one of its own, as `arc-es verify` does it. Then, with a smaller number, the tree is made from a
real stream, where receiving is part of it. Floor: only the three SHA-256 of each message. Wanted: 200 000 events/s.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import trio

from arc_es.codec import digest, encode
from arc_es.domain.events import CheckpointKeyAdded, CheckpointSigned, Event
from arc_es.domain.recorded import SERVICE, Decision
from arc_es.journal.subjects import event_subject
from arc_es.proof.apart import AuditApart
from arc_es.proof.audit import Audit
from arc_es.proof.log import LogTree
from arc_es.proof.notes import Checkpoint, NoteSigner, key_note, sign
from arc_es.proof.tiles import Tiles
from projections import Projections
from tests.bench.fold import history
from tests.bench.replay import _journal_of, seed

Stored: TypeAlias = tuple[int, str, bytes]
PIECE = 1_000
CHECKPOINT_EVERY = 3_000
SIGNER = NoteSigner("arc-es/bench", bytes(32))


def chained(commands: int) -> Iterator[Stored]:
    """Histories whose chains hold: what `tests.bench.fold` makes has digests of nothing."""
    creates, answers = history(commands)
    before: dict[str, str] = {}
    for position, command_id, payload in creates + answers:
        subject = f"arc.event.command.deployment.{command_id}"
        head, _, rest = payload.partition(b',"prev":"')
        link = b',"prev":"%b"' % before[subject].encode() if subject in before else b""
        stored = head + link + rest[rest.index(b'"') + 1 :]
        before[subject] = digest(stored)
        yield position, subject, stored


def signed(commands: int) -> list[Stored]:
    """The same with a key and checkpoints among them."""
    tiles, found, before = Tiles(), list[Stored](), dict[str, str]()

    def add(subject: str, payload: bytes) -> None:
        position = len(found) + 1
        found.append((position, subject, payload))
        data = b"\0%d\n%b\n%b\n" % (position, subject.encode(), digest(payload).encode())
        tiles.extend([(position, hashlib.sha256(data).digest())])

    def say(name: str, event: Event) -> None:
        payload = encode(Decision(f"d{len(found)}", 1, SERVICE, (event,), before.get(name)))
        before[name] = digest(payload)
        add(f"arc.event.log.{name}", payload)

    key = key_note(SIGNER, None)
    say("keys", CheckpointKeyAdded(origin=SIGNER.name, public_key=str(SIGNER.verifier), note=key))
    for number, (_, subject, payload) in enumerate(chained(commands), start=1):
        add(subject, payload)
        if number % CHECKPOINT_EVERY == 0:
            size = tiles.size
            note = sign(Checkpoint(SIGNER.name, size, tiles.root(size)).text, SIGNER)
            say("day", CheckpointSigned(size=size, position=size, note=note))
    tiles.close()
    return found


def _report(name: str, count: int, seconds: float, floor_seconds: float) -> None:
    print(f"{name:34} {count / seconds:10,.0f} events/s   {seconds / floor_seconds:5.1f} x the floor")


def from_memory(stored: list[Stored]) -> None:
    """Print events/s."""
    started = time.perf_counter()
    for _, _, payload in stored:
        public, _, private = payload.partition(b"\n")
        hashlib.sha256(public).digest()
        hashlib.sha256(private).digest()
        hashlib.sha256(payload[:150]).digest()
    floor_seconds = time.perf_counter() - started
    _report("floor: three SHA-256 of each", len(stored), floor_seconds, floor_seconds)
    tiles = Tiles()
    audit = Audit(tiles, key=SIGNER.verifier)
    started, cpu_started = time.perf_counter(), time.process_time()
    for start in range(0, len(stored), PIECE):
        audit.take(stored[start : start + PIECE])
    report = audit.end()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    assert report.problems == [], report.problems
    _report(f"verify, {report.checkpoints} checkpoints", len(stored), seconds, floor_seconds)
    print(f"{'the same by CPU time':34} {len(stored) / cpu_seconds:10,.0f} events/s")
    tiles.close()
    apart(stored, floor_seconds)


def apart(stored: list[Stored], floor_seconds: float) -> None:
    """Print events/s when another process checks, its start not counted, and what that leaves to this one."""
    with closing(AuditApart(key=SIGNER.verifier)) as audit:
        audit.take(stored[:1])
        started, cpu_started = time.perf_counter(), time.process_time()
        for start in range(1, len(stored), PIECE):
            audit.take(stored[start : start + PIECE])
        report = audit.end()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    assert report.problems == [], report.problems
    _report("verify, in a process of its own", len(stored), seconds, floor_seconds)
    print(f"{'what handing over takes, CPU':34} {cpu_seconds / len(stored) * 1e6:10.2f} us an event")


async def tree_of_a_stream(data_dir: Path) -> None:
    """Print how fast the service makes the files of the tree when they are missing."""
    async with _journal_of(data_dir) as journal:
        tiles = Tiles()
        tree = LogTree(journal, Projections().checkpoints, tiles, event_subject)
        started = time.perf_counter()
        await tree.catch_up()
        seconds = time.perf_counter() - started
        print(f"{'the tree made anew from a stream':34} {tree.size / seconds:10,.0f} events/s")
        tiles.close()


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=60_000)
    commands = parser.parse_args().commands
    stored = signed(commands)
    gc.collect()
    gc.freeze()
    gc.disable()
    from_memory(stored)
    with tempfile.TemporaryDirectory() as scratch:
        data_dir = Path(scratch) / "data"
        trio.run(seed, data_dir, min(commands, 10_000))
        trio.run(tree_of_a_stream, data_dir)


if __name__ == "__main__":
    main()
