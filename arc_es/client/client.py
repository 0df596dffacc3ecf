"""`ArcClient`: one method for each call of the service, no retries of its own (see `retry.py`)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Protocol, Self

from httpx2 import AsyncBaseTransport

from arc_es.client.bodies import Bodies, size_of, spec_of
from arc_es.client.errors import ArcError, BadAnswer, entry_error
from arc_es.client.feed import EVENT_STREAM, Decision, decisions_of
from arc_es.client.files import FileBody
from arc_es.client.lease import JsonObject
from arc_es.client.operating import Operating
from arc_es.client.receiving import Receiving
from arc_es.client.transport import Transport, segment

_COMMAND: Final = ("commandId", "state")
_SEAL_SECONDS_MAX: Final = 60
"""More than an answer takes otherwise: a service may have to read a large upload again."""
_AS_OF_SECONDS_MAX: Final = 120
"""A service may have to fold a million messages."""
_ASK_AGAIN: Final = ("URL_REFUSED", "CONFLICT", "INVALID_STATE_TRANSITION")
"""Codes of an upload that came too late: its URL has expired, or another call with the same key was first."""


def create_request(
    deployment_id: str,
    command: str,
    params: bytes | FileBody,
    *,
    target_id: str | None = None,
    deadline: datetime | None = None,
    idempotency_key: str | None = None,
    **extra: Any,
) -> JsonObject:
    """A CreateCommandRequest. `extra` are further fields by their wire names; None leaves a field out."""
    fields = {
        "targetResourceId": target_id,
        "deadline": None if deadline is None else deadline.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "idempotencyKey": idempotency_key,
        **extra,
    }
    request = {"deploymentId": deployment_id, "command": command, "params": spec_of(params)}
    return request | {name: value for name, value in fields.items() if value is not None}


class Writable(Protocol):
    """Takes bytes, as a file does."""

    def write(self, chunk: bytes, /) -> object:
        """Take some more."""


class ArcClient(Receiving, Operating, Bodies):
    """A connection to one service, used as an async context manager.

    Every method raises `ArcError` when the service refuses, `ServerUnreachable` when there is no answer, `BadAnswer`
    when the answer is none of this service's. Methods have no time-out parameter: open a cancel scope.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        user_agent: str = "arc-es-client",
        transport: AsyncBaseTransport | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: of the service, with or without `/v1`.
            token: bearer token; never sent to signed URLs.
            user_agent: recorded in the events that this client causes.
            transport: instead of the network; see `arc_es.testing`.

        Raises:
            ValueError: the URL is not one, or the token cannot be sent.
        """
        self._http = Transport(url, token, user_agent, transport)

    async def __aenter__(self) -> Self:
        """Ready to use."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        await self._http.aclose()

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
        request = create_request(
            deployment_id,
            command,
            params,
            target_id=target_id,
            deadline=deadline,
            idempotency_key=idempotency_key,
            **extra,
        )
        return await self.send_create(request, params)

    async def send_create(self, request: JsonObject, params: bytes | FileBody) -> JsonObject:
        """`create`, by a request that is ready (`create_request`)."""
        created = await self._http.json("POST", "/commands", request, needs=_COMMAND)
        if created.get("next") != "upload":
            return created
        try:
            return await self._upload_params(created, params)
        except ArcError as error:
            if error.code not in _ASK_AGAIN or "idempotencyKey" not in request:
                raise
        created = await self._http.json("POST", "/commands", request, needs=_COMMAND)
        return await self._upload_params(created, params) if created.get("next") == "upload" else created

    async def create_batch(self, requests: Sequence[JsonObject]) -> list[JsonObject | ArcError]:
        """Create many commands in one call, at most 1000; for each its answer, or why it was refused."""
        path, request = "/commands/batch", {"commands": list(requests)}
        results = (await self._http.json("POST", path, request, needs=("results",)))["results"]
        try:
            return [entry_error(one) or one for one in results]
        except (KeyError, TypeError) as error:
            raise BadAnswer(f"A batch answer has an unknown shape: {error!r}", status=200) from error

    async def _upload_params(self, created: JsonObject, params: bytes | FileBody) -> JsonObject:
        await self.put_object(created["storageUpload"]["putRequest"], params)
        path = f"/commands/{segment(created['commandId'])}/upload-complete"
        size = {"size": size_of(params)}
        return await self._http.json("POST", path, size, wait_seconds=_SEAL_SECONDS_MAX, needs=_COMMAND)

    async def status(self, command_id: str, *, wait_seconds: int = 0) -> JsonObject:
        """The status of a command; with `wait_seconds` (to 60) when it is terminal, or at the end of that time."""
        query = {"waitSeconds": str(wait_seconds)} if wait_seconds else {}
        path = f"/commands/{segment(command_id)}"
        return await self._http.json("GET", path, query=query, wait_seconds=wait_seconds, needs=_COMMAND)

    async def cancel(self, command_id: str, reason: str | None = None) -> JsonObject:
        """End a command that nobody wants any more; its status. Safe to repeat, and harmless if it has ended."""
        path, request = f"/commands/{segment(command_id)}/cancel", {} if reason is None else {"reason": reason}
        return await self._http.json("POST", path, request, needs=_COMMAND)

    async def payload(self, command_id: str) -> JsonObject:
        """Params and response of a command."""
        return await self._http.json("GET", f"/commands/{segment(command_id)}/payload")

    async def find(self, filters: Mapping[str, str | Sequence[str]]) -> JsonObject:
        """A page of commands: `{"commands", "nextCursor"?, "appliedSeq"}`. filters: the query of `GET /commands`."""
        return await self._http.json("GET", "/commands", query=filters, needs=("commands",))

    async def events(self, command_id: str) -> JsonObject:
        """The whole history of a command: `{"events": [...]}`."""
        return await self._http.json("GET", f"/commands/{segment(command_id)}/events", needs=("events",))

    async def explain(self, command_id: str) -> JsonObject:
        """Why a command is where it is: `{"state", "because", "facts"}`."""
        return await self._http.json(
            "GET", f"/commands/{segment(command_id)}/explain", needs=("state", "because", "facts")
        )

    async def events_after(self, after: int, limit: int, filters: Mapping[str, str]) -> JsonObject:
        """A page of the feed: `{"events", "next", "end"}`. filters: `deploymentId`, `type`, `commandId`."""
        query = {"after": str(after), "limit": str(limit), **filters}
        return await self._http.json("GET", "/events", query=query, needs=("events", "next", "end"))

    @asynccontextmanager
    async def feed(
        self, after: int, filters: Mapping[str, str]
    ) -> AsyncGenerator[AsyncGenerator[Decision, None], None]:
        """The live feed of all events after a position, decision by decision; it ends, and may break, at any time."""
        url = self._http.url("/events", {"after": str(after), **filters})
        headers = {**self._http.headers(), "Accept": EVENT_STREAM}
        async with self._http.exchange("GET", url, content=None, headers=headers) as response:
            yield decisions_of(response.aiter_lines())

    # --- operations

    async def queues(self, as_of: str | None = None) -> JsonObject:
        """What waits where: `{"queues": [...], "appliedSeq"}`; as_of: as it was then (a sequence number or a time)."""
        if as_of is None:
            return await self._http.json("GET", "/queues", needs=("queues",))
        query = {"asOf": as_of}
        return await self._http.json("GET", "/queues", query=query, wait_seconds=_AS_OF_SECONDS_MAX, needs=("queues",))

    async def export(self, query: Mapping[str, str | Sequence[str]], file: Writable) -> None:
        """Write an export (`commandId`, `deploymentId`, `since`, `until`, `bodies`, `from`) to a file."""
        headers = {**self._http.headers(), "Accept": "application/jsonl"}
        async with self._http.exchange(
            "GET", self._http.url("/export", query), content=None, headers=headers
        ) as response:
            async for chunk in response.aiter_bytes():
                file.write(chunk)

    async def checkpoint(self) -> str:
        """The latest checkpoint of the log, a signed note."""
        return (await self._http.send("GET", self._http.url("/checkpoint", {}))).text

    async def create_token(self, request: Mapping[str, Any]) -> JsonObject:
        """Make an access token, by its wire fields (`scope`, …): `{"token", "id", "expiresAt"?}`, shown this once."""
        return await self._http.json("POST", "/tokens", dict(request), needs=("token", "id"))

    async def tokens(self) -> JsonObject:
        """All access tokens that nobody revoked: `{"tokens": [...]}`."""
        return await self._http.json("GET", "/tokens", needs=("tokens",))

    async def revoke_token(self, token_id: str) -> None:
        """End an access token now. Safe to repeat."""
        await self._http.send("DELETE", self._http.url(f"/tokens/{segment(token_id)}", {}))

    async def health(self) -> JsonObject:
        """Answers while the process serves requests."""
        return await self._http.json("GET", "/healthz")

    async def erase(self, command_id: str, reason: str) -> JsonObject:
        """Have what is private about a command erased. `gone`: whether all of it is gone already; else ask again."""
        path = f"/commands/{segment(command_id)}/erase"
        return await self._http.json("POST", path, {"reason": reason}, needs=("erased", "gone"))

    async def readiness(self) -> JsonObject:
        """Answers 200 when all events are applied; else raises with status 503."""
        return await self._http.json("GET", "/readyz")
