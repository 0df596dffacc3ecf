"""How a request reaches a handler: in one task, with a clean path and the whole body.

Quart-Trio opens a nursery with two tasks for each request, to notice a client that leaves. Here a request is handled
and answered in the task that hypercorn made for it; only a handler that waits for long watches for the client's
leaving, with `until_disconnected`. The body is read when a handler asks for it, after the caller's rights are known.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from quart import Request
from quart_trio.asgi import TrioASGIHTTPConnection

from arc_es.http.problems import Refusal

if TYPE_CHECKING:
    from arc_es.http.app import ArcApp

T = TypeVar("T")
_SLASHES: Final = re.compile(r"//+")


class ClientGone(Exception):
    """The client closed the connection before it was answered; nobody reads an answer."""


class Connection(TrioASGIHTTPConnection):
    """One request and its answer."""

    def __init__(self, app: ArcApp, scope: HTTPScope) -> None:
        super().__init__(app, _cleaned(scope))
        self._arc = app

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Handle, answer."""
        request = self._create_request_from_scope(send)
        extras = cast("dict[str, Any]", self.scope)
        extras["arc.receive"] = receive
        extras["arc.headers"] = dict(self.scope["headers"])
        extras["arc.limits"] = self._arc.body_limits
        try:
            response = await self._arc.handle_request(request)
        except ClientGone:
            return
        await self._send_response(send, response)  # bounded in time by the stream below


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """How large a JSON body may be, in bytes, and how long it may take to arrive."""

    bytes_max: int
    seconds_max: float


def _cleaned(scope: HTTPScope) -> HTTPScope:
    """The scope with the path that is routed: no `/v1`, no repeated slashes, none at the end (`arc.v1` 1.1)."""
    path = scope["path"]
    extras = cast("dict[str, Any]", scope)
    if "//" in path:
        path = _SLASHES.sub("/", path)
    prefix = ""
    if path.startswith("/v1/"):
        prefix, path = "/v1", path[3:]
    extras["arc.prefix"] = prefix
    extras["arc.slash"] = len(path) > 1 and path.endswith("/")
    if extras["arc.slash"]:
        path = path[:-1]
    scope["path"] = path or "/"
    return scope


def prefix_of(request: Request) -> str:
    """`/v1` or nothing: what the request had in front of its path."""
    return cast("str", request.scope["arc.prefix"])  # type: ignore[typeddict-item]


def header_of(request: Request, name: bytes) -> str | None:
    """A header by its lower-case name; asking werkzeug for one that is absent costs an exception."""
    value: bytes | None = request.scope["arc.headers"].get(name)  # type: ignore[typeddict-item]
    return None if value is None else value.decode("latin-1")


def ended_in_slash(request: Request) -> bool:
    """Whether the path of the request ended in a slash."""
    return cast("bool", request.scope["arc.slash"])  # type: ignore[typeddict-item]


async def body_of(request: Request) -> bytes:
    """The whole request body.

    Raises:
        Refusal: 408 or 413, it came too slowly or was too large.
        ClientGone: the client left before it was complete.
    """
    extras = cast("dict[str, Any]", request.scope)
    limits: BodyLimits = extras["arc.limits"]
    receive: ASGIReceiveCallable = extras["arc.receive"]
    if (request.content_length or 0) > limits.bytes_max:
        raise Refusal("PAYLOAD_TOO_LARGE", f"The body is larger than {limits.bytes_max} bytes")
    chunks: list[bytes] = []
    size = 0
    with trio.move_on_after(limits.seconds_max):
        while True:
            message = cast("dict[str, Any]", await receive())
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk = message.get("body", b"")
            if chunk:
                chunks.append(chunk)
                size += len(chunk)
                if size > limits.bytes_max:
                    raise Refusal("PAYLOAD_TOO_LARGE", f"The body is larger than {limits.bytes_max} bytes")
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    raise Refusal("REQUEST_TIMEOUT", "The body came too slowly")


async def until_disconnected(request: Request, wait: Callable[[], Awaitable[T]]) -> T:
    """The result of `wait`, which is cancelled when the client leaves.

    Raises:
        ClientGone: it left.
        What `wait` raises, not in a group.
    """
    receive = cast("ASGIReceiveCallable", request.scope["arc.receive"])  # type: ignore[typeddict-item]
    results: list[T] = []
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        try:
            results.append(await wait())
        except Exception as error:  # noqa: BLE001 - raised again below, so that the nursery does not wrap it
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if not results:
        raise ClientGone
    return results[0]
