"""A small HTTP load driver: many keep-alive connections in one thread, so that the driver is not what is measured.

A session is a generator that yields requests and is sent the answers; each runs on a connection of its own.
"""

from __future__ import annotations

import math
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

RECEIVE_BYTES: Final = 1 << 18
STALL_SECONDS_MAX: Final = 90
TICK_SECONDS: Final = 0.25


class Answer(NamedTuple):
    """status, body, and the seconds from sending the request to the end of the answer."""

    status: int
    body: bytes
    seconds: float


Session: TypeAlias = Generator[bytes, Answer, None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where requests go, over plain HTTP. prefix: of the path, without `/v1`."""

    host: str
    port: int
    prefix: str = ""
    token: str | None = None

    @classmethod
    def of(cls, url: str, token: str | None = None) -> Place:
        """From a URL. Raises ValueError if it is not one of plain HTTP."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url!r} is no http URL; TLS would be measured, not the service")
        return cls(parts.hostname, parts.port or 80, parts.path.rstrip("/").removesuffix("/v1"), token)

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """An HTTP/1.1 request with a JSON body. The path begins with `/v1`."""
        head = f"{method} {self.prefix}{path} HTTP/1.1\r\nHost: {self.host}\r\n"
        if self.token is not None:
            head += f"Authorization: Bearer {self.token}\r\n"
        if body or method != "GET":
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"\r\n" + body


def request(method: str, path: str, body: bytes = b"") -> bytes:
    """An HTTP/1.1 request with a JSON body, to an open service of this machine."""
    return Place("127.0.0.1", 0).request(method, path, body)


class _Connection:
    def __init__(self, host: str, port: int, session: Session) -> None:
        self._address = (host, port)
        self.socket = socket.socket()
        self.session = session
        self.buffer = b""
        self.sent_at = 0.0

    def start(self) -> None:
        """Connect and send the first request, at once: a server does not wait long for it."""
        self.socket.close()
        self.socket = socket.create_connection(self._address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._send(next(self.session))

    def _send(self, data: bytes) -> None:
        self.buffer = b""
        self.sent_at = time.perf_counter()
        self.socket.sendall(data)

    def ready(self) -> bool:
        """Take what has come; False when the session is over."""
        chunk = self.socket.recv(RECEIVE_BYTES)
        if not chunk:
            raise ConnectionError("the server closed a connection")
        self.buffer += chunk
        head, separator, body = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return True
        length_at = head.lower().find(b"content-length:")
        end = head.find(b"\r", length_at)
        length = int(head[length_at + 15 : end if end > 0 else None])
        if len(body) < length:
            return True
        answer = Answer(int(head[9:12]), body, time.perf_counter() - self.sent_at)
        try:
            self._send(self.session.send(answer))
        except StopIteration:
            return False
        return True


def drive(
    where: int | Place,
    sessions: Sequence[Session],
    until: Sequence[Session] | None = None,
    on_tick: Callable[[float], None] | None = None,
    starts_per_second: float = math.inf,
) -> float:
    """Run sessions side by side; returns the seconds until all those in `until` (default: all) are over.

    where: a port of this machine, or elsewhere. on_tick: told the seconds so far, a few times each second.

    Raises:
        TimeoutError: nothing came for a long time.
    """
    host, port = ("127.0.0.1", where) if isinstance(where, int) else (where.host, where.port)
    connections = [_Connection(host, port, session) for session in sessions]
    waited_for = {id(session) for session in (sessions if until is None else until)}
    try:
        return _run(connections, waited_for, on_tick or (lambda _: None), starts_per_second)
    finally:
        for connection in connections:
            connection.socket.close()


def _run(
    connections: Sequence[_Connection],
    waited_for: set[int],
    on_tick: Callable[[float], None],
    starts_per_second: float,
) -> float:
    with selectors.DefaultSelector() as selector:
        started = heard_at = ticked_at = time.perf_counter()
        starting = deque(connections)
        while waited_for:
            due = (time.perf_counter() - started) * starts_per_second
            while starting and len(connections) - len(starting) <= due:
                connection = starting.popleft()
                connection.start()
                selector.register(connection.socket, selectors.EVENT_READ, connection)
            patience = 1 / starts_per_second if starting else TICK_SECONDS
            ready, now = selector.select(patience), time.perf_counter()
            heard_at = now if ready else heard_at
            if now - heard_at > STALL_SECONDS_MAX:
                raise TimeoutError("no answer for a long time")
            if now - ticked_at >= TICK_SECONDS:
                ticked_at = now
                on_tick(now - started)
            for key, _ in ready:
                connection = key.data
                if not connection.ready():
                    selector.unregister(connection.socket)
                    waited_for.discard(id(connection.session))
        return time.perf_counter() - started


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
