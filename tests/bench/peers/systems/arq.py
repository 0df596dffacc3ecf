"""arq on Redis. Workers poll a sorted set; callers poll for the result, which is kept for an hour."""

from __future__ import annotations

import asyncio

from arq import Worker, create_pool, func
from arq.connections import RedisSettings

from tests.bench.peers.work import CALLERS, PAYLOAD, System, main, result, until_none

POLL_SECONDS = 0.01
"""How often a worker looks, and a caller. Both defaults are 0.5."""
JOBS = 100
"""At a time in a process; its default is 10."""


async def handle(context: object, payload: str) -> str:
    """The no-op."""
    return result()


class Arq(System):
    """arq has no bulk enqueue: as many single ones at once as there are callers, as its documentation does it."""

    async def open(self) -> None:
        self.pool = await create_pool(RedisSettings.from_dsn(self.plan.url))

    async def call(self) -> str:
        job = await self.pool.enqueue_job("handle", PAYLOAD)
        done: str = await job.result(poll_delay=POLL_SECONDS)
        return done

    async def bulk(self, count: int) -> None:
        left = iter(range(count))

        async def enqueue() -> None:
            for _ in left:
                await self.pool.enqueue_job("handle", PAYLOAD)

        await asyncio.gather(*(enqueue() for _ in range(CALLERS)))
        await until_none(lambda: self.pool.zcard(self.pool.default_queue_name))

    async def close(self) -> None:
        await self.pool.aclose()


def work(url: str) -> None:
    """What `arq MODULE.WorkerSettings` does, less its logging."""
    Worker(
        [func(handle, name="handle")],
        redis_settings=RedisSettings.from_dsn(url),
        poll_delay=POLL_SECONDS,
        max_jobs=JOBS,
        queue_read_limit=JOBS,
        log_results=False,
    ).run()


if __name__ == "__main__":
    main(Arq, work)
