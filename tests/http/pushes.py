"""A pusher that a test holds in its hands, and a service with one push target."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson
import trio

from arc_es.ports import PushOutcome
from tests.http.driver import Answer, Served, serving, success

PUBLIC_URL = "https://arc.example/prefix/v1"
WORKER_URL = "http://worker.example/push?key=1"
ACCEPTED, REJECTED = PushOutcome("accepted"), PushOutcome("rejected", "answered 503")
UNCLEAR = PushOutcome("unclear", "no answer")


@dataclass(frozen=True)
class Sent:
    """One push."""

    url: str
    token: str | None
    envelope: Any

    @property
    def command_id(self) -> str:
        found: str = self.envelope["commandId"]
        return found


class Script:
    """A `Pusher`. results: of the next pushes, the last one for ever. before: what happens between push and result."""

    def __init__(self, *results: PushOutcome) -> None:
        self.results = list(results) or [ACCEPTED]
        self.sent: list[Sent] = []
        self.before: Callable[[Sent], Awaitable[None]] | None = None
        self.at_once: dict[str, int] = {}
        self.at_once_max: dict[str, int] = {}
        self._moved = trio.Event()

    async def push(self, url: str, token: str | None, envelope: bytes) -> PushOutcome:
        sent = Sent(url, token, orjson.loads(envelope))
        self.sent.append(sent)
        self._moved.set()
        self._moved = trio.Event()
        self.at_once[url] = self.at_once.get(url, 0) + 1
        self.at_once_max[url] = max(self.at_once[url], self.at_once_max.get(url, 0))
        try:
            await trio.lowlevel.checkpoint()
            if self.before is not None:
                await self.before(sent)
        finally:
            self.at_once[url] -= 1
        return self.results.pop(0) if len(self.results) > 1 else self.results[0]

    async def until(self, count: int) -> None:
        """Wait until so many pushes have begun."""
        while len(self.sent) < count:
            await self._moved.wait()

    def attempts(self) -> list[int]:
        return [sent.envelope["attempt"] for sent in self.sent]


def push_target(resource_id: str = "builder", **push: Any) -> dict[str, Any]:
    settings = {"url": WORKER_URL, "token": "push-s3cret"} | push
    return {"resourceId": resource_id, "resourceType": "worker", "delivery": "push", "push": settings}


@asynccontextmanager
async def pushing(script: Script, *, declare: bool = True, **more: Any) -> AsyncGenerator[Served, None]:
    """A service with deployment dep, whose worker builder is pushed to."""
    async with serving(pusher=script, **({"public_url": PUBLIC_URL} | more)) as served:
        if declare:
            (await served.declare(push_target())).ok()
        yield served


async def answer_by_url(served: Served, sent: Sent) -> Answer:
    """Answer as a worker does: by the URL of its envelope, without Authorization."""
    url = urlsplit(sent.envelope["responseHandling"]["submitResponseUrl"])
    assert f"{url.scheme}://{url.netloc}{url.path}".startswith(f"{PUBLIC_URL}/commands/{sent.command_id}/")
    path = url.path.removeprefix("/prefix")
    return await served.client.presenting(None).put(f"{path}?{url.query}", success())
