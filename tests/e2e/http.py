"""As much HTTP/1.1 client as these tests need: one kept connection, every failure the same exception."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import h11
import orjson
import trio

READ_BYTES = 65_536
ANSWER_SECONDS = 40.0


class NoAnswer(Exception):
    """Nobody knows what became of the request: the connection failed before the whole answer was here."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body) if self.body else None


class Client:
    """One connection at a time, kept as long as the service keeps it."""

    def __init__(self, host: str, port: int, headers: Mapping[str, str] | None = None) -> None:
        self._address = host, port
        self._headers = dict(headers or {})
        self._stream: trio.SocketStream | None = None
        self._http = h11.Connection(h11.CLIENT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def local_port(self) -> int | None:
        """Our end of the connection, None while there is none."""
        return None if self._stream is None else self._stream.socket.getsockname()[1]

    def close(self) -> None:
        """Close the connection, also in the middle of a request."""
        if self._stream is not None:
            self._stream.socket.close()
            self._stream = None

    async def call(self, method: str, path: str, data: object = None, **headers: str) -> Answer:
        """One request; bytes are sent as they are, anything else as JSON. Raises NoAnswer."""
        body = data if isinstance(data, bytes) else b"" if data is None else orjson.dumps(data)
        try:
            with trio.fail_after(ANSWER_SECONDS):
                return await self._call(method, path, body, headers)
        except (OSError, trio.BrokenResourceError, trio.TooSlowError, h11.ProtocolError) as error:
            self.close()
            raise NoAnswer(f"{method} {path}: {error!r}") from error
        except trio.Cancelled:
            self.close()
            raise

    async def send(self, method: str, path: str, data: object = None) -> None:
        """Send a request whole and do not read the answer."""
        await self._send(method, path, b"" if data is None else orjson.dumps(data), {})

    async def answer(self) -> Answer:
        """The answer to what was sent with `send`."""
        assert self._stream is not None
        return await self._receive(self._stream)

    async def _send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> trio.SocketStream:
        if self._stream is None:
            self._stream = await trio.open_tcp_stream(*self._address)
            self._http = h11.Connection(h11.CLIENT)
        fields = {"Host": f"{self._address[0]}:{self._address[1]}", "Content-Length": str(len(body))}
        if body:
            fields["Content-Type"] = "application/json"
        request = h11.Request(method=method, target=path, headers=[*{**fields, **self._headers, **headers}.items()])
        parts = [self._http.send(request), self._http.send(h11.Data(data=body)), self._http.send(h11.EndOfMessage())]
        await self._stream.send_all(b"".join(part for part in parts if part))
        return self._stream

    async def _call(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        return await self._receive(await self._send(method, path, body, headers))

    async def _receive(self, stream: trio.SocketStream) -> Answer:
        answer: h11.Response | None = None
        received = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await stream.receive_some(READ_BYTES))
            elif isinstance(event, h11.Response):
                answer = event
            elif isinstance(event, h11.Data):
                received += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                raise h11.RemoteProtocolError("closed without an answer")
        assert answer is not None
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        else:
            self.close()
        fields = {name.decode(): value.decode() for name, value in answer.headers}
        return Answer(answer.status_code, fields, bytes(received))


def create_body(target: str, **more: object) -> dict[str, object]:
    """A create request of the deployment `e2e`."""
    params = {"mode": "inline", "inlineBase64": "e30="}
    return {"deploymentId": "e2e", "command": "do", "params": params, "targetResourceId": target, **more}


def lease_body(target: str | None, **more: object) -> dict[str, object]:
    """A lease request, of the current generation if there is a target."""
    body: dict[str, object] = {"deploymentId": "e2e", **more}
    if target is not None:
        body["target"] = {"resourceId": target, "resourceType": "container"}
    return body


def submit_path(lease: Mapping[str, Any]) -> str:
    """The path and query that answer a lease, as a client resolves them."""
    url = urlsplit(urljoin("http://x/commands/leases", lease["envelope"]["responseHandling"]["submitResponseUrl"]))
    return f"{url.path}?{url.query}"


SUCCESS = {"status": "success", "response": {"mode": "inline", "inlineBase64": "e30="}}
