"""`ArcClient`: one method for each call of the service, no retries of its own (see `retry.py`)."""

from __future__ import annotations

import base64
import binascii
import re
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, BinaryIO, Final, Self
from urllib.parse import quote

import httpx2
import orjson

from arc_es.client.answers import date_of, error_of, object_of, origin, reason_of
from arc_es.client.errors import ArcError, BadAnswer, ServerUnreachable, UrlRefused
from arc_es.client.feed import EVENT_STREAM, Decision, decisions_of
from arc_es.client.files import FileBody, Sink
from arc_es.client.lease import JsonObject, Lease, parse_lease
from arc_es.domain.ids import Target

INLINE_PARAMS_BYTES_MAX: Final = 150_000
"""Larger params are uploaded (`arc.v1` section 0): a request may have 2 MiB, and they would be stored apart anyway."""
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_COMMAND: Final = ("commandId", "state")
_ANSWER_SECONDS_MAX: Final = 30.0
_CONNECT_SECONDS_MAX: Final = 5.0
_SEAL_SECONDS_MAX: Final = 60
_AS_OF_SECONDS_MAX: Final = 120
"""More than an answer takes otherwise: a service may have to read a large upload again."""
_ASK_AGAIN: Final = ("URL_REFUSED", "CONFLICT", "INVALID_STATE_TRANSITION")
"""Codes of an upload that came too late: its URL has expired, or another call with the same key was first."""
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


