"""Accepting connections: hypercorn speaks HTTP/1.1 on each of them, and none of them can hurt the others.

hypercorn's own accept loop lets an exception of one connection end the server, waits without bound, not even
cancelled, for a client that does not read its answer, and gives a client minutes to send a request.
"""

from __future__ import annotations

import logging
import math
import resource
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, cast

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState
from hypercorn.utils import parse_socket_addr

from arc_es.domain import limits
from arc_es.http.accepting import ALONE, Neighbours, SharedListener
from arc_es.http.connection import ClientGone
from arc_es.http.problems import raw_problem
from arc_es.http.protocol import Http1, Tasks

RECEIVE_BYTES = 65_536

log = logging.getLogger("arc_es.http")


class PatientStream(trio.abc.HalfCloseableStream):
    """A stream that sends in bounded time, and ends its connection once the client has left.

    Some of hypercorn's tasks wait for ever for a client that is gone.
    """

    def __init__(self, stream: trio.SocketStream, connection: trio.CancelScope) -> None:
        self._stream = stream
        self._connection = connection
        self.socket = stream.socket

    def _left(self) -> None:
        self._connection.deadline = min(self._connection.deadline, trio.current_time() + limits.LEFT_SECONDS_MAX)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            for start in range(0, len(data), limits.SEND_BYTES):
                whole = len(data) <= limits.SEND_BYTES
                await self._send(data if whole else memoryview(data)[start : start + limits.SEND_BYTES])
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._left()
            raise
        except trio.BusyResourceError as error:  # another task is closing it
            self._left()
            raise trio.BrokenResourceError("The connection is being closed") from error

    async def _send(self, piece: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(limits.SEND_SECONDS_MAX) as scope:
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


class HttpConnection(TCPServer):
    """One connection: hypercorn's, but for who waits how long for what.

    The reading task keeps all time limits: a head must be complete `HEAD_SECONDS_MAX` after it began, or after the
    connection was opened; between two requests there may be `IDLE_SECONDS_MAX`; while a request is under way, its
    handler knows how long to wait; and after the last answer the client may take `LINGER_SECONDS_MAX` to read it.
    """

    protocol: Http1  # type: ignore[assignment]  # hypercorn's own chooses between several

    def __init__(self, app: ASGIFramework, settings: Config, context: WorkerContext, stream: PatientStream) -> None:
        # hypercorn names trio's SSL stream, and uses the methods of any stream
        super().__init__(cast("Any", app), settings, context, cast("Any", {}), cast("Any", stream))
        self._patience = trio.CancelScope()
        self._busy = False
        self._ended = False

    async def run(self) -> None:
        """Speak HTTP until one side has had enough."""
        client = parse_socket_addr(self.stream.socket.family, self.stream.socket.getpeername())
        server = parse_socket_addr(self.stream.socket.family, self.stream.socket.getsockname())
        async with Tasks() as tasks:
            self.protocol = Http1(
                self.app,
                self.config,
                self.context,
                tasks,
                ConnectionState(self.state),
                False,  # noqa: FBT003 - hypercorn's parameters are positional; TLS is a proxy's job
                client,
                server,
                self.protocol_send,
            )
            await self._read_data()
            await self.protocol.handle(Closed())

    def close_if_idle(self) -> None:
        """End the connection unless a request is under way; that one ends it when it is answered."""
        if not self._busy:
            self._patience.cancel()

    def _wait_at_most(self, seconds: float) -> None:
        self._patience.deadline = trio.current_time() + seconds

    async def _read_data(self) -> None:
        self._wait_at_most(limits.HEAD_SECONDS_MAX)
        try:
            with self._patience:
                while data := await self.stream.receive_some(RECEIVE_BYTES):
                    if not self._ended:
                        await self._received(bytes(data))
                if not self._ended:
                    await self.protocol.handle(RawData(b""))  # what was not complete by now is an error
            if self._patience.cancelled_caught and not self._ended and self.protocol.in_head:
                await self.protocol.refuse(408)
        except (trio.BrokenResourceError, trio.ClosedResourceError, ClientGone):
            pass

    async def _received(self, data: bytes) -> None:
        waited_for_head = not self._busy and self.protocol.in_head
        await self.protocol.handle(RawData(data))
        if not waited_for_head and not self._busy and not self._ended and self.protocol.in_head:
            self._wait_at_most(limits.HEAD_SECONDS_MAX)

    async def protocol_send(self, event: Event) -> None:
        """What the protocol has for the client. Raises ClientGone."""
        if isinstance(event, RawData):
            await self._send(event.data)
        elif isinstance(event, Updated):
            self._busy = not event.idle
            self._wait_at_most(limits.IDLE_SECONDS_MAX if event.idle else math.inf)
        else:
            await self._end()

    async def _send(self, data: bytes) -> None:
        async with self.send_lock:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self.stream.send_all(data)
                return
        await self.protocol.handle(Closed())
        raise ClientGone

    async def _end(self) -> None:
        """Say that nothing more will come. The reader goes on for a while: closing at once, with bytes of the client
        not read, would take from it the answer that it has not read yet (RFC 9112, 9.6)."""
        self._ended = True
        self._wait_at_most(limits.LINGER_SECONDS_MAX)
        try:
            await self.stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            self._patience.cancel()
        await self.protocol.handle(Closed())


def allow_open_files(connections_max: int) -> None:
    """Raise the soft limit on open files as far as the system allows, and say so if the connections may not fit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = connections_max + limits.TURNED_AWAY_MAX + limits.OTHER_FILES_MAX
    if hard != resource.RLIM_INFINITY and hard < needed:
        log.warning("At most %d files may be open; %d connections need up to %d", hard, connections_max, needed)


async def serve_http(
    app: ASGIFramework,
    settings: Config,
    listener: socket.socket,
    *,
    connections_max: int,
    until: Callable[[], Awaitable[None]],
    neighbours: Neighbours = ALONE,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `until` returns; then accept nothing more and give what is under way `graceful_timeout` seconds.

    Above `connections_max` a new connection is answered with 503 and closed.
    """
    context = WorkerContext(None)
    serving: set[HttpConnection] = set()
    async with trio.open_nursery() as connections:

        async def handle(stream: trio.SocketStream) -> None:
            if len(serving) < connections_max:
                await _connection(app, settings, context, stream, serving)
            elif len(connections.child_tasks) <= connections_max + limits.TURNED_AWAY_MAX:
                await _turn_away(stream)
            else:
                await trio.aclose_forcefully(stream)
            neighbours.connections(len(connections.child_tasks) - 1)

        async with trio.open_nursery() as accepting:
            accept = partial(trio.serve_listeners, handler_nursery=connections)
            shared = SharedListener(listener, neighbours, lambda: len(connections.child_tasks))
            accepting.start_soon(accept, handle, [shared])
            task_status.started()
            await until()
            neighbours.leave()
            accepting.cancel_scope.cancel()
        await context.terminated.set()
        for connection in serving:
            connection.close_if_idle()
        connections.cancel_scope.deadline = trio.current_time() + settings.graceful_timeout


async def _connection(
    app: ASGIFramework,
    settings: Config,
    context: WorkerContext,
    stream: trio.SocketStream,
    serving: set[HttpConnection],
) -> None:
    """One connection from its first to its last byte. What its client can provoke in hypercorn ends it alone."""
    with trio.CancelScope() as scope:
        connection = HttpConnection(app, settings, context, PatientStream(stream, scope))
        serving.add(connection)
        try:
            await connection.run()
        except* OSError:
            pass  # the client was gone before anything could be said
        except* Exception as group:  # noqa: BLE001 - an app's own errors were answered before they could get here
            log.info("A connection ended in a protocol error: %s", _first(group))
        finally:
            serving.remove(connection)
            vars(
                connection
            ).clear()  # it and its protocol hold each other: a cycle, and frozen ones are never collected
            await trio.aclose_forcefully(stream)


async def _turn_away(stream: trio.SocketStream) -> None:
    """Answer 503 to whatever the client may want, and close the connection."""
    status, headers, body = raw_problem(503)
    lines = [b"HTTP/1.1 %d " % status, *(b"%b: %b" % header for header in headers), b"", body]
    with trio.move_on_after(limits.TURNED_AWAY_SECONDS_MAX):
        try:
            await stream.send_all(b"\r\n".join(lines))
            await stream.send_eof()
            while await stream.receive_some(RECEIVE_BYTES):  # else the answer is lost with what was not read
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
    await trio.aclose_forcefully(stream)


def _first(group: BaseExceptionGroup[BaseException]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return repr(error)
