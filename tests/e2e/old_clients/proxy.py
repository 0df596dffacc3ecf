"""A reverse proxy that strips a path prefix and keeps no other promise: one connection, one request."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import trio

READ_BYTES = 65_536
HEAD_END = b"\r\n\r\n"


@asynccontextmanager
async def proxying(port: int, prefix: str) -> AsyncGenerator[tuple[str, list[str]], None]:
    """Its URL with the prefix, and the request lines it has seen."""
    seen: list[str] = []

    async def serve(stream: trio.SocketStream) -> None:
        head = b""
        async with stream:
            while HEAD_END not in head:
                data = await stream.receive_some(READ_BYTES)
                if not data:
                    return
                head += data
            line, rest = head.split(b"\r\n", 1)
            seen.append(line.decode())
            method, path, version = line.split(b" ")
            assert path.startswith(prefix.encode()), path
            forwarded = b" ".join((method, path[len(prefix) :], version)) + b"\r\nConnection: close\r\n"
            rest = rest.replace(b"Connection: keep-alive\r\n", b"")
            async with await trio.open_tcp_stream("127.0.0.1", port) as service, trio.open_nursery() as nursery:
                await service.send_all(forwarded + rest)
                nursery.start_soon(_copy, stream, service)
                await _copy(service, stream)
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}{prefix}", seen
        nursery.cancel_scope.cancel()


async def _copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    while data := await source.receive_some(READ_BYTES):
        await sink.send_all(data)
