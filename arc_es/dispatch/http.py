"""Pushing over HTTP (`arc.v1` 4.4 Push), to workers that may be slow, broken or hostile.

This is httpx2's transport without its client: a client would follow cookies, read the environment and write every URL
to the log. A connection is kept only if the whole answer was short and came soon.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import httpx2
import trio

from arc_es.ports import PushOutcome

ACCEPTED: Final = 202
KEEP_ALIVE_SECONDS: Final = 4.0
"""Shorter than the 5 s after which common servers close: a push that meets a closing connection is unclear."""
ANSWER_BYTES_MAX: Final = 65_536
ANSWER_SECONDS_MAX: Final = 1.0
"""So much of an answer's body is read, for the sake of the connection; nobody looks at it."""

_NO_TIMEOUTS: Final = dict.fromkeys(("connect", "read", "write", "pool"))
_FIRST_PRINTABLE, _LAST_PRINTABLE = "!", "~"


@asynccontextmanager
async def open_http_pusher(connections_max: int) -> AsyncGenerator[HttpPusher, None]:
    """A pusher that keeps up to so many idle connections."""
    # Below WARNING, httpcore2 tells hosts and header lines; those may be secrets.
    logging.getLogger("httpcore2").setLevel(logging.WARNING)
    limits = httpx2.Limits(
        max_connections=None, max_keepalive_connections=connections_max, keepalive_expiry=KEEP_ALIVE_SECONDS
    )
    async with httpx2.AsyncHTTPTransport(trust_env=False, limits=limits) as transport:
        yield HttpPusher(transport)


class HttpPusher:
    """Sends envelopes as POST requests."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self._transport = transport

    async def push(self, url: str, token: str | None, envelope: bytes) -> PushOutcome:
        """See `ports.Pusher`."""
        try:
            request = _request(url, token, envelope)
        except (httpx2.InvalidURL, ValueError):
            return PushOutcome("rejected", "the request cannot be built")
        try:
            response = await self._transport.handle_async_request(request)
        except (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, ValueError, OverflowError):
            return PushOutcome("rejected", "the request cannot be built")
        except httpx2.ConnectError:
            return PushOutcome("rejected", "no connection")
        except httpx2.HTTPError as error:
            return PushOutcome("unclear", f"no answer: {type(error).__name__}")
        try:
            await _read_short(response)
        finally:
            await response.aclose()
        if response.status_code == ACCEPTED:
            return PushOutcome("accepted")
        return PushOutcome("rejected", f"answered {response.status_code}")


def _request(url: str, token: str | None, envelope: bytes) -> httpx2.Request:
    """The request. Raises InvalidURL, ValueError."""
    headers = {b"Content-Type": b"application/json"}
    if token is not None:
        headers[b"Authorization"] = b"Bearer " + token.encode()
    extensions: dict[str, object] = {"timeout": _NO_TIMEOUTS}
    target = _target(url)
    if target is not None:
        extensions["target"] = target
    return httpx2.Request("POST", url, headers=headers, content=envelope, extensions=extensions)


def _target(url: str) -> bytes | None:
    """Path and query exactly as configured; None for what HTTP cannot carry as it is, so that it gets escaped."""
    _, _, rest = url.partition("#")[0].partition("://")
    starts = [at for at in (rest.find("/"), rest.find("?")) if at >= 0]
    target = rest[min(starts) :] if starts else ""
    if not target.startswith("/"):
        target = f"/{target}"
    if all(_FIRST_PRINTABLE <= char <= _LAST_PRINTABLE for char in target):
        return target.encode()
    return None


async def _read_short(response: httpx2.Response) -> None:
    """Read a short body to its end, so that the connection can be used again. The status is known, errors are late."""
    size = 0
    with trio.move_on_after(ANSWER_SECONDS_MAX) as scope:
        try:
            async for chunk in response.aiter_raw():
                size += len(chunk)
                if size > ANSWER_BYTES_MAX:
                    scope.cancel()
        except httpx2.HTTPError:
            return
