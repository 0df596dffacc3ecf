"""HTTP/1.1 on one connection: hypercorn's parser and states, with errors in JSON and nothing that waits for ever.

What hypercorn would do by itself, and what is done here instead:
- a request that cannot be read gets an empty answer; here it gets the error shape of `arc.v1` 1.6;
- `Upgrade: h2c`, HTTP/2 and WebSockets get protocols of their own; here an upgrade is ignored, as HTTP allows;
- a request body waits in a queue of ten pieces, and whoever fills it hangs once nobody reads on; here the queue is
  bounded in bytes and ends with the request;
- the head of an answer is a packet of its own.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import h11
import trio
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Request, Response
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.typing import H11SendableEvent

from arc_es.domain import limits
from arc_es.http.connection import Presence
from arc_es.http.problems import raw_problem
from arc_es.http.urls import HOST

Message = dict[str, Any]
HTTP_VERSIONS: Final = (b"1.0", b"1.1")
UNREADABLE: Final = 400
HEAD_TOO_LARGE: Final = 431

log = logging.getLogger("arc_es.http")


class Inbox(Presence):
    """What a request's handler has yet to receive: pieces of the body, their end, and that the client is gone."""

    def __init__(self) -> None:
        super().__init__()
        self._messages: deque[Message] = deque()
        self._size = 0
        self._news = trio.Event()
        self._room = trio.Event()

    def when_gone(self, call: Callable[[], None]) -> None:
        """Have `call` called when the client leaves; what it sends until then is thrown away."""
        self._messages.clear()
        self._size = 0
        self._room.set()
        super().when_gone(call)

    async def put(self, message: Message) -> None:
        """Hand over a message; waits while `INBOX_BYTES` lie here, but no longer than the request lasts."""
        if message["type"] == "http.disconnect":
            self._room.set()
            self.left()
        else:
            while self._size >= limits.INBOX_BYTES and not self.is_gone:
                self._room = trio.Event()
                await self._room.wait()
            if self.is_watched:
                return
            self._messages.append(message)
            self._size += len(message["body"])
        self._news.set()

    async def receive(self) -> Message:
        """The next message; the last one, that the client is gone, comes again and again."""
        while not self._messages:
            if self.is_gone:
                await trio.lowlevel.checkpoint()
                return {"type": "http.disconnect"}
            self._news = trio.Event()
            await self._news.wait()
        message = self._messages.popleft()
        self._size -= len(message["body"])
        self._room.set()
        return message


class Tasks(TaskGroup):
    """The tasks of a connection: one for each request under way."""

    async def spawn_app(
        self, app: Any, config: Any, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        """Start to handle a request; returns where its body goes."""
        assert self._nursery is not None
        inbox = Inbox()
        scope["arc.client"] = inbox
        self._nursery.start_soon(_handle, app, scope, inbox.receive, send)
        return inbox.put


async def _handle(app: Any, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    try:
        await app(scope, receive, send)
    except Exception:
        log.exception("A request failed because of a bug")
    await send(None)  # nothing more will come: an answer that is not whole ends its connection


class Http1(H11Protocol):
    """One connection's side of HTTP/1.1."""

    _head = b""

    @property
    def in_head(self) -> bool:
        """Whether a request head has begun to arrive and is not complete."""
        return self.connection.their_state is h11.IDLE and bool(self.connection.trailing_data[0])

    async def refuse(self, status: int) -> None:
        """Answer a request that never became one, and end the connection."""
        if self.connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            await self._send_error_response(status)
        await self.send(Closed())

    async def handle(self, event: Event) -> None:
        """Take what came over the connection."""
        try:
            await super().handle(event)
        except h11.RemoteProtocolError as error:
            await self.refuse(error.error_status_hint)

    async def stream_send(self, event: StreamEvent) -> None:
        """Send a part of an answer."""
        if isinstance(event, Response) and self.connection.their_state in {h11.SEND_BODY, h11.ERROR}:
            event.headers.append((b"connection", b"close"))  # nobody will read the rest of the request
        await super().stream_send(event)

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        try:
            data = self.connection.send(event)
        except h11.LocalProtocolError:
            if self.connection.their_state is h11.ERROR or self.connection.our_state is h11.ERROR:
                return  # the connection was refused while the answer was on its way
            raise
        assert data is not None
        if isinstance(event, h11.Response) and _is_small(event):
            self._head = data  # the body, or that there is none, follows at once: one packet for both
        elif self._head or data:
            data, self._head = self._head + data, b""
            await self.send(RawData(data=data))

    async def _send_error_response(self, status_code: int) -> None:
        status, headers, body = raw_problem(status_code)
        await self._send_h11_event(h11.Response(status_code=status, headers=headers))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())

    async def _check_protocol(self, event: h11.Request) -> None:
        """Raises RemoteProtocolError: another protocol, a `Host` that is none, or a head that is too large."""
        if event.http_version not in HTTP_VERSIONS:
            raise h11.RemoteProtocolError("not HTTP/1.1", error_status_hint=UNREADABLE)
        for name, value in event.headers:
            if name == b"host" and value and not HOST.fullmatch(value.decode("latin-1")):
                raise h11.RemoteProtocolError("bad host", error_status_hint=UNREADABLE)
        size = len(event.target) + sum(len(name) + len(value) for name, value in event.headers)
        if size > limits.HEAD_BYTES_MAX:
            raise h11.RemoteProtocolError("large head", error_status_hint=HEAD_TOO_LARGE)

    async def _create_stream(self, request: h11.Request) -> None:
        self.stream = HTTPStream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode().upper(),
                raw_path=_origin_form(request.target),
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1


def _is_small(response: h11.Response) -> bool:
    return any(name == b"content-length" and int(value) <= limits.SEND_BYTES for name, value in response.headers)


def _origin_form(target: bytes) -> bytes:
    """The path and query of a request target; some proxies send the whole URL (RFC 9112, 3.2.2)."""
    if target.startswith((b"http://", b"https://")):
        _, slash, path = target.partition(b"://")[2].partition(b"/")
        return slash + path or b"/"
    return target
