"""How a request reaches a handler: in one task, with a clean path and the whole body.

Quart-Trio opens a nursery with two tasks for each request, to notice a client that leaves. Here a request is handled
and answered in the task that hypercorn made for it; only a handler that waits for long watches for the client's
leaving, with `until_disconnected`. The body is read when a handler asks for it, after the caller's rights are known.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from quart import Request
from quart.utils import encode_headers
from quart_trio.asgi import TrioASGIHTTPConnection

from arc_es.domain import limits
from arc_es.http.problems import Refusal
from arc_es.ports import BodyStoreError, Overloaded

if TYPE_CHECKING:
    from arc_es.http.app import ArcApp

T = TypeVar("T")
SETTLE_SECONDS_MAX: Final = 10.0
"""How long what follows an answer, or the failure to send it, may take."""
_SLASHES: Final = re.compile(r"//+")

log = logging.getLogger("arc_es.http")


class ClientGone(Exception):
    """The client closed the connection before it was answered; nobody reads an answer."""


class Presence:
    """Whether the client of a request is still there, as far as is known."""

    def __init__(self) -> None:
        self.is_gone = False
        self._call: Callable[[], None] | None = None

    @property
    def is_watched(self) -> bool:
        """Whether somebody waits for the client's leaving, and for nothing else that comes from it."""
        return self._call is not None

    def left(self) -> None:
        """The client has left."""
        self.is_gone = True
        if self._call is not None:
            self._call()

    def when_gone(self, call: Callable[[], None]) -> None:
        """Have `call` called when the client leaves, or at once if it has."""
        self._call = call
        if self.is_gone:
            call()


class BodyBudget:
    """How many bytes of request bodies may be in memory at the same time, of all requests together."""

    def __init__(self, bytes_max: int) -> None:
        self._left = bytes_max
        self._for_json = bytes_max // 4

    def take(self, size: int, *, is_upload: bool = False) -> None:
        """Reserve bytes; uploads leave a quarter to JSON. Raises Overloaded when there are not so many left."""
        if size > self._left - (self._for_json if is_upload else 0):
            raise Overloaded("Too many request bodies are under way")
        self._left -= size

    def give_back(self, size: int) -> None:
        """Return what was reserved."""
        self._left += size


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """How large a JSON body may be, and one of a batch, in bytes; how long it may take, and what all bodies share."""

    bytes_max: int
    batch_bytes_max: int
    seconds_max: float
    budget: BodyBudget


class RequestBody:
    """The body of one request, read once and only if a handler asks for it. What it reserved is held until `close`."""

    def __init__(self, receive: ASGIReceiveCallable, limits: BodyLimits, announced: int | None) -> None:
        self._receive = receive
        self._limits = limits
        self._announced = announced
        self._reserved = 0
        self._ended = False

    def _reserve(self, size: int, *, is_upload: bool = False) -> None:
        if size > self._reserved:
            self._limits.budget.take(size - self._reserved, is_upload=is_upload)
        else:
            self._limits.budget.give_back(self._reserved - size)
        self._reserved = size

    def close(self) -> None:
        """Give back what was reserved; the request has been answered."""
        self._reserve(0)

    async def whole(self, *, is_batch: bool = False) -> bytes:
        """All of it; errors as `body_of`."""
        bounds = self._limits
        bytes_max = bounds.batch_bytes_max if is_batch else bounds.bytes_max
        if self._announced is not None and self._announced > bytes_max:
            raise too_large(bytes_max)
        self._reserve(bytes_max if self._announced is None else self._announced)
        chunks: list[bytes] = []
        size = 0
        with trio.move_on_after(bounds.seconds_max):
            while True:
                chunk, more = await self._next()
                if chunk:
                    chunks.append(chunk)
                    size += len(chunk)
                    if size > bytes_max:
                        raise too_large(bytes_max)
                if not more:
                    self._reserve(size)
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        raise self._too_slow()

    async def chunks(self, bytes_max: int) -> AsyncGenerator[bytes, None]:
        """Piece by piece; errors as `body_chunks`."""
        if self._announced is not None and self._announced > bytes_max:
            raise too_large(bytes_max)
        self._reserve(
            min(limits.UPLOAD_BUFFER_BYTES, bytes_max if self._announced is None else self._announced), is_upload=True
        )
        size, waited, more = 0, 0.0, True
        while more:
            began = trio.current_time()
            allowed = limits.TRANSFER_GRACE_SECONDS + size / limits.TRANSFER_BYTES_PER_SECOND_MIN
            with trio.move_on_at(began + min(allowed - waited, limits.TRANSFER_STALL_SECONDS_MAX)) as patience:
                chunk, more = await self._next()
            if patience.cancelled_caught:
                raise self._too_slow()
            waited += trio.current_time() - began  # and not the time that the reader of the pieces took
            size += len(chunk)
            if size > bytes_max:
                raise too_large(bytes_max)
            if chunk:
                yield chunk

    def _too_slow(self) -> Refusal:
        self._ended = True  # its client has had enough time
        return Refusal("REQUEST_TIMEOUT", "The body came too slowly")

    async def skip_rest(self) -> None:
        """Read to its end a small body that nobody asked for, so that its connection can serve the next request."""
        if self._ended or not 0 < (self._announced or 0) <= limits.SKIPPED_BYTES_MAX:
            return
        with trio.move_on_after(limits.SKIPPED_SECONDS_MAX):
            while not self._ended:
                await self._next()

    def leave_rest(self) -> None:
        """Nobody reads on: what still comes is thrown away as it comes."""
        self._ended = True

    async def _next(self) -> tuple[bytes, bool]:
        """A piece, and whether more follow. Raises ClientGone."""
        message = cast("dict[str, Any]", await self._receive())
        if message["type"] == "http.disconnect":
            raise ClientGone
        more = message.get("more_body", False)
        self._ended = not more
        return message.get("body", b""), more


