"""DBOS on PostgreSQL, by SQLAlchemy and psycopg. A job is a workflow on a queue; workers poll."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import asyncpg
from dbos import DBOS, DBOSClient
from dbos._serialization import DefaultSerializer

from tests.bench.peers.systems.stored import Waiters
from tests.bench.peers.work import CALLERS, PAYLOAD, Plan, System, main, result, until_none

QUEUE = "bench"
VERSION = "1"
POLL_SECONDS = 0.01
"""How often a worker looks; its default is 1."""
WORKER_CONCURRENCY = 50
SELECT = """
    SELECT workflow_uuid, workflow_output.output
    FROM dbos.workflow_status JOIN dbos.workflow_output USING (workflow_uuid)
    WHERE workflow_uuid = ANY($1::text[]) AND status = 'SUCCESS'"""
LEFT = "SELECT count(*) FROM dbos.workflow_status WHERE status <> 'SUCCESS'"
OPTIONS = {"queue_name": QUEUE, "workflow_name": "handle", "app_version": VERSION}


class Dbos(System):
    """The client blocks, so enqueues run in as many threads as there are callers. There is no bulk enqueue."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.threads = ThreadPoolExecutor(CALLERS)

    async def open(self) -> None:
        DBOS(config=config(self.plan.url))
        DBOS.launch()
        await DBOS.register_queue_async(QUEUE, polling_interval_sec=POLL_SECONDS, worker_concurrency=WORKER_CONCURRENCY)
        DBOS.destroy()
        self.client = DBOSClient(system_database_url=self.plan.url)
        self.connection = await asyncpg.connect(self.plan.url)
        self.waiters = Waiters(await asyncpg.connect(self.plan.url), SELECT)
        self.deserialize = DefaultSerializer().deserialize

    def _enqueue(self) -> str:
        workflow_id: str = self.client.enqueue(OPTIONS, PAYLOAD).get_workflow_id()
        return workflow_id

    async def _enqueued(self) -> str:
        return await asyncio.get_running_loop().run_in_executor(self.threads, self._enqueue)

    async def call(self) -> str:
        done: str = self.deserialize(await self.waiters.wait(await self._enqueued()))
        return done

    async def bulk(self, count: int) -> None:
        await asyncio.gather(*(self._enqueued() for _ in range(count)))
        await until_none(lambda: self.connection.fetchval(LEFT))

    async def close(self) -> None:
        await self.waiters.close()
        await self.connection.close()
        self.client.destroy()


def config(url: str) -> dict[str, object]:
    return {
        "name": "bench",
        "system_database_url": url,
        "application_version": VERSION,
        "log_level": "ERROR",
        "sys_db_pool_size": 20,
    }


def work(url: str) -> None:
    """A process that runs the workflows of the queue."""
    DBOS(config=config(url))

    @DBOS.workflow(name="handle")
    def handle(payload: str) -> str:
        return result()

    DBOS.listen_queues([QUEUE])
    DBOS.launch()
    threading.Event().wait()


if __name__ == "__main__":
    main(Dbos, work)
