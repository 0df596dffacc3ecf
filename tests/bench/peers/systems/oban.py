"""Oban for Python on PostgreSQL, by psycopg. What a worker returns is recorded by the statement that ends the job."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import asyncpg
from oban import Oban, Record, worker
from oban._recorded import decode_recorded
from oban.schema import install

from tests.bench.peers.systems.stored import Waiters
from tests.bench.peers.work import CALLERS, PAYLOAD, System, main, result, until_none, uvloop_or_asyncio

LIMIT = 50
"""Jobs at a time in a process; its default is 10."""
BULK = 500
"""Jobs in one `enqueue_many`, which is one transaction with a statement for each job."""
SELECT = "SELECT id, meta->>'return' FROM oban_jobs WHERE id = ANY($1::bigint[]) AND state = 'completed'"
LEFT = "SELECT count(*) FROM oban_jobs WHERE state <> 'completed'"


class NoOp:
    """What a job does."""

    async def process(self, job: object) -> Any:
        return Record(result())


HANDLE: Any = worker(queue="default")(NoOp)


class ObanPy(System):
    """Callers read the recorded value of a completed job."""

    async def open(self) -> None:
        self.pool = await Oban.create_pool(self.plan.url, min_size=CALLERS, max_size=CALLERS)
        await install(self.pool)
        self.oban = Oban(pool=self.pool)
        await self.oban.start()
        self.connection = await asyncpg.connect(self.plan.url)
        self.waiters = Waiters(await asyncpg.connect(self.plan.url), SELECT)

    async def call(self) -> str:
        job = await HANDLE.enqueue({"payload": PAYLOAD})
        done: str = decode_recorded(await self.waiters.wait(job.id))
        return done

    async def bulk(self, count: int) -> None:
        for start in range(0, count, BULK):
            await self.oban.enqueue_many(HANDLE.new({"payload": PAYLOAD}) for _ in range(min(BULK, count - start)))
        await until_none(lambda: self.connection.fetchval(LEFT))

    async def close(self) -> None:
        await self.waiters.close()
        await self.connection.close()
        await self.oban.stop()
        await self.pool.close()


async def serve(url: str) -> None:
    """What `oban start` does."""
    pool = await Oban.create_pool(url, min_size=4, max_size=8)
    async with Oban(pool=pool, queues={"default": LIMIT}):
        await asyncio.Event().wait()


def work(url: str) -> None:
    logging.disable(logging.INFO)
    uvloop_or_asyncio()(serve(url))


if __name__ == "__main__":
    main(ObanPy, work)
