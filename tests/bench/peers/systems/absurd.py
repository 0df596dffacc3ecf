"""Absurd on PostgreSQL, by psycopg. Workers poll; a worker takes the next batch when all of the last are done."""

from __future__ import annotations

import asyncio
import logging
from uuid import UUID

import absurdctl
import asyncpg
from absurd_sdk import AsyncAbsurd

from tests.bench.peers.systems.stored import Waiters
from tests.bench.peers.work import CALLERS, PAYLOAD, System, main, result, until_none, uvloop_or_asyncio

CONCURRENCY = 16
"""Jobs at a time in a process; its default is 1. They share one connection, so more do not go faster."""
POLL_SECONDS = 0.01
"""How often an idle worker looks; its default is 0.25."""
SELECT = """
    SELECT task_id, completed_payload #>> '{}' FROM absurd.t_default
    WHERE task_id = ANY($1::uuid[]) AND state = 'completed'"""
LEFT = "SELECT count(*) FROM absurd.t_default WHERE state <> 'completed'"
QUEUE = "default"


async def handle(params: object, context: object) -> str:
    """The no-op."""
    return result()


class Absurd(System):
    """A client has one connection, so each caller has a client. There is no bulk spawn."""

    async def open(self) -> None:
        self.connection = await asyncpg.connect(self.plan.url)
        await self.connection.execute(absurdctl.BUNDLED_SCHEMA_SQL)
        self.idle: asyncio.Queue[AsyncAbsurd] = asyncio.Queue()
        for _ in range(CALLERS):
            self.idle.put_nowait(AsyncAbsurd(self.plan.url, queue_name=QUEUE))
        client = await self.idle.get()
        await client.create_queue(QUEUE)
        self.idle.put_nowait(client)
        self.waiters = Waiters(await asyncpg.connect(self.plan.url), SELECT)

    async def _spawn(self) -> UUID:
        client = await self.idle.get()
        spawned = await client.spawn("handle", {"payload": PAYLOAD}, queue=QUEUE)
        self.idle.put_nowait(client)
        return UUID(str(spawned["task_id"]))

    async def call(self) -> str:
        return await self.waiters.wait(await self._spawn())

    async def bulk(self, count: int) -> None:
        await asyncio.gather(*(self._spawn() for _ in range(count)))
        await until_none(lambda: self.connection.fetchval(LEFT))

    async def close(self) -> None:
        await self.waiters.close()
        await self.connection.close()
        while not self.idle.empty():
            await self.idle.get_nowait().close()


async def serve(url: str) -> None:
    """Its worker as the documentation shows it."""
    app = AsyncAbsurd(url, queue_name=QUEUE)
    app.register_task("handle")(handle)
    await app.start_worker(concurrency=CONCURRENCY, poll_interval=POLL_SECONDS)


def work(url: str) -> None:
    logging.disable(logging.INFO)
    uvloop_or_asyncio()(serve(url))


if __name__ == "__main__":
    main(Absurd, work)
