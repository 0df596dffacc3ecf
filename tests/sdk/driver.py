"""A service, a worker with handlers, and a caller, for tests of the SDK."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from arc_es.client import (
    CommandFailed,
    Outcome,
    Worker,
)
from arc_es.testing import LocalService, open_service
from tests.sdk.conftest import Run

HERE: dict[str, Any] = {"deployment": "dep", "target": "indexer"}


@dataclass
class Day:
    day: str


@dataclass
class Rows:
    rows: int
    attempt: int


class Called:
    """A service with one worker, and a caller of its commands."""

    def __init__(self, service: LocalService, **options: Any) -> None:
        self.service = service
        self.worker: Worker = service.worker(**HERE, on_outcome=self._note, **options)
        self.outcomes: list[Outcome] = []
        self._news = anyio.Event()

    def _note(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self._news.set()
        self._news = anyio.Event()

    async def told(self, count: int) -> list[str]:
        """The results of so many leases; a caller may hear of the last one before the worker does."""
        while len(self.outcomes) < count:
            await self._news.wait()
        return [outcome.result for outcome in self.outcomes]

    async def call(self, command: str, params: Any = None, **options: Any) -> Any:
        async with self.service.caller() as arc:
            return await arc.call("dep", command, params, target="indexer", **options)

    async def failure(self, command: str, params: Any = None) -> CommandFailed:
        with pytest.raises(CommandFailed) as failed:
            await self.call(command, params)
        return failed.value


def worked(run: Run, handlers: Any, test: Any, **options: Any) -> None:
    """Run a test beside a worker with these handlers."""

    async def main() -> None:
        async with open_service() as service:
            called = Called(service, **options)
            for name, (handler, more) in handlers.items():
                called.worker.command(name, **more)(handler)
            async with service.working(called.worker):
                await test(called)

    run(main)
