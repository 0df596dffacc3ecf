"""One request of the client: URLs, headers, time limits, pools, and what an answer outside 2xx means."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final
from urllib.parse import quote

import httpx2
import orjson

from arc_es.client.answers import error_of, object_of, origin, reason_of
from arc_es.client.errors import ArcError, BadAnswer, ServerUnreachable, UrlRefused
from arc_es.client.files import FileBody
from arc_es.client.lease import JsonObject

_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_ANSWER_SECONDS_MAX: Final = 30.0
_CONNECT_SECONDS_MAX: Final = 5.0
_CONNECTIONS_MAX: Final = 100
_FORBIDDEN: Final = 403
_LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")


def api_base(url: str) -> httpx2.URL:
    """The URL in front of `/commands`: with `/v1`, without a trailing slash, its query kept.

    Raises:
        ValueError: it is no http or https URL.
    """
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ValueError(f"{url!r} is not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{url!r} is not a URL such as http://127.0.0.1:8420")
    path = parsed.path.rstrip("/")
    return parsed.copy_with(path=path if path.endswith("/v1") else f"{path}/v1", fragment=None)


class Transport:
    """Sends single requests to one service. Nothing of the HTTP library leaves this package."""

    def __init__(
        self, url: str, token: str | None, user_agent: str, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        """Nothing is sent yet. transport: instead of the network, for services in this process.

        Raises:
            ValueError: the URL is not one, or the token cannot be sent.
        """
        self._base = api_base(url)
        if token and not _TOKEN.fullmatch(token):
            raise ValueError("the token has blanks or characters that a header cannot carry")
        self._auth = {"Authorization": f"Bearer {token}"} if token else {}
        self._user_agent = user_agent
        self._transport = transport
        self._by_scheme: dict[str, httpx2.AsyncClient] = {}
        self._closing = AsyncExitStack()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._closing.aclose()

    async def json(
        self,
        method: str,
        path: str,
        request: JsonObject | None = None,
        *,
        query: Mapping[str, str | Sequence[str]] | None = None,
        wait_seconds: int = 0,
        needs: tuple[str, ...] = (),
    ) -> JsonObject:
        content = None if request is None else orjson.dumps(request)
        url = self.url(path, query or {})
        return object_of(await self.send(method, url, content=content, wait_seconds=wait_seconds), *needs)

    @asynccontextmanager
    async def exchange_presigned(
        self, request: Mapping[str, Any], content: bytes | FileBody | None = None
    ) -> AsyncGenerator[httpx2.Response, None]:
        """Use a signed storage URL. Raises UrlRefused also when another store than the service's own says 403."""
        backend = request["backend"]
        if backend.get("type") != "http":
            raise BadAnswer(f"Storage of type {backend.get('type')!r} is not supported", status=200)
        url = httpx2.URL(backend["url"])
        headers = {"User-Agent": self._user_agent, **backend["headers"]}
        try:
            async with self.exchange(backend["method"], url, content=content, headers=headers) as response:
                yield response
        except ArcError as error:
            if error.status == _FORBIDDEN:
                raise UrlRefused(origin(url)) from error
            raise

    async def send(
        self,
        method: str,
        url: httpx2.URL,
        *,
        content: bytes | None = None,
        wait_seconds: int = 0,
        signed: bool = False,
    ) -> httpx2.Response:
        headers = {"User-Agent": self._user_agent} if signed else self.headers()
        if content is not None:
            headers["Content-Type"] = "application/json"
        async with self.exchange(method, url, content=content, headers=headers, wait_seconds=wait_seconds) as response:
            await response.aread()
            return response

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        url: httpx2.URL,
        *,
        content: bytes | FileBody | None,
        headers: dict[str, str],
        wait_seconds: int = 0,
    ) -> AsyncGenerator[httpx2.Response, None]:
        """One request; its answer is good, and its body not read yet."""
        timeout = httpx2.Timeout(_ANSWER_SECONDS_MAX + wait_seconds, connect=_CONNECT_SECONDS_MAX)
        sent: bytes | AsyncGenerator[bytes, None] | None
        if isinstance(content, FileBody):
            headers, sent = {**headers, "Content-Length": str(content.size)}, content.chunks()
        else:
            sent = content
        try:
            http = await self._http(url.scheme)
            async with http.stream(method, url, content=sent, headers=headers, timeout=timeout) as response:
                if not response.is_success:
                    await response.aread()
                    raise error_of(response)
                yield response
        except httpx2.TransportError as error:
            connected = not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
            message = f"no answer from {origin(url)}: {reason_of(error)}"
            raise ServerUnreachable(message, connected=connected) from error

    def headers(self) -> dict[str, str]:
        return {"User-Agent": self._user_agent, "Accept": "application/json", **self._auth}

    async def _http(self, scheme: str) -> httpx2.AsyncClient:
        """One pool a scheme: loading the trusted certificates takes 40 ms to 300 ms, which plain http never needs."""
        if (http := self._by_scheme.get(scheme)) is None:
            trust_nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            http = httpx2.AsyncClient(
                transport=self._transport,
                verify=True if scheme == "https" else trust_nobody,
                mounts={f"all://{host}": None for host in _LOOPBACK},  # a proxy cannot reach our loopback
                limits=httpx2.Limits(max_connections=_CONNECTIONS_MAX),
            )
            self._by_scheme[scheme] = http
            await self._closing.enter_async_context(http)
        return http

    def url(self, path: str, query: Mapping[str, str | Sequence[str]]) -> httpx2.URL:
        prefix, mark, kept = self._base.raw_path.partition(b"?")
        url = self._base.copy_with(raw_path=prefix + path.encode() + mark + kept)
        return url.copy_merge_params(query) if query else url


def segment(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")
