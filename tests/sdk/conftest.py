"""Both event loops; and trio in virtual time, for what would take long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

import anyio
import pytest
from trio.testing import MockClock

Run: TypeAlias = Callable[[Callable[[], Awaitable[Any]]], Any]

SECONDS_MAX = 60


def run_on(backend: str, function: Callable[[], Awaitable[Any]], *, virtually: bool = False) -> Any:
    """Run an async function. On a loop of asyncio's own: trio-asyncio, once imported, makes others."""

    async def bounded() -> Any:
        with anyio.fail_after(SECONDS_MAX * (1_000 if virtually else 1)):
            return await function()

    options: dict[str, Any] = {} if backend == "trio" else {"loop_factory": asyncio.SelectorEventLoop}
    if virtually:
        options["clock"] = MockClock(autojump_threshold=0)
    return anyio.run(bounded, backend=backend, backend_options=options)


async def until(holds: Callable[[], object]) -> None:
    """Wait for what no event tells; the test's own time limit is the bound."""
    while not holds():  # noqa: ASYNC110
        await anyio.sleep(0.005)


@pytest.fixture(params=["trio", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs an async function on either loop."""
    return partial(run_on, request.param)


@pytest.fixture
def virtually() -> Run:
    """Runs an async function on trio in virtual time. Not for threads: the clock jumps while they work."""
    return partial(run_on, "trio", virtually=True)
