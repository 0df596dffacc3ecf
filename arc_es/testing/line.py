"""The line between a client and a service in the same process: requests go to the web application as they are."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import anyio
import anyio.from_thread
import httpx2
import trio
from anyio.lowlevel import current_token
from sniffio import current_async_library

from arc_es.http.connection import Presence
from arc_es.ports import Clock

Across = Callable[..., Awaitable[Any]]
"""Runs an async function where the service runs: `(function, *arguments)`."""


def over(nursery: trio.Nursery, trio_token: trio.lowlevel.TrioToken) -> Across:
    """`Across` for a service in a trio loop: this one, or that of another thread. Cancellation goes across too.

    Neither thread ever waits for the other one's loop to come round while that one may be waiting for it.
    """

    async def across(function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        if current_async_library() == "trio" and trio.lowlevel.current_trio_token() is trio_token:
            return await function(*arguments)
        done, token = anyio.Event(), current_token()
        scope = trio.CancelScope()
        outcome: list[Any] = []

        async def there() -> None:
            with scope:
                try:
                    outcome[:] = [await function(*arguments), None]
                except Exception as error:  # noqa: BLE001 - raised again on the other side
                    outcome[:] = [None, error]
            with suppress(anyio.RunFinishedError):
                anyio.from_thread.run_sync(done.set, token=token)

        trio_token.run_sync_soon(nursery.start_soon, there)
        try:
            await done.wait()
        finally:
            if not done.is_set():
                trio_token.run_sync_soon(scope.cancel)
        result, error = outcome
        if error is not None:
            raise error
        return result

    return across


class Line(httpx2.AsyncBaseTransport):
    """An HTTP transport to a web application. cut: nothing gets through. dropped: requests do, and answers do not.

    asked: the last thousand requests, as `POST /v1/commands`.
    """

    def __init__(self, app: Any, clock: Clock, across: Across) -> None:
        self._app = app
        self._asgi = httpx2.ASGITransport(app=self._called)
        self._clock = clock
        self.across = across
        self.cut = False
        self.dropped = False
        self.asked: deque[str] = deque(maxlen=1_000)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        content = await request.aread()
        if self.cut:
            raise httpx2.ConnectError("the line is cut", request=request)
        self.asked.append(f"{request.method} {request.url.path}")
        status, headers, body = await self.across(
            self._ask, request.method, str(request.url), [*request.headers.raw], content
        )
        if self.cut or self.dropped:
            raise httpx2.ReadError("the line was cut", request=request)
        return httpx2.Response(status, headers=headers, content=body)

    async def _ask(
        self, method: str, url: str, headers: list[tuple[bytes, bytes]], content: bytes
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        request = httpx2.Request(method, url, headers=headers, content=content)
        response = await self._asgi.handle_async_request(request)
        body = await response.aread()
        date = format_datetime(datetime.fromtimestamp(self._clock.now() // 1_000_000, UTC), usegmt=True)
        return response.status_code, [*response.headers.raw, (b"date", date.encode())], body

    async def _called(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """The application, called as its own server calls it. A client that leaves cancels the call."""
        await self._app({**scope, "arc.client": Presence()}, receive, send)
