"""The work that every system does, and how it is timed: the half of the harness that runs beside a system's client.

`python -m tests.bench.peers.systems.NAME measure PLAN` runs in the peers' own environment, so this module imports
nothing of arc_es. PLAN is JSON; JSON lines that say what was measured come back on stdout.
`… work URL` is one worker process.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

T = TypeVar("T")

CALLERS = 16
BYTES = 300
PAYLOAD = "p" * BYTES
POLL_SECONDS = 0.02
"""How often bulk looks whether all is done."""
WARM_SECONDS = 1.0
WARM_SECONDS_MAX = 30
IDLE_SECONDS = (0.005, 0.105)
"""Between two wakes, at random: a worker that polls is not always met just after it looked."""


@dataclass(frozen=True)
class Plan:
    """Where the server is, how many worker processes to run, and how much to do."""

    url: str
    workers: int
    single_seconds: float
    bulk_jobs: int
    wakes: int

    @classmethod
    def from_json(cls, text: str) -> Plan:
        return cls(**json.loads(text))


def tell(**what: object) -> None:
    """A line to the harness: a phase `begins`, has `ended` with `jobs` and `seconds`, or the `wakes` in nanoseconds."""
    print(json.dumps(what), flush=True)


class System(ABC):
    """A client of one system, and its workers."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @abstractmethod
    async def open(self) -> None:
        """Connect, and make what the server needs: a schema, say."""

    async def ready(self) -> None:  # noqa: B027 - may be left out
        """Return when the workers listen, if a call before that would be lost."""

    @abstractmethod
    async def call(self) -> str:
        """Enqueue one job with the payload and wait for its result."""

    @abstractmethod
    async def bulk(self, count: int) -> None:
        """Enqueue that many jobs as the system does it best, and wait until all results are stored."""

    async def close(self) -> None:  # noqa: B027 - may be left out
        """Let go of connections."""


async def until_none(left: Callable[[], Awaitable[object]]) -> None:
    """Return when nothing is left; other processes work it off, and tell only who asks."""
    while await left():  # noqa: ASYNC110 - see above
        await asyncio.sleep(POLL_SECONDS)


def url() -> str:
    """Of the server, for systems that want it where jobs are declared."""
    role, argument = sys.argv[1:]
    return argument if role == "work" else Plan.from_json(argument).url


def result() -> str:
    """What a handler returns: when it started, in as many bytes as any result has."""
    return f"{time.monotonic_ns():<{BYTES}}"


def wake_ns(called_ns: int, text: str) -> int:
    """How long after a call its handler started; the clock is the same in all processes of a machine."""
    assert len(text) == BYTES, text
    return int(text) - called_ns


@contextmanager
def workers(plan: Plan) -> Iterator[None]:
    """Run the worker processes; they are killed at the end, since nothing of theirs is wanted any more."""
    module = sys.modules["__main__"].__spec__
    assert module is not None
    command = [sys.executable, "-m", module.name, "work", plan.url]
    started = [subprocess.Popen(command, stdout=sys.stderr) for _ in range(plan.workers)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


async def single(system: System, seconds: float) -> int:
    """How many lifecycles callers make that each wait for a result before the next call."""
    ends = time.monotonic() + seconds
    done = 0

    async def caller() -> None:
        nonlocal done
        while time.monotonic() < ends:
            await system.call()
            done += 1

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return done


async def bulk(system: System, count: int) -> int:
    """All are enqueued at once."""
    await system.bulk(count)
    return count


async def timed(phase: str, work: Awaitable[int]) -> None:
    """Tell when a phase begins, and what it came to."""
    tell(begins=phase)
    started = time.monotonic()
    jobs = await work
    tell(ended=phase, jobs=jobs, seconds=time.monotonic() - started)


async def wakes(system: System, count: int) -> list[int]:
    """One call at a time to workers with nothing to do."""
    taken = []
    for _ in range(count):
        await asyncio.sleep(random.uniform(*IDLE_SECONDS))
        called_ns = time.monotonic_ns()
        taken.append(wake_ns(called_ns, await system.call()))
    return taken


async def measure(system: System) -> None:
    """Warm up, then everything that the plan asks for."""
    plan = system.plan
    await system.open()
    with workers(plan):
        async with asyncio.timeout(WARM_SECONDS_MAX):
            await system.ready()
            await system.call()
            await single(system, WARM_SECONDS)
        await timed("single", single(system, plan.single_seconds))
        await timed("bulk", bulk(system, plan.bulk_jobs))
        tell(wakes=await wakes(system, plan.wakes))
        await system.close()


def uvloop_or_asyncio() -> Callable[[Coroutine[Any, Any, T]], T]:
    """What runs a coroutine: uvloop, which some systems bring and the others profit from."""
    try:
        from uvloop import run
    except ImportError:
        return asyncio.run
    return cast("Callable[[Coroutine[Any, Any, T]], T]", run)


def main(system_of: Callable[[Plan], System], work: Callable[[str], None]) -> None:
    """Be a worker, or measure the system."""
    role, argument = sys.argv[1:]
    if role == "work":
        work(argument)
    else:
        uvloop_or_asyncio()(measure(system_of(Plan.from_json(argument))))
