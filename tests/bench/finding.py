"""Finding commands, and memory that stays flat: pages, disk, and the cost of the index, while commands come and end.

python -m tests.bench.finding [--few 10000] [--commands 100000] [--finished-in-memory 10000]

Folds create, lease and success of command after command into the projections and the index on disk, as a replay that
finds no index does, and stops at `few` commands and at powers of ten times that. Each time it prints the resident set,
and how long a page of 20 takes from the middle of a list, for each filter. Floors: the same page with few commands, and
folding without an index.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import trio

from arc_es.codec import decode_recorded, encode
from arc_es.domain.events import Body, CommandCreated, CommandLeased, CommandSucceeded, Event
from arc_es.domain.limits import SECOND
from arc_es.domain.recorded import CommandKey, Decision
from arc_es.index import Index
from arc_es.journal.memory import MemoryJournal
from arc_es.summaries import Find, Place
from projections import Projections
from tests.bench.fold import PRINCIPAL, START
from tests.bench.servers import resident_bytes

SLICE: Final = 300
"""Messages between two turns of the writer, about as many as come together from a stream."""
PAGES: Final = 30
PAGE: Final = 20
FILTERS: Final = {
    "no filter": Find(),
    "deployment": Find(deployment_id="deployment-3"),
    "target": Find(target_id="target-1"),
    "command": Find(command="reboot-device"),
    "state": Find(state="SUCCEEDED"),
    "label": Find(labels=(("shard", "7"),)),
    "deployment and state": Find(deployment_id="deployment-3", state="SUCCEEDED"),
    "deployment and target": Find(deployment_id="deployment-3", target_id="target-1"),
}


def life(number: int) -> Iterator[tuple[int, CommandKey, bytes]]:
    """Create, lease and success of one command."""
    deployment, command_id = f"deployment-{number % 20}", f"cmd_{uuid.uuid4()}"
    sha256, at = uuid.uuid4().hex * 2, START + number * 1_000
    events: list[Event] = [
        CommandCreated(
            deployment_id=deployment,
            command="reboot-device",
            target_id=f"target-{number // 20 % 5}",
            target_type="container",
            params=Body(place="event", size=1_000, sha256=sha256, base64="e30=" * 10),
            labels={"shard": str(number % 10)},
        ),
        CommandLeased(
            lease_id=f"lease_{uuid.uuid4()}",
            attempt=1,
            expires_at=at + 60 * SECOND,
            target_type="container",
            agent="agent-7",
        ),
        CommandSucceeded(attempt=1, response=Body(place="event", size=20, sha256=sha256, base64="e30=")),
    ]
    for offset, event in enumerate(events):
        payload = encode(Decision(uuid.uuid4().hex, at + offset, PRINCIPAL, (event,), sha256))
        yield 3 * number + offset + 1, CommandKey(deployment, command_id), payload


class Fold:
    """Projections, with an index or without, that are fed a slice at a time; only feeding is timed."""

    def __init__(self, index: Index | None, finished_max: int) -> None:
        self.index = index
        self.models = Projections(None if index is None else finished_max)
        self.tip = (0, b"")
        self.seconds = 0.0
        if index is not None:
            index.tip = lambda: self.tip
            index.on_committed = self.models.findable
            self.models.on_change = index.note

    async def feed(self, numbers: range) -> None:
        stored = [one for number in numbers for one in life(number)]
        for start in range(0, len(stored), SLICE):
            started = time.perf_counter()
            for position, key, payload in stored[start : start + SLICE]:
                self.models.apply(decode_recorded(position, key, payload))
                self.tip = position, payload
                if self.index is not None:
                    self.index.applied(False)  # noqa: FBT003 - as the follower does
            await trio.lowlevel.checkpoint()
            self.seconds += time.perf_counter() - started


async def page_seconds(index: Index, find: Find, middle: int) -> float:
    """The median time of one page from the middle of a list."""
    find = replace(find, limit=PAGE, after=Place(START + middle * 1_000, ""))
    times = []
    for number in range(PAGES):
        started = time.perf_counter()
        page = await index.find(replace(find, order="asc" if number % 2 else "desc"))
        times.append(time.perf_counter() - started)
        assert len(page.commands) == find.limit
    return statistics.median(times)


async def measure(folder: Path, few: int, commands: int, finished_max: int) -> None:
    plain = Fold(None, 0)
    await plain.feed(range(few))
    index = Index(folder)
    fold = Fold(index, finished_max)
    floors: dict[str, float] = {}
    await index.prepare(MemoryJournal())
    del plain.models
    gc.collect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(index.run)
        made, stop = 0, few
        while made < commands:
            for start in range(made, stop, 1_000):
                await fold.feed(range(start, min(start + 1_000, stop)))
            made = stop
            stop = min(10 * stop, commands)
            await index.reached(fold.tip[0])
            disk = sum(path.stat().st_size for path in folder.iterdir())  # noqa: ASYNC240 - a benchmark
            print(f"\nwith {made:,} commands that ended, at most {finished_max:,} of them in memory:")
            print(f"{'resident set':34} {resident_bytes() / 1e6:10,.0f} MB, {len(fold.models.status):,} in memory")
            print(f"{'the index on disk':34} {disk / made:10,.0f} bytes a command")
            rate, floor = 3 * made / fold.seconds, 3 * few / plain.seconds
            print(f"{'folding, and a new index':34} {rate:10,.0f} events/s   {rate / floor:5.2f} of the floor without")
            for name, find in FILTERS.items():
                seconds = await page_seconds(index, find, made // 2)
                ratio = seconds / floors.setdefault(name, seconds)
                print(f"{'page of 20: ' + name:34} {1e3 * seconds:10,.2f} ms   {ratio:5.2f} of the floor with {few:,}")
        nursery.cancel_scope.cancel()


def main() -> None:
    """All of it, in a folder that is removed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--commands", type=int, default=100_000)
    parser.add_argument("--finished-in-memory", type=int, default=10_000)
    options = parser.parse_args()
    gc.disable()
    with tempfile.TemporaryDirectory() as folder:
        trio.run(measure, Path(folder), options.few, options.commands, options.finished_in_memory)


if __name__ == "__main__":
    main()
