"""Accepting connections: hypercorn speaks HTTP on each of them, and none of them can hurt the others.

hypercorn's own accept loop lets an exception of one connection end the server (bad settings in an `Upgrade: h2c` are
enough), and waits without bound, not even cancelled, for a client that does not read its answer.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, ConnectionState, Scope

SEND_BYTES: Final = 65_536
SEND_SECONDS_MAX: Final = 10.0
"""A client that takes no `SEND_BYTES` in this time has its connection closed."""
FINAL_HEADS: Final = (b"HTTP/1.1 2", b"HTTP/1.1 3", b"HTTP/1.1 4", b"HTTP/1.1 5")
LEFT_SECONDS_MAX: Final = 1.0
"""How long a connection whose client has left may tidy up. What is being stored is stored: appends are shielded."""

log = logging.getLogger("arc_es.http")


class PatientStream(trio.abc.HalfCloseableStream):
    """A stream that sends an answer in one piece and in bounded time, and ends its connection once the client has left.

    hypercorn shields sends from cancellation, and some of its tasks wait for ever for a client that is gone.
    """

    def __init__(self, stream: trio.SocketStream, connection: trio.CancelScope) -> None:
        self._stream = stream
        self._connection = connection
        self.socket = stream.socket
        self._head = b""

    def _left(self) -> None:
        self._connection.deadline = min(self._connection.deadline, trio.current_time() + LEFT_SECONDS_MAX)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif isinstance(data, bytes) and data.startswith(FINAL_HEADS) and data.endswith(b"\r\n\r\n"):
            self._head = data  # hypercorn sends the body, or that there is none, right after it: one packet for both
            return
        try:
            for start in range(0, len(data), SEND_BYTES):
                await self._send(data if len(data) <= SEND_BYTES else memoryview(data)[start : start + SEND_BYTES])
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._left()
            raise
        except trio.BusyResourceError as error:  # another task is closing it
            self._left()
            raise trio.BrokenResourceError("The connection is being closed") from error

    async def _send(self, piece: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(SEND_SECONDS_MAX) as scope:
            await self._stream.send_all(piece)
        if scope.cancelled_caught:
            raise trio.BrokenResourceError("The client does not read")

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._left()
            raise
        if not data:
            self._left()
        return data

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        self._left()
        await self._stream.aclose()


async def serve_http(
    app: ASGIFramework,
    settings: Config,
    listener: socket.socket,
    *,
    connections_max: int,
    until: Callable[[], Awaitable[None]],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `until` returns; then accept nothing more and give what is under way `graceful_timeout` seconds.

    Above `connections_max` a new connection is closed at once.
    """
    context = WorkerContext(None)
    async with trio.open_nursery() as connections:

        async def handle(stream: trio.SocketStream) -> None:
            if len(connections.child_tasks) > connections_max:
                await stream.aclose()
                return
            await _connection(app, settings, context, stream)

        async with trio.open_nursery() as accepting:
            accept = partial(trio.serve_listeners, handler_nursery=connections)
            accepting.start_soon(accept, handle, [trio.SocketListener(trio.socket.from_stdlib_socket(listener))])
            task_status.started()
            await until()
            accepting.cancel_scope.cancel()
        await context.terminated.set()
        connections.cancel_scope.deadline = trio.current_time() + settings.graceful_timeout


async def _connection(app: ASGIFramework, settings: Config, context: WorkerContext, stream: trio.SocketStream) -> None:
    """One connection from its first to its last byte. What its client can provoke in hypercorn ends it alone."""
    with trio.CancelScope() as scope:
        patient = cast(
            "Any", PatientStream(stream, scope)
        )  # hypercorn names trio's classes, and uses their methods only
        server = TCPServer(ASGIWrapper(_http_only(app)), settings, context, ConnectionState({}), patient)
        try:
            await server.run()
        except* Exception as group:  # noqa: BLE001 - an app's own errors were answered before they could get here
            log.info("A connection ended in a protocol error: %s", _first(group))
        finally:
            vars(server).clear()  # it and its protocol hold each other: a cycle, and frozen ones are never collected
            await trio.aclose_forcefully(stream)


def _http_only(app: ASGIFramework) -> ASGIFramework:
    """Refuse WebSockets: there are none here."""

    async def handle(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "websocket":
            with suppress(h11.LocalProtocolError):  # hypercorn has answered a client that left already
                await send({"type": "websocket.close", "code": 1008, "reason": None})
        else:
            await app(scope, receive, send)

    return handle


def _first(group: BaseExceptionGroup[BaseException]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return repr(error)
