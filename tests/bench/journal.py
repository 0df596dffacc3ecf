"""How fast the journal is, against plain nats-py on plain asyncio with the same server in the same run.

python -m tests.bench.journal [--replay 50000] [--appends 3000]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import trio

from arc_es.domain.recorded import CommandKey, Key
from arc_es.journal.jetstream import JetStreamJournal, open_journal
from arc_es.journal.stream import ensure_stream
from arc_es.nats_access import Access
from arc_es.nats_bridge import open_bridge
from arc_es.ports import Append
from tests.contract.nats_process import NatsProcess

PAYLOAD = b"x" * 300
CALLERS = (1, 16, 128)
PIECE = 1_000


@contextmanager
def timed(results: dict[str, float], name: str, count: int) -> Iterator[None]:
    """Record count per second."""
    start = time.perf_counter()
    yield
    results[name] = count / (time.perf_counter() - start)


def item(name: str) -> Append:
    """The first message of a history."""
    return Append(CommandKey("bench", name), 0, name, PAYLOAD)


async def append_with(journal: JetStreamJournal, callers: int, count: int) -> None:
    """Append `count` messages by that many callers, each one message at a time."""
    names = iter([f"c{callers}_{number}" for number in range(count)])

    async def caller() -> None:
        for name in names:
            (outcome,) = await journal.append([item(name)])
            assert isinstance(outcome, int), outcome

    async with trio.open_nursery() as nursery:
        for _ in range(callers):
            nursery.start_soon(caller)


async def replay(journal: JetStreamJournal) -> tuple[int, float]:
    """Messages, and messages per second, of following from the start."""
    end = await journal.end()
    seen = 0
    done = trio.Event()

    def handle(position: int, key: Key, payload: bytes) -> None:
        nonlocal seen
        seen += 1
        if position == end:
            done.set()

    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.follow, 0, handle)
        await done.wait()
        took = time.perf_counter() - start
        nursery.cancel_scope.cancel()
    return seen, seen / took


async def measure(url: str, appends: int, replayed: int) -> dict[str, float]:
    """All numbers of the journal, per second."""
    results: dict[str, float] = {}
    async with open_bridge(Access([url])) as bridge:
        await bridge.wait_available()
        await ensure_stream(bridge)
        async with open_journal(bridge) as journal:
            for callers in CALLERS:
                count = appends if callers > 1 else appends // 4
                with timed(results, f"append, {callers} callers", count):
                    await append_with(journal, callers, count)
            with timed(results, f"append, {PIECE} in one call", replayed):
                for start in range(0, replayed, PIECE):
                    await journal.append([item(f"r{number}") for number in range(start, start + PIECE)])
            for _ in range(2):
                _, results["replay"] = await replay(journal)
    return results


def floor(url: str, appends: int) -> dict[str, float]:
    """The same by plain nats-py: `js.publish` and a push subscription with a callback."""
    import asyncio

    import nats
    from nats.aio.msg import Msg

    async def publish_with(js: nats.js.JetStreamContext, callers: int, count: int) -> None:
        numbers = iter(range(count))

        async def caller() -> None:
            for number in numbers:
                name = f"f{callers}_{number}"
                headers = {"Nats-Expected-Last-Subject-Sequence": "0", "Nats-Msg-Id": name}
                await js.publish(f"arc.event.command.bench.{name}", PAYLOAD, stream="ARC", headers=headers)

        await asyncio.gather(*[caller() for _ in range(callers)])

    async def main() -> dict[str, float]:
        results: dict[str, float] = {}
        client = await nats.connect(url)
        js = client.jetstream()
        for callers in CALLERS:
            count = appends if callers > 1 else appends // 4
            with timed(results, f"append, {callers} callers", count):
                await publish_with(js, callers, count)
        total = (await js.stream_info("ARC")).state.messages
        seen = 0
        done = asyncio.Event()

        async def take(message: Msg) -> None:
            nonlocal seen
            seen += 1
            if seen == total:
                done.set()

        with timed(results, "replay", total):
            await js.subscribe("arc.event.>", cb=take, ordered_consumer=True)
            await done.wait()
        await client.close()
        return results

    return asyncio.run(main())


def main() -> None:
    """Print what the journal does in a second, and how that compares."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--replay", type=int, default=50_000)
    arguments.add_argument("--appends", type=int, default=3_000)
    arguments.add_argument("--floor", help="only the floor, against this server")
    given = arguments.parse_args()
    if given.floor:
        sys.stdout.buffer.write(orjson.dumps(floor(given.floor, given.appends)))
        return
    with tempfile.TemporaryDirectory() as directory:
        server = NatsProcess(Path(directory))
        try:
            trio.run(server.start)
            ours = trio.run(measure, server.url, given.appends, given.replay)
            # trio-asyncio changes asyncio in our process, so the floor has one of its own.
            command = [sys.executable, "-m", "tests.bench.journal", "--floor", server.url, "--appends"]
            plain = orjson.loads(subprocess.run([*command, str(given.appends)], check=True, capture_output=True).stdout)
        finally:
            server.kill()
    for name, per_second in ours.items():
        beside = f"{plain[name]:>9.0f}/s {per_second / plain[name]:>6.2f}" if name in plain else ""
        print(f"{name:<28} {per_second:>9.0f}/s   nats-py {beside}")


if __name__ == "__main__":
    main()
