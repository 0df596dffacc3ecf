"""A worker runtime as cheap as can be: answers 202, then the command, on kept connections.

python -m tests.bench.worker SERVICE_PORT
"""

from __future__ import annotations

import sys
from functools import partial
from urllib.parse import urlsplit

import orjson
import trio

from tests.bench.drive import request

READ_BYTES = 1 << 18
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
RESULT = b'{"status":"success","response":{"mode":"inline","inlineBase64":"eyJyb3dzIjoxN30="}}'


class Worker:
    """Takes every envelope of a service on this machine."""

    def __init__(self, service_port: int, nursery: trio.Nursery) -> None:
        self._service_port = service_port
        self._nursery = nursery
        self._idle: list[trio.SocketStream] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection of the service."""
        async with stream:
            while message := await _message(stream):
                await stream.send_all(ACCEPTED)
                url = urlsplit(orjson.loads(message)["responseHandling"]["submitResponseUrl"])
                self._nursery.start_soon(self._respond, f"{url.path}?{url.query}")

    async def _respond(self, path: str) -> None:
        stream = self._idle.pop() if self._idle else await trio.open_tcp_stream("127.0.0.1", self._service_port)
        await stream.send_all(request("PUT", path, RESULT))
        await _message(stream)
        self._idle.append(stream)


async def _message(stream: trio.SocketStream) -> bytes:
    """The body of the next HTTP message, which must be one with a Content-Length; empty at the end."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = await stream.receive_some(READ_BYTES)
        if not chunk:
            return b""
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    length_at = head.lower().index(b"content-length:")
    length = int(head[length_at + 15 :].partition(b"\r\n")[0])
    while len(body) < length:
        body += await stream.receive_some(READ_BYTES)
    return body


async def main(service_port: int) -> None:
    """Serve on a free port of 127.0.0.1."""
    async with trio.open_nursery() as nursery:
        worker = Worker(service_port, nursery)
        serve = partial(trio.serve_tcp, worker.serve, 0, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await nursery.start(serve)
        print(f"worker ready on http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", flush=True)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
