"""Filling a stream fast: whole lives of commands straight to JetStream, a thousand at a time, without HTTP and fsync.

python -m tests.bench.fill DATA_DIR [--commands 1000000] [--live 100000]

Writes what a service would have written: create, lease and success of each command that has ended, and then the creates
of those that are live (pending). Called again on the same directory it goes on behind what is there.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
import uuid
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Final

import trio

from arc_es.codec import digest, encode
from arc_es.domain.events import Body, CommandCreated, CommandLeased, CommandSucceeded, Event
from arc_es.domain.limits import SECOND
from arc_es.domain.recorded import CommandKey, Decision
from arc_es.journal.jetstream import JetStreamJournal, open_journal
from arc_es.journal.server import run_server
from arc_es.journal.stream import ensure_stream
from arc_es.nats_access import Access
from arc_es.nats_bridge import open_bridge
from arc_es.ports import Append
from tests.bench.fold import DEPLOYMENTS, PRINCIPAL, START, TARGETS

PIECE: Final = 1_000


ID: Final = "0" * 31 + "1"
AT: Final = START - 1
PREV: Final = "0" * 63 + "2"
SHA256: Final = "0" * 63 + "3"
LEASE: Final = f"lease_{'0' * 31}4"
ENDS: Final = START - 2
"""What stands in a template for what is different in each message."""


@lru_cache(maxsize=10_000)
def _template(step: int, deployment_id: str, target_id: str) -> bytes:
    """A stored message: to encode each of a million would take most of the time."""
    body = Body(place="event", size=30, sha256=SHA256, base64="e30=" * 10)
    events: tuple[Event, ...] = (
        CommandCreated(
            deployment_id=deployment_id,
            command="reboot-device",
            target_id=target_id,
            target_type="container",
            params=body,
        ),
        CommandLeased(lease_id=LEASE, attempt=1, expires_at=ENDS, target_type="container", agent=f"agent-{target_id}"),
        CommandSucceeded(attempt=1, response=body),
    )
    return encode(Decision(ID, AT, PRINCIPAL, (events[step],), PREV if step else None))


def _with_private_digest(payload: bytes) -> bytes:
    """The first line names the digest of the second one."""
    public, newline, private = payload.partition(b"\n")
    if not newline:
        return payload
    start = public.index(b'"private":"') + len(b'"private":"')
    return public[:start] + sha256(private).hexdigest().encode() + public[start + 64 :] + newline + private


class _Life:
    """One command, told step after step. version and prev: of its last message."""

    def __init__(self, number: int) -> None:
        self.key = CommandKey(f"deployment-{number % DEPLOYMENTS}", f"cmd_{uuid.uuid4()}")
        self._target = f"target-{number // DEPLOYMENTS % TARGETS}"
        self._at = START + number * 1_000
        self._step = 0
        self.version = 0
        self._prev = ""

    def append(self) -> Append:
        """The next message of its history: create, lease, success."""
        payload = _template(self._step, self.key.deployment_id, self._target)
        decision_id, at = secrets.token_hex(16), self._at + 100 * self._step
        for told, real in (
            (ID, decision_id),
            (str(AT), str(at)),
            (PREV, self._prev),
            (SHA256, secrets.token_hex(32)),
            (LEASE, f"lease_{decision_id}"),
            (str(ENDS), str(at + 60 * SECOND)),
        ):
            payload = payload.replace(told.encode(), real.encode())
        payload = _with_private_digest(payload)
        self._prev = digest(payload)
        self._step += 1
        return Append(self.key, self.version, decision_id, payload)


async def fill(data_dir: Path, commands: int, live: int, first: int = 0) -> None:
    """Add `commands` commands, of which the last `live` are left pending. first: how many there are already."""
    async with run_server(data_dir, unsynced=True) as server:
        end = server.endpoint
        async with open_bridge(Access([end.url], end.user, end.password)) as bridge:
            await bridge.wait_available()
            await ensure_stream(bridge)
            async with open_journal(bridge) as journal:
                await _fill(journal, range(first, first + commands), commands - live)


async def _fill(journal: JetStreamJournal, numbers: range, ended: int) -> None:
    started = shown = time.monotonic()
    for start in range(0, len(numbers), PIECE):
        lives = [_Life(number) for number in numbers[start : start + PIECE]]
        ending = lives[: max(0, ended - start)]
        for group in (lives, ending, ending):
            await _store(journal, group)
        if time.monotonic() - shown > 5:
            shown = time.monotonic()
            done = (start + PIECE) / len(numbers)
            left = (shown - started) * (1 - done) / done
            print(f"filled {done:4.0%}, {left:.0f} s left", file=sys.stderr, flush=True)


async def _store(journal: JetStreamJournal, lives: Sequence[_Life]) -> None:
    appends = [life.append() for life in lives]
    outcomes = await journal.append(appends)
    for life, append, outcome in zip(lives, appends, outcomes, strict=True):
        life.version = outcome if isinstance(outcome, int) else await _store_again(journal, append)


async def _store_again(journal: JetStreamJournal, append: Append) -> int:
    """A server that is too slow does not say whether it stored; then one has to look."""
    while True:
        last = await journal.last(append.key)
        if last is not None and last.payload == append.payload:
            return last.position
        (outcome,) = await journal.append([append])
        if isinstance(outcome, int):
            return outcome
        await trio.sleep(1)


def main() -> None:
    """Fill, and say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--commands", type=int, default=1_000_000)
    parser.add_argument("--live", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="how many commands are there already")
    options = parser.parse_args()
    started = time.monotonic()
    trio.run(fill, options.data_dir, options.commands, options.live, options.first)
    events = 3 * options.commands - 2 * options.live
    print(f"{events / (time.monotonic() - started):,.0f} events/s")


if __name__ == "__main__":
    main()
