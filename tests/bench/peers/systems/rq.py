"""RQ on Redis. A worker is a process that runs one job at a time; a caller blocks on the stream of a job's results."""

from __future__ import annotations

import asyncio
import logging

from redis import Redis
from rq import Queue, SimpleWorker

from tests.bench.peers.work import CALLERS, PAYLOAD, System, main, result, until_none

NAME = "tests.bench.peers.systems.rq.handle"
WAIT_SECONDS = 30


def handle(payload: str) -> str:
    """The no-op."""
    return result()


class Rq(System):
    """RQ's client blocks, so callers are threads. Bulk is `enqueue_many`."""

    async def open(self) -> None:
        self.redis = Redis.from_url(self.plan.url, max_connections=4 * CALLERS)
        self.queue = Queue(connection=self.redis)

    def _call(self) -> str:
        latest = self.queue.enqueue(NAME, PAYLOAD).latest_result(timeout=WAIT_SECONDS)
        done: str = latest.return_value
        return done

    async def call(self) -> str:
        return await asyncio.to_thread(self._call)

    async def bulk(self, count: int) -> None:
        jobs = [Queue.prepare_data(NAME, (PAYLOAD,)) for _ in range(count)]
        finished = self.queue.finished_job_registry
        wanted: int = finished.get_job_count(cleanup=False) + count
        await asyncio.to_thread(self.queue.enqueue_many, jobs)

        async def left() -> int:
            done: int = finished.get_job_count(cleanup=False)
            return wanted - done

        await until_none(left)

    async def close(self) -> None:
        self.redis.close()


def work(url: str) -> None:
    """SimpleWorker runs jobs in its own process; the default Worker forks for each, which costs several times a job."""
    logging.disable(logging.WARNING)
    redis = Redis.from_url(url)
    SimpleWorker([Queue(connection=redis)], connection=redis).work(logging_level="ERROR")


if __name__ == "__main__":
    main(Rq, work)
