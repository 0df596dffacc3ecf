"""SAQ on Redis. A caller waits by publish and subscribe; a job that ended is kept with its result for ten minutes."""

from __future__ import annotations

import asyncio
import logging
import uuid

from saq import Queue, Status, Worker
from saq.job import TERMINAL_STATUSES as ENDED

from tests.bench.peers.work import PAYLOAD, System, main, result, until_none, uvloop_or_asyncio

CONCURRENCY = 50
"""Jobs at a time in a process. Its default is 10, and each of those waits for Redis' fsync several times a job."""
OPERATIONS = 64
"""Calls to Redis at a time. Its default is 20."""

SWEEP_SECONDS = 0.5
"""After a worker has told of itself, so long until it has swept."""


async def handle(context: object, *, payload: str) -> str:
    """The no-op."""
    return result()


class Saq(System):
    """Callers listen, then enqueue, so that no message is missed. Bulk is many enqueues at once, as in its `map`."""

    async def open(self) -> None:
        self.queue = Queue.from_url(self.plan.url, max_concurrent_ops=OPERATIONS)
        await self.queue.connect()
        self.listening = asyncio.create_task(self.queue.listen(["none"], lambda _key, _status: False, timeout=0))

    async def ready(self) -> None:
        """A worker that starts aborts jobs that another has just taken."""

        async def absent() -> int:
            return self.plan.workers - len((await self.queue.info())["workers"])

        await until_none(absent)
        await asyncio.sleep(SWEEP_SECONDS)

    async def call(self) -> str:
        key = uuid.uuid4().hex
        ended = asyncio.create_task(self.queue.listen([key], lambda _key, status: status in ENDED, timeout=0))
        await asyncio.sleep(0)
        job = await self.queue.enqueue("handle", key=key, payload=PAYLOAD)
        await ended
        await job.refresh()
        assert job.status is Status.COMPLETE, job
        done: str = job.result
        return done

    async def bulk(self, count: int) -> None:
        await asyncio.gather(*(self.queue.enqueue("handle", payload=PAYLOAD) for _ in range(count)))
        await until_none(lambda: self.queue.count("incomplete"))

    async def close(self) -> None:
        await self.queue.disconnect()


def work(url: str) -> None:
    """What `saq MODULE.settings` does, less its logging."""
    logging.disable(logging.INFO)

    async def serve() -> None:
        queue = Queue.from_url(url, max_concurrent_ops=OPERATIONS)
        await queue.connect()
        await Worker(queue, [("handle", handle)], concurrency=CONCURRENCY).start()

    uvloop_or_asyncio()(serve())


if __name__ == "__main__":
    main(Saq, work)