class ArcClient:
    """A connection to one service, used as an async context manager.

    Every method raises `ArcError` when the service refuses, `ServerUnreachable` when there is no answer, `BadAnswer`
    when the answer is none of this service's. Methods have no time-out parameter: open a cancel scope.
    """

    def __init__(self, url: str, token: str | None = None, *, user_agent: str = "arc-es-client") -> None:
        """Nothing is sent yet.

        Args:
            url: of the service, with or without `/v1`.
            token: bearer token; never sent to signed URLs.
            user_agent: recorded in the events that this client causes.

        Raises:
            ValueError: the URL is not one, or the token cannot be sent.
        """
        self._base = api_base(url)
        if token and not _TOKEN.fullmatch(token):
            raise ValueError("the token has blanks or characters that a header cannot carry")
        self._auth = {"Authorization": f"Bearer {token}"} if token else {}
        self._user_agent = user_agent
        self._by_scheme: dict[str, httpx2.AsyncClient] = {}
        self._closing = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Ready to use."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        await self._closing.aclose()

    # --- the sender's side

    async def create(
        self,
        deployment_id: str,
        command: str,
        params: bytes | FileBody = b"{}",
        *,
        target_id: str | None = None,
        deadline: datetime | None = None,
        idempotency_key: str | None = None,
        **extra: Any,
    ) -> JsonObject:
        """Create a command, uploading large params; the answer of the last step (`commandId`, `state`).

        Safe to repeat only with an idempotency key; an upload that was broken off is then made again. `extra` are
        further request fields, by their wire names.
        """
        request: JsonObject = {
            "deploymentId": deployment_id,
            "command": command,
            "params": _params_spec(params),
            **extra,
        }
        if target_id is not None:
            request["targetResourceId"] = target_id
        if deadline is not None:
            request["deadline"] = deadline.astimezone(UTC).isoformat().replace("+00:00", "Z")
        if idempotency_key is not None:
            request["idempotencyKey"] = idempotency_key
        created = await self._json("POST", "/commands", request, needs=_COMMAND)
        if created.get("next") != "upload":
            return created
        try:
            return await self._upload_params(created, params)
        except ArcError as error:
            if error.code not in _ASK_AGAIN or idempotency_key is None:
                raise
        created = await self._json("POST", "/commands", request, needs=_COMMAND)
        return await self._upload_params(created, params) if created.get("next") == "upload" else created

    async def _upload_params(self, created: JsonObject, params: bytes | FileBody) -> JsonObject:
        await self.put_object(created["storageUpload"]["putRequest"], params)
        path = f"/commands/{_segment(created['commandId'])}/upload-complete"
        size = {"size": _size_of(params)}
        return await self._json("POST", path, size, wait_seconds=_SEAL_SECONDS_MAX, needs=_COMMAND)

    async def status(self, command_id: str, *, wait_seconds: int = 0) -> JsonObject:
        """The status of a command; with `wait_seconds` (to 60) when it is terminal, or at the end of that time."""
        query = {"waitSeconds": str(wait_seconds)} if wait_seconds else {}
        path = f"/commands/{_segment(command_id)}"
        return await self._json("GET", path, query=query, wait_seconds=wait_seconds, needs=_COMMAND)

    async def payload(self, command_id: str) -> JsonObject:
        """Params and response of a command."""
        return await self._json("GET", f"/commands/{_segment(command_id)}/payload")

    async def find(self, filters: Mapping[str, str | Sequence[str]]) -> JsonObject:
        """A page of commands: `{"commands", "nextCursor"?, "appliedSeq"}`. filters: the query of `GET /commands`."""
        return await self._json("GET", "/commands", query=filters, needs=("commands",))

    async def events(self, command_id: str) -> JsonObject:
        """The whole history of a command: `{"events": [...]}`."""
        return await self._json("GET", f"/commands/{_segment(command_id)}/events", needs=("events",))

    async def explain(self, command_id: str) -> JsonObject:
        """Why a command is where it is: `{"state", "because", "facts"}`."""
        return await self._json("GET", f"/commands/{_segment(command_id)}/explain", needs=("state", "because", "facts"))

    async def events_after(self, after: int, limit: int, filters: Mapping[str, str]) -> JsonObject:
        """A page of the feed: `{"events", "next", "end"}`. filters: `deploymentId`, `type`, `commandId`."""
        query = {"after": str(after), "limit": str(limit), **filters}
        return await self._json("GET", "/events", query=query, needs=("events", "next", "end"))

    @asynccontextmanager
    async def feed(
        self, after: int, filters: Mapping[str, str]
    ) -> AsyncGenerator[AsyncGenerator[Decision, None], None]:
        """The live feed of all events after a position, decision by decision; it ends, and may break, at any time."""
        url = self._url("/events", {"after": str(after), **filters})
        headers = {**self._headers(), "Accept": EVENT_STREAM}
        async with self._exchange("GET", url, content=None, headers=headers) as response:
            yield decisions_of(response.aiter_lines())

    # --- the receiver's side

    async def lease(
        self,
        deployment_id: str,
        target: Target | None = None,
        *,
        count: int = 1,
        lease_seconds: int = 60,
        wait_seconds: int = 0,
        agent: Mapping[str, Any] | None = None,
    ) -> list[Lease]:
        """Take up to `count` commands, waiting up to `wait_seconds` (to 60) for one; an empty list if none came."""
        request: JsonObject = {"deploymentId": deployment_id, "maxLeases": count, "leaseSeconds": lease_seconds}
        if target is not None:
            request["target"] = {"resourceId": target.resource_id, "resourceType": target.resource_type}
        if wait_seconds:
            request["waitSeconds"] = wait_seconds
        if agent is not None:
            request["agent"] = dict(agent)
        url = self._url("/commands/leases", {})
        response = await self._send("POST", url, content=orjson.dumps(request), wait_seconds=wait_seconds)
        server_time, endpoint = date_of(response), str(url.copy_with(query=None))
        try:
            return [parse_lease(info, endpoint, server_time) for info in object_of(response)["leases"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            # Retryable: one bad envelope must not stop a worker; its lease runs out and somebody else may read it.
            message = f"A lease answer has an unknown shape: {error!r}"
            raise BadAnswer(message, status=response.status_code, retryable=True) from error

    async def release(self, lease_id: str) -> None:
        """Give a leased command back; it can be leased again at once."""
        await self._send("POST", self._url(f"/commands/leases/{_segment(lease_id)}/release", {}), content=b"{}")

    async def submit(self, submit_url: str, response: Mapping[str, Any]) -> None:
        """Answer a command by its signed URL (`Lease.submit_url`), without a token. Safe to repeat.

        `response` is a CommandResponse (`arc.v1` 3.3).
        """
        content = orjson.dumps(dict(response))
        await self._send("PUT", httpx2.URL(submit_url), content=content, signed=True)

    # --- bodies

    async def body(self, spec: Mapping[str, Any]) -> bytes:
        """The bytes of a BodySpec (`arc.v1` 3.2), downloaded if they are in storage."""
        if spec.get("mode") == "inline":
            try:
                return base64.b64decode(spec["inlineBase64"], validate=True)
            except (KeyError, TypeError, binascii.Error) as error:
                raise BadAnswer("An inline body is not base64", status=200) from error
        async with self._exchange_presigned(_get_request_of(spec)) as response:
            return await response.aread()

    async def save(self, spec: Mapping[str, Any], sink: Sink) -> None:
        """Write the bytes of a BodySpec to a sink; repeated with the same sink it goes on where it broke off.

        Raises OSError when the sink cannot take them.
        """
        if spec.get("mode") == "inline":
            await sink.take(_once(await self.body(spec)))
            return
        async with self._exchange_presigned(_get_request_of(spec)) as response:
            size = await sink.take(response.aiter_bytes())
        if size != sink.size:
            raise BadAnswer(f"A stored body had {sink.size} bytes, and now {size}", status=200)

    async def put_object(self, request: Mapping[str, Any], content: bytes | FileBody) -> None:
        """Upload a body by a PresignedRequest, with exactly its method, URL and headers. Safe to repeat."""
        async with self._exchange_presigned(request, content) as response:
            await response.aread()

    # --- operations

    async def queues(self, as_of: str | None = None) -> JsonObject:
        """What waits where: `{"queues": [...], "appliedSeq"}`; as_of: as it was then (a sequence number or a time)."""
        if as_of is None:
            return await self._json("GET", "/queues", needs=("queues",))
        query = {"asOf": as_of}
        return await self._json("GET", "/queues", query=query, wait_seconds=_AS_OF_SECONDS_MAX, needs=("queues",))

    async def export(self, query: Mapping[str, str | Sequence[str]], file: BinaryIO) -> None:
        """Write an export (`commandId`, `deploymentId`, `since`, `until`, `bodies`, `from`) to a file."""
        headers = {**self._headers(), "Accept": "application/jsonl"}
        async with self._exchange("GET", self._url("/export", query), content=None, headers=headers) as response:
            async for chunk in response.aiter_bytes():
                file.write(chunk)

    async def checkpoint(self) -> str:
        """The latest checkpoint of the log, a signed note."""
        return (await self._send("GET", self._url("/checkpoint", {}))).text

    async def create_token(self, request: Mapping[str, Any]) -> JsonObject:
        """Make an access token, by its wire fields (`scope`, …): `{"token", "id", "expiresAt"?}`, shown this once."""
        return await self._json("POST", "/tokens", dict(request), needs=("token", "id"))

    async def tokens(self) -> JsonObject:
        """All access tokens that nobody revoked: `{"tokens": [...]}`."""
        return await self._json("GET", "/tokens", needs=("tokens",))

    async def revoke_token(self, token_id: str) -> None:
        """End an access token now. Safe to repeat."""
        await self._send("DELETE", self._url(f"/tokens/{_segment(token_id)}", {}))

    async def health(self) -> JsonObject:
        """Answers while the process serves requests."""
        return await self._json("GET", "/healthz")

    async def readiness(self) -> JsonObject:
        """Answers 200 when all events are applied; else raises with status 503."""
        return await self._json("GET", "/readyz")

    # --- one request

    async def _json(
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
        url = self._url(path, query or {})
        return object_of(await self._send(method, url, content=content, wait_seconds=wait_seconds), *needs)

    @asynccontextmanager
    async def _exchange_presigned(
        self, request: Mapping[str, Any], content: bytes | FileBody | None = None
    ) -> AsyncGenerator[httpx2.Response, None]:
        """Use a signed storage URL. Raises UrlRefused also when another store than the service's own says 403."""
        backend = request["backend"]
        if backend.get("type") != "http":
            raise BadAnswer(f"Storage of type {backend.get('type')!r} is not supported", status=200)
        url = httpx2.URL(backend["url"])
        headers = {"User-Agent": self._user_agent, **backend["headers"]}
        try:
            async with self._exchange(backend["method"], url, content=content, headers=headers) as response:
                yield response
        except ArcError as error:
            if error.status == _FORBIDDEN:
                raise UrlRefused(origin(url)) from error
            raise

    async def _send(
        self,
        method: str,
        url: httpx2.URL,
        *,
        content: bytes | None = None,
        wait_seconds: int = 0,
        signed: bool = False,
    ) -> httpx2.Response:
        headers = {"User-Agent": self._user_agent} if signed else self._headers()
        if content is not None:
            headers["Content-Type"] = "application/json"
        async with self._exchange(method, url, content=content, headers=headers, wait_seconds=wait_seconds) as response:
            await response.aread()
            return response

    @asynccontextmanager
    async def _exchange(
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

    def _headers(self) -> dict[str, str]:
        return {"User-Agent": self._user_agent, "Accept": "application/json", **self._auth}

    async def _http(self, scheme: str) -> httpx2.AsyncClient:
        """One pool a scheme: loading the trusted certificates takes 40 ms to 300 ms, which plain http never needs."""
        if (http := self._by_scheme.get(scheme)) is None:
            trust_nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            http = httpx2.AsyncClient(
                verify=True if scheme == "https" else trust_nobody,
                mounts={f"all://{host}": None for host in _LOOPBACK},  # a proxy cannot reach our loopback
                limits=httpx2.Limits(max_connections=_CONNECTIONS_MAX),
            )
            self._by_scheme[scheme] = http
            await self._closing.enter_async_context(http)
        return http

    def _url(self, path: str, query: Mapping[str, str | Sequence[str]]) -> httpx2.URL:
        prefix, mark, kept = self._base.raw_path.partition(b"?")
        url = self._base.copy_with(raw_path=prefix + path.encode() + mark + kept)
        return url.copy_merge_params(query) if query else url


def _segment(name: str) -> str:
    return quote(name, safe="")


def _size_of(body: bytes | FileBody) -> int:
    return body.size if isinstance(body, FileBody) else len(body)


def _params_spec(params: bytes | FileBody) -> JsonObject:
    size = _size_of(params)
    if isinstance(params, FileBody) or size > INLINE_PARAMS_BYTES_MAX:
        return {"mode": "storage", "size": size}
    return {"mode": "inline", "inlineBase64": base64.b64encode(params).decode()}


def _get_request_of(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    request: Mapping[str, Any] | None = spec.get("storageGetRequest")
    if not request:
        raise BadAnswer("A stored body comes without a download request", status=200)
    return request


async def _once(content: bytes) -> AsyncGenerator[bytes, None]:
    yield content
