"""Creates under load leave together: while calls are under way, the next ones gather. Nothing waits when nothing is."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import anyio
import orjson
from anyio.abc import TaskGroup

from arc_es.client.client import ArcClient
from arc_es.client.errors import ArcError
from arc_es.client.lease import JsonObject

BATCH_MAX: Final = 1_000
BATCH_BYTES_MAX: Final = 1_000_000
"""Half of what every service takes as one request."""
CALLS_MAX: Final = 2
"""Calls under way at a time: while the service writes for one, the next is already on its way."""
_NO_BATCHES: Final = (404, 405)
"""How a service answers that does not know them."""


@dataclass(slots=True, eq=False)
class _Wish:
    """A create that waits for its answer."""

    request: JsonObject
    size: int
    done: anyio.Event = field(default_factory=anyio.Event)
    answer: JsonObject | ArcError | None = None

    def settle(self, answer: JsonObject | ArcError) -> None:
        self.answer = answer
        self.done.set()


class Creates:
    """Sends creates whose params are inline."""

    def __init__(self, client: ArcClient) -> None:
        self._client = client
        self._waiting: deque[_Wish] = deque()
        self._more = anyio.Event()
        self._batches = True

    def begin(self, group: TaskGroup) -> None:
        """Send from now on, in a task group."""
        for _ in range(CALLS_MAX):
            group.start_soon(self._send_for_ever)

    async def create(self, request: JsonObject) -> JsonObject:
        """The answer to one create. Raises ArcError; with an idempotency key it may be repeated then."""
        wish = _Wish(request, len(orjson.dumps(request)))
        self._waiting.append(wish)
        self._more.set()
        try:
            await wish.done.wait()
        finally:
            if not wish.done.is_set() and wish in self._waiting:
                self._waiting.remove(wish)
        if isinstance(wish.answer, ArcError):
            raise wish.answer
        assert wish.answer is not None
        return wish.answer

    async def _send_for_ever(self) -> None:
        while True:
            while not self._waiting:
                self._more = anyio.Event()
                await self._more.wait()
            await self._send(self._next())

    def _next(self) -> list[_Wish]:
        chosen = [self._waiting.popleft()]
        size = chosen[0].size
        while self._batches and self._waiting and len(chosen) < BATCH_MAX:
            size += self._waiting[0].size
            if size > BATCH_BYTES_MAX:
                break
            chosen.append(self._waiting.popleft())
        return chosen

    async def _send(self, wishes: list[_Wish]) -> None:
        try:
            if len(wishes) == 1:
                wishes[0].settle(await self._client.send_create(wishes[0].request, b""))
                return
            answers = await self._client.create_batch([wish.request for wish in wishes])
            for wish, answer in zip(wishes, answers, strict=True):
                wish.settle(answer)
        except ArcError as error:
            if len(wishes) > 1 and error.status in _NO_BATCHES:
                self._batches = False
                self._waiting.extendleft(reversed(wishes))
                return
            for wish in wishes:
                wish.settle(error)
