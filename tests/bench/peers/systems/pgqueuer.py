"""PgQueuer on PostgreSQL, by asyncpg. It stores no results, so the handler does, in a table beside it."""

from __future__ import annotations

import logging

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from tests.bench.peers.systems.stored import CREATE, Waiters, Writer
from tests.bench.peers.work import CALLERS, PAYLOAD, System, main, result, until_none, uvloop_or_asyncio

BATCH = 50
"""Jobs that a worker takes in one query, and completions that it writes in one. Its default is 10."""


LEFT = "SELECT count(*) FROM pgqueuer"


class Pgqueuer(System):
    """Bulk is `enqueue` with lists: one statement."""

    async def open(self) -> None:
        self.pool = await asyncpg.create_pool(self.plan.url, min_size=CALLERS, max_size=CALLERS)
        self.queries = Queries(AsyncpgPoolDriver(self.pool))
        await self.queries.install()
        await self.pool.execute(CREATE)
        self.waiters = Waiters(await asyncpg.connect(self.plan.url))

    async def call(self) -> str:
        (job_id,) = await self.queries.enqueue("handle", PAYLOAD.encode())
        return await self.waiters.wait(job_id)

    async def bulk(self, count: int) -> None:
        await self.queries.enqueue(["handle"] * count, [PAYLOAD.encode()] * count, [0] * count)
        await until_none(lambda: self.pool.fetchval(LEFT))

    async def close(self) -> None:
        await self.waiters.close()
        await self.pool.close()


async def serve(url: str) -> None:
    """What `pgq run` does with a factory."""
    async with asyncpg.create_pool(url, min_size=4, max_size=8) as pool:
        app = PgQueuer(AsyncpgPoolDriver(pool))
        writer = Writer(pool)

        @app.entrypoint("handle")
        async def handle(job: Job) -> None:
            await writer.store(job.id, result())

        await app.run(batch_size=BATCH)


def work(url: str) -> None:
    logging.disable(logging.INFO)
    uvloop_or_asyncio()(serve(url))


if __name__ == "__main__":
    main(Pgqueuer, work)
