"""The HTTP edge alone over real sockets, in this process: a served node on a journal in memory, and raw answers."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import trio

from arc_es.config import Config
from arc_es.http import server
from arc_es.serving import hypercorn_settings
from tests.http import driver

SECONDS_MAX = 10
JSON = b"Content-Type: application/json\r\n"


@asynccontextmanager
async def edge(**settings: Any) -> AsyncIterator[int]:
    """A served node with these settings; yields its port."""
    settings = {"admin_token": None, **settings}
    async with driver.serving(**settings) as served, serving(served.client.app, Config(**settings)) as port:
        yield port


@asynccontextmanager
async def serving(app: Any, config: Config) -> AsyncIterator[int]:
    """Any ASGI app behind our accept loop; yields its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0)

    async def serve(task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:  # noqa: ASYNC128 - passes it on
        await server.serve_http(
            app,
            hypercorn_settings(config),
            listener,
            connections_max=config.connections_max,
            until=trio.sleep_forever,
            task_status=task_status,
        )

    with trio.fail_after(SECONDS_MAX):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            yield listener.getsockname()[1]
            nursery.cancel_scope.cancel()


@dataclass(frozen=True)
class Reply:
    """One answer as it came: the status, the headers by lower-case name, and the body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def refused(self, status: int, code: str) -> None:
        """It is this error in the one shape of errors, with a date, and Retry-After where waiting helps."""
        assert self.status == status, (self.status, self.body)
        assert self.headers["content-type"] == "application/json"
        found = json.loads(self.body)
        assert found["code"] == code
        assert isinstance(found["message"], str)
        assert set(found) <= {"code", "message", "retryable", "details"}
        assert found["retryable"] is ("retry-after" in self.headers)
        assert self.headers["date"].endswith(" GMT")


def reply_of(data: bytes) -> tuple[Reply, bytes]:
    """The first answer in some bytes, and the bytes after it."""
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    length = int(headers.get("content-length", "0"))
    assert len(rest) >= length, data
    return Reply(int(first.split()[1]), headers, rest[:length]), rest[length:]


async def until_closed(stream: trio.SocketStream) -> bytes:
    """All that comes until the service ends the connection."""
    data = b""
    while piece := await stream.receive_some():
        data += piece
    return data


async def said(port: int, data: bytes) -> bytes:
    """What comes back for some bytes until the service ends the connection; the client never ends it."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        with suppress(trio.BrokenResourceError):
            await stream.send_all(data)
        return await until_closed(stream)
