"""A worker runtime on a real socket that does what a test tells it, good or bad."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import orjson
import trio

HEAD_END = b"\r\n\r\n"
READ_BYTES = 65_536


@dataclass(frozen=True)
class Received:
    """One request, whole."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def envelope(self) -> Any:
        return orjson.loads(self.body)


Behaviour: TypeAlias = Callable[[trio.SocketStream, Received], Awaitable[None]]
"""What a worker does with a request; it closes the connection by closing the stream."""


class Worker:
    """Takes any number of requests; `behave` may be changed at any time. greet: done before a connection is read."""

    def __init__(self) -> None:
        self.port = 0
        self.behave: Behaviour = answer(202)
        self.greet: Callable[[], Awaitable[None]] | None = None
        self.reads = True
        self.received: list[Received] = []
        self.connections = 0
        self.at_once = 0
        self.at_once_max = 0
        self._moved = trio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/push"

    async def until(self, count: int) -> None:
        """Wait until so many requests have come."""
        while len(self.received) < count:
            await self._moved.wait()

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection."""
        self.connections += 1
        async with stream:
            if self.greet is not None:
                await self.greet()
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while self.reads and (request := await _read(stream)) is not None:
                    self.received.append(request)
                    self._moved.set()
                    self._moved = trio.Event()
                    self.at_once += 1
                    self.at_once_max = max(self.at_once_max, self.at_once)
                    try:
                        await self.behave(stream, request)
                    finally:
                        self.at_once -= 1


@asynccontextmanager
async def working() -> AsyncGenerator[Worker, None]:
    """A worker that answers 202, on a port of its own."""
    worker = Worker()
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, worker.serve, 0, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await nursery.start(serve)
        worker.port = listeners[0].socket.getsockname()[1]
        yield worker
        nursery.cancel_scope.cancel()


async def _read(stream: trio.SocketStream) -> Received | None:
    """The next request, None at the end of the connection."""
    data = b""
    while HEAD_END not in data:
        chunk = await stream.receive_some(READ_BYTES)
        if not chunk:
            return None
        data += chunk
    head, _, body = data.partition(HEAD_END)
    line, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    length = int(headers.get("content-length", "0"))
    while len(body) < length:
        chunk = await stream.receive_some(READ_BYTES)
        if not chunk:
            return None
        body += chunk
    method, target, _ = line.split(" ")
    return Received(method, target, headers, body)


# --- behaviours


def answer(status: int, body: bytes = b"", *fields: bytes) -> Behaviour:
    """A good answer with any status."""

    async def behave(stream: trio.SocketStream, request: Received) -> None:
        lines = [b"HTTP/1.1 %d Word" % status, b"Content-Length: %d" % len(body), *fields]
        await stream.send_all(b"\r\n".join(lines) + HEAD_END + body)

    return behave


def raw(data: bytes) -> Behaviour:
    """These bytes, then the end of the connection."""

    async def behave(stream: trio.SocketStream, request: Received) -> None:
        await stream.send_all(data)
        await stream.aclose()

    return behave


def endless(head: bytes, piece: bytes) -> Behaviour:
    """A head, then the same piece as long as somebody takes it."""

    async def behave(stream: trio.SocketStream, request: Received) -> None:
        await stream.send_all(head)
        while True:
            await stream.send_all(piece)

    return behave


async def close(stream: trio.SocketStream, request: Received) -> None:
    """Read the request and close the connection without a word."""
    await stream.aclose()


async def hang(stream: trio.SocketStream, request: Received) -> None:
    """Never answer."""
    await trio.sleep_forever()
