"""arc_es through its own Python client, on asyncio: what the other Python libraries do for their systems."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack

import anyio

from arc_es.client import ArcClient, Caller, Worker
from tests.bench.peers.work import PAYLOAD, System, main, result, until_none

DEPLOYMENT = "bench"
TARGET = "indexer"
CONCURRENCY = 100
"""Handlers at a time in a process, and so commands in a lease. Its default is 1."""


class ArcEs(System):
    """Bulk is many creates at once, which the client sends in batches."""

    async def open(self) -> None:
        self.stack = AsyncExitStack()
        self.caller = await self.stack.enter_async_context(Caller(self.plan.url))
        self.client = await self.stack.enter_async_context(ArcClient(self.plan.url))

    async def call(self) -> str:
        return str(await self.caller.call(DEPLOYMENT, "handle", {"payload": PAYLOAD}, target=TARGET, returns=str))

    async def _left(self) -> int:
        queues = (await self.client.queues())["queues"]
        return sum(queue["pending"] + queue["leased"] for queue in queues)

    async def bulk(self, count: int) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(self._create)
        await until_none(self._left)

    async def _create(self) -> None:
        await self.caller.create(DEPLOYMENT, "handle", {"payload": PAYLOAD}, target=TARGET)

    async def close(self) -> None:
        await self.stack.aclose()


def work(url: str) -> None:
    """A worker as the quickstart shows it."""
    logging.disable(logging.INFO)
    worker = Worker(url, deployment=DEPLOYMENT, target=TARGET, concurrency=CONCURRENCY)

    @worker.command("handle")
    async def handle(params: dict[str, str]) -> str:
        return result()

    worker.main()


if __name__ == "__main__":
    main(ArcEs, work)
