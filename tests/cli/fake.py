"""A scripted service: answers what a test told it to and keeps what it was asked.

For troubles a real one won't make.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


def problem(status: int, code: str, *, retryable: bool, **headers: str) -> Answer:
    return Answer(status, {"code": code, "message": f"it is {code}", "retryable": retryable}, headers)


Script = Callable[[Request], Answer]


class FakeService:
    """Routes are regular expressions over `METHOD /path`, tried newest first."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._routes: list[tuple[re.Pattern[str], Script]] = []
        self._asked = threading.Condition()
        self.url = ""

    def on(self, route: str, script: Script | Answer) -> None:
        self._routes.insert(0, (re.compile(route), script if callable(script) else lambda _: script))

    def answer(self, request: Request) -> Answer:
        with self._asked:
            self.requests.append(request)
            self._asked.notify_all()
        for pattern, script in self._routes:
            if pattern.fullmatch(f"{request.method} {request.path}"):
                return script(request)
        return problem(404, "ROUTE_NOT_FOUND", retryable=False)

    def asked(self, route: str) -> list[Request]:
        return [request for request in self.requests if re.fullmatch(route, f"{request.method} {request.path}")]

    def wait_for(self, route: str, count: int = 1) -> list[Request]:
        """Until it was asked that often; fails after 10 s."""
        with self._asked:
            if not self._asked.wait_for(lambda: len(self.asked(route)) >= count, timeout=10):
                raise AssertionError(f"{route} was asked {len(self.asked(route))} times, not {count}")
        return self.asked(route)


@contextmanager
def serving(fake: FakeService, port: int = 0) -> Iterator[FakeService]:
    connections: list[socket.socket] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = fake.answer(Request(self.command, path, query, headers, body))
            content = answer.body if isinstance(answer.body, bytes) else b""
            if answer.body is not None and not isinstance(answer.body, bytes):
                content = json.dumps(answer.body).encode()
            self.send_response_only(answer.status)
            usual = {"Date": self.date_time_string(), "Content-Type": "application/json"}
            for name, value in {**usual, "Content-Length": str(len(content)), **answer.headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815 - names given by the base class

        def setup(self) -> None:
            super().setup()
            connections.append(self.connection)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        for connection in connections:  # as when a process ends
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        thread.join(5)