class Connection(TrioASGIHTTPConnection):
    """One request and its answer."""

    def __init__(self, app: ArcApp, scope: HTTPScope) -> None:
        super().__init__(app, _cleaned(scope))
        self._arc = app

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Handle, answer."""
        request = self._create_request_from_scope(send)
        extras = cast("dict[str, Any]", self.scope)
        extras["arc.headers"] = dict(self.scope["headers"])
        body = extras["arc.body"] = RequestBody(receive, self._arc.body_limits, request.content_length)
        is_sent = False
        try:
            response = await self._arc.handle_request(request)
            await body.skip_rest()
            if "arc.settle" in extras and extras["arc.client"].is_gone:
                return  # half closed counts as gone: who sends nothing more can hardly be told from who has left
            await self._send_response(send, response)  # bounded in time by the stream below
            is_sent = True
        except ClientGone:
            return
        finally:
            body.close()
            if "arc.settle" in extras:
                with trio.move_on_after(SETTLE_SECONDS_MAX, shield=True):
                    await extras["arc.settle"](is_sent)

    async def _send_response(self, send: ASGISendCallable, response: Any) -> None:
        """Send an answer, no faster than the client takes it.

        Raises:
            ClientGone: it does not take it.
        """
        head = {"type": "http.response.start", "status": response.status_code}
        async with response.response as pieces:  # closed also if not even the head can be sent
            await send(cast("Any", {**head, "headers": encode_headers(response.headers)}))
            if self.scope["method"] != "HEAD":
                try:
                    async for piece in pieces:
                        await send(cast("Any", {"type": "http.response.body", "body": piece, "more_body": True}))
                except BodyStoreError as error:
                    log.warning("An answer was cut off, as its body could not be read on: %s", error)
                    return  # the client sees that less came than was announced
        await send(cast("Any", {"type": "http.response.body", "body": b"", "more_body": False}))


def too_large(bytes_max: int) -> Refusal:
    """The refusal of a body above its limit."""
    return Refusal("PAYLOAD_TOO_LARGE", f"The body is larger than {bytes_max} bytes")


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


def when_sent(request: Request, settle: Callable[[bool], Awaitable[None]]) -> None:
    """Have `settle` called once it is known whether the answer was sent whole. A client that has left gets none."""
    cast("dict[str, Any]", request.scope)["arc.settle"] = settle


def ended_in_slash(request: Request) -> bool:
    """Whether the path of the request ended in a slash."""
    return cast("bool", request.scope["arc.slash"])  # type: ignore[typeddict-item]


def _incoming(request: Request) -> RequestBody:
    return cast("RequestBody", request.scope["arc.body"])  # type: ignore[typeddict-item]


async def body_of(request: Request, *, is_batch: bool = False) -> bytes:
    """The whole request body, of a size for JSON, or for a batch of it.

    Raises:
        Refusal: 408 or 413, it came too slowly or was too large.
        Overloaded: too many bodies are under way; nothing was read.
        ClientGone: the client left before it was complete.
    """
    return await _incoming(request).whole(is_batch=is_batch)


def body_chunks(request: Request, bytes_max: int) -> AsyncGenerator[bytes, None]:
    """The request body piece by piece (at most 64 KiB each) as it arrives; nothing is read ahead of the caller.

    The client must send `TRANSFER_BYTES_PER_SECOND_MIN` on average, after `TRANSFER_GRACE_SECONDS`; the time that the
    caller takes between two pieces does not count.

    Raises:
        Refusal: 413, it is larger than `bytes_max`, said before the first piece if the client announced its length;
            408, it came too slowly.
        Overloaded: too many bodies are under way; nothing was read.
        ClientGone: the client left before it was complete.
    """
    return _incoming(request).chunks(bytes_max)


async def until_disconnected(request: Request, wait: Callable[[], Awaitable[T]]) -> T:
    """The result of `wait`, which is cancelled when the client leaves.

    Raises:
        ClientGone: it left.
        What `wait` raises.
    """
    _incoming(request).leave_rest()
    with trio.CancelScope() as scope:
        cast("Presence", request.scope["arc.client"]).when_gone(scope.cancel)  # type: ignore[typeddict-item]
        return await wait()
    raise ClientGone
