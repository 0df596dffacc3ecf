"""streaQ on Redis streams. A caller subscribes to the job's channel; results are kept for five minutes."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack

from streaq import Worker

from tests.bench.peers.work import PAYLOAD, System, main, result, until_none, url

CONCURRENCY = 64
"""Jobs at a time in a process, and as many more fetched ahead. Its default is 16."""

WAIT_SECONDS = 30

CONNECTIONS = 256
"""Each waiting caller holds one; with the default pool they wait for each other for ever."""

worker: Worker[None] = Worker(
    redis_url=url(),
    redis_kwargs={"max_connections": CONNECTIONS},
    concurrency=CONCURRENCY,
    anyio_kwargs={"use_uvloop": True},
)


@worker.task
async def handle(payload: str) -> str:
    """The no-op."""
    return result()


class Streaq(System):
    """Bulk is `enqueue_many`, one pipeline."""

    async def open(self) -> None:
        self.stack = AsyncExitStack()
        await self.stack.enter_async_context(worker)

    async def call(self) -> str:
        task = await handle.enqueue(PAYLOAD)
        done: str = (await task.result(WAIT_SECONDS)).result
        return done

    async def bulk(self, count: int) -> None:
        await worker.enqueue_many([handle.enqueue(PAYLOAD) for _ in range(count)])
        await until_none(worker.queue_size)

    async def close(self) -> None:
        await self.stack.aclose()


def work(_url: str) -> None:
    """What `streaq run MODULE:worker` does, less its logging."""
    logging.disable(logging.INFO)
    worker.run_sync()


if __name__ == "__main__":
    main(Streaq, work)
