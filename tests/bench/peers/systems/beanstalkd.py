"""beanstalkd. It stores no results, so a worker puts each into another tube, with the same durability as the job."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from itertools import count as count_from

import greenstalk

from tests.bench.peers.work import CALLERS, PAYLOAD, System, main, result

JOBS = "jobs"
WAIT_SECONDS = 30
REPLY_DIGITS = 8
"""A job starts with the number of the tube for its result: one for each caller, since reserving is from a tube."""


def address(url: str) -> tuple[str, int]:
    host, port = url.split(":")
    return host, int(port)


class Caller:
    """A connection that puts jobs and reserves results."""

    numbers: Iterator[int] = count_from()

    def __init__(self, url: str) -> None:
        self.reply = f"{next(self.numbers):0{REPLY_DIGITS}}"
        self.client = greenstalk.Client(address(url), use=JOBS, watch=self.reply)
        self.body = self.reply + PAYLOAD[REPLY_DIGITS:]

    def put(self) -> None:
        self.client.put(self.body)

    def take(self) -> str:
        """The next result; deleting it is what makes it read once."""
        job = self.client.reserve(timeout=WAIT_SECONDS)
        self.client.delete(job)
        body: str = job.body
        return body


class Beanstalkd(System):
    """The client blocks, so callers are threads. There is no bulk put: each caller's connection puts its share."""

    async def open(self) -> None:
        self.own = threading.local()

    def _caller(self) -> Caller:
        if not hasattr(self.own, "caller"):
            self.own.caller = Caller(self.plan.url)
        caller: Caller = self.own.caller
        return caller

    def _call(self) -> str:
        caller = self._caller()
        caller.put()
        return caller.take()

    async def call(self) -> str:
        return await asyncio.to_thread(self._call)

    def _share(self, count: int) -> None:
        caller = self._caller()
        for _ in range(count):
            caller.put()
        for _ in range(count):
            caller.take()

    async def bulk(self, count: int) -> None:
        await asyncio.gather(*(asyncio.to_thread(self._share, count // CALLERS) for _ in range(CALLERS)))


def serve(url: str) -> None:
    """Reserve, answer, delete: beanstalkd's protocol for a worker, on one connection."""
    client = greenstalk.Client(address(url), watch=JOBS)
    while True:
        job = client.reserve()
        client.use(job.body[:REPLY_DIGITS])
        client.put(result())
        client.delete(job)


def work(url: str) -> None:
    """As many connections as callers, each in a thread: what waits is the disk."""
    for _ in range(CALLERS):
        threading.Thread(target=serve, args=(url,)).start()


if __name__ == "__main__":
    main(Beanstalkd, work)
