"""Procrastinate on PostgreSQL, by psycopg. It stores no results, so the task does, in a table beside it."""

from __future__ import annotations

import logging

import asyncpg
from procrastinate import App, JobContext, PsycopgConnector

from tests.bench.peers.systems.stored import CREATE, Waiters, Writer
from tests.bench.peers.work import CALLERS, PAYLOAD, System, main, result, until_none, url, uvloop_or_asyncio

CONCURRENCY = 16
"""Jobs at a time in a process; its default is 1. Each is fetched by a query of its own."""

LEFT = "SELECT count(*) FROM procrastinate_jobs WHERE status <> 'succeeded'"

app = App(connector=PsycopgConnector(conninfo=url(), min_size=CALLERS, max_size=CALLERS))


@app.task(name="handle", pass_context=True)
async def handle(context: JobContext, payload: str) -> None:
    """The no-op."""
    await context.additional_context["writer"].store(context.job.id, result())


class Procrastinate(System):
    """Bulk is `batch_defer_async`: one statement."""

    async def open(self) -> None:
        await app.open_async()
        await app.schema_manager.apply_schema_async()
        self.connection = await asyncpg.connect(self.plan.url)
        await self.connection.execute(CREATE)
        self.waiters = Waiters(await asyncpg.connect(self.plan.url))

    async def call(self) -> str:
        return await self.waiters.wait(await handle.defer_async(payload=PAYLOAD))

    async def bulk(self, count: int) -> None:
        await handle.batch_defer_async(*({"payload": PAYLOAD} for _ in range(count)))
        await until_none(lambda: self.connection.fetchval(LEFT))

    async def close(self) -> None:
        await self.waiters.close()
        await self.connection.close()
        await app.close_async()


async def serve(url: str) -> None:
    """What `procrastinate worker` does."""
    async with asyncpg.create_pool(url, min_size=2, max_size=4) as pool, app.open_async():
        context = {"writer": Writer(pool)}
        await app.run_worker_async(concurrency=CONCURRENCY, additional_context=context)


def work(url: str) -> None:
    logging.disable(logging.INFO)
    uvloop_or_asyncio()(serve(url))


if __name__ == "__main__":
    main(Procrastinate, work)
