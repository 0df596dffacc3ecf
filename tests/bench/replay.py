"""Cold replay: events per second from the stream into all projections, as a restart does it, and memory a command.

python -m tests.bench.replay [--commands 30000]

Writes create, lease and success of each command into a real stream (fsync always), then replays it from a fresh
nats-server and a fresh process. Floors of the same run: only receiving the messages, and only folding them from memory.
Memory is the growth of the resident set over the replay. Wanted: 60 000 events/s, better 100 000.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from arc_es.actors.follower import Follower
from arc_es.actors.messages import Messages
from arc_es.domain.recorded import CommandKey, Key
from arc_es.journal.jetstream import JetStreamJournal, open_journal
from arc_es.journal.server import run_server
from arc_es.journal.stream import ensure_stream
from arc_es.nats_access import Access
from arc_es.nats_bridge import open_bridge
from arc_es.ports import Append
from projections import Projections
from tests.bench.fold import fold, history
from tests.bench.servers import resident_bytes

PIECE = 1_000
EVENTS_EACH = 3


@asynccontextmanager
async def _journal_of(data_dir: Path) -> AsyncIterator[JetStreamJournal]:
    async with run_server(data_dir) as server:
        endpoint = server.endpoint
        async with open_bridge(Access([endpoint.url], endpoint.user, endpoint.password)) as bridge:
            await bridge.wait_available()
            await ensure_stream(bridge)
            async with open_journal(bridge) as journal:
                yield journal


async def seed(data_dir: Path, commands: int) -> None:
    """Store the histories, a thousand commands at a time, as a service that keeps up would."""
    creates, answers = history(commands)
    versions: dict[str, int] = {}
    leases, successes = answers[0::2], answers[1::2]
    async with _journal_of(data_dir) as journal:
        for start in range(0, commands, PIECE):
            for stored in (creates, leases, successes):
                piece = [(name, payload) for _, name, payload in stored[start : start + PIECE]]
                await _append(journal, piece, versions)


async def _append(journal: JetStreamJournal, piece: list[tuple[str, bytes]], versions: dict[str, int]) -> None:
    outcomes = await journal.append(
        [
            Append(CommandKey("deployment", name), versions.get(name, 0), f"{name}-{versions.get(name, 0)}", payload)
            for name, payload in piece
        ]
    )
    for (name, _), outcome in zip(piece, outcomes, strict=True):
        assert isinstance(outcome, int), outcome
        versions[name] = outcome


async def replay(data_dir: Path) -> None:
    """Print what one cold start takes."""
    async with _journal_of(data_dir) as journal:
        received = await _receive(journal)
        await _follow(journal, received)


async def _receive(journal: JetStreamJournal) -> float:
    """Seconds to receive everything and do nothing with it."""
    end, count = await journal.end(), 0
    done = trio.Event()

    def handle(position: int, key: Key, payload: bytes) -> None:
        nonlocal count
        count += 1
        if position >= end:
            done.set()

    started = time.perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.follow, 0, handle)
        await done.wait()
        seconds = time.perf_counter() - started
        nursery.cancel_scope.cancel()
    print(f"{'floor: receiving only':34} {count / seconds:10,.0f} events/s")
    return seconds


async def _follow(journal: JetStreamJournal, floor_seconds: float) -> None:
    models = Projections()
    follower = Follower(journal, models, Messages(journal, 64 << 20))
    gc.collect()
    gc.disable()
    before, started = resident_bytes(), time.perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follower.run)
        await follower.wait_ready()
        seconds = time.perf_counter() - started
        nursery.cancel_scope.cancel()
    rate, grown = models.stats.events / seconds, resident_bytes() - before
    share = floor_seconds / seconds
    print(f"{'cold replay into all projections':34} {rate:10,.0f} events/s   {share:5.2f} of the floor")
    print(f"{'replay of these events took':34} {seconds:10.2f} s for {models.stats.events:,} events")
    print(f"{'memory, all projections together':34} {grown / len(models.status):10,.0f} bytes a finished command (RSS)")


def main() -> None:
    """Seed in one process, replay in another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=30_000)
    parser.add_argument("--data-dir", type=Path, help="replay only, from this seeded directory")
    options = parser.parse_args()
    if options.data_dir is not None:
        trio.run(replay, options.data_dir)
        return
    with tempfile.TemporaryDirectory() as scratch:
        data_dir = Path(scratch) / "data"
        trio.run(seed, data_dir, options.commands)
        again = [sys.executable, "-m", "tests.bench.replay", "--data-dir", str(data_dir)]
        subprocess.run(again, check=True)
        creates, answers = history(min(options.commands, 30_000))
        gc.disable()
        seconds = fold(Projections(), creates + answers)
    print(f"{'floor: folding from memory only':34} {EVENTS_EACH * len(creates) / seconds:10,.0f} events/s")


if __name__ == "__main__":
    main()
