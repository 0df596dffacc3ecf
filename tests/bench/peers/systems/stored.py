"""For systems on PostgreSQL: waiting for results in a table, and a table for the results of those that keep none."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import asyncpg

POLL_SECONDS = 0.002
CREATE = "CREATE TABLE results (job_id bigint PRIMARY KEY, body text NOT NULL)"
INSERT = "INSERT INTO results SELECT * FROM unnest($1::bigint[], $2::text[])"
SELECT = "SELECT job_id, body FROM results WHERE job_id = ANY($1::bigint[])"


class Waiters:
    """Callers that wait for jobs: one query asks for all of them, again and again while there are any."""

    def __init__(self, connection: asyncpg.Connection, select: str = SELECT) -> None:
        self._connection = connection
        self._select = select
        self._waiting: dict[object, asyncio.Future[str]] = {}
        self._some = asyncio.Event()
        self._polling = asyncio.create_task(self._poll())

    async def wait(self, job_id: object) -> str:
        """The result of a job."""
        waiter = self._waiting[job_id] = asyncio.get_running_loop().create_future()
        self._some.set()
        body: str = await waiter
        return body

    async def _poll(self) -> None:
        while await self._some.wait():
            rows: list[tuple[object, str]] = await self._connection.fetch(self._select, list(self._waiting))
            for job_id, body in rows:
                self._waiting.pop(job_id).set_result(body)
            if not self._waiting:
                self._some.clear()
            await asyncio.sleep(POLL_SECONDS)

    async def close(self) -> None:
        self._polling.cancel()
        await self._connection.close()


class Writer:
    """Stores results durably; those that come while one statement runs share the next."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._next: dict[int, str] = {}
        self._written = asyncio.get_running_loop().create_future()
        self._lock = asyncio.Lock()

    async def store(self, job_id: int, body: str) -> None:
        """Return when it is stored."""
        self._next[job_id] = body
        written = self._written
        async with self._lock:
            if not written.done():
                batch, self._next = self._next, {}
                self._written = asyncio.get_running_loop().create_future()
                await self._insert(batch)
                written.set_result(None)

    async def _insert(self, batch: Mapping[int, str]) -> None:
        await self._pool.execute(INSERT, list(batch), list(batch.values()))
