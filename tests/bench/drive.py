"""A small HTTP load driver: many keep-alive connections in one thread, so that the driver is not what is measured.

A session is a generator that yields requests and is sent the answers; each runs on a connection of its own.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Generator, Sequence
from typing import NamedTuple, TypeAlias

RECEIVE_BYTES = 1 << 18
STALL_SECONDS_MAX = 90


class Answer(NamedTuple):
    """status, body, and the seconds from sending the request to the end of the answer."""

    status: int
    body: bytes
    seconds: float


Session: TypeAlias = Generator[bytes, Answer, None]


def request(method: str, path: str, body: bytes = b"") -> bytes:
    """An HTTP/1.1 request with a JSON body."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if body or method != "GET":
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


class _Connection:
    def __init__(self, port: int, session: Session) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.session = session
        self.buffer = b""
        self.sent_at = 0.0

    def start(self) -> None:
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


def drive(port: int, sessions: Sequence[Session], until: Sequence[Session] | None = None) -> float:
    """Run sessions side by side; returns the seconds until all those in `until` (default: all) are over.

    Raises:
        TimeoutError: nothing came for a long time.
    """
    connections = [_Connection(port, session) for session in sessions]
    waited_for = {id(session) for session in (sessions if until is None else until)}
    with selectors.DefaultSelector() as selector:
        started = time.perf_counter()
        for connection in connections:
            connection.start()
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        while waited_for:
            ready = selector.select(STALL_SECONDS_MAX)
            if not ready:
                raise TimeoutError("no answer for a long time")
            for key, _ in ready:
                connection = key.data
                if not connection.ready():
                    selector.unregister(connection.socket)
                    waited_for.discard(id(connection.session))
        seconds = time.perf_counter() - started
    for connection in connections:
        connection.socket.close()
    return seconds


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
