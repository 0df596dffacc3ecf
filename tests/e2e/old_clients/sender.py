"""Both current senders (`arc.v1` 5.1 and 5.2) and the first-generation one (5.6)."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import trio

from tests.e2e.old_clients import shapes
from tests.e2e.old_clients.http import Answer, Failed, Http, endpoint

POLL_FACTOR = 1.5
FIRST_POLL_SECONDS = 0.02
"""0.5 in the field; who tests has no time."""
POLL_SECONDS_MAX = 5.0
REFRESH_BEFORE_SECONDS = 30


class Expired(Exception):
    """The command expired."""


class RemoteError(Exception):
    """The command failed."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


async def until_terminal(look: Callable[[], Awaitable[Any]]) -> Any:
    """Poll as all senders do."""
    wait_seconds = FIRST_POLL_SECONDS
    while True:
        await trio.sleep(wait_seconds)  # an old client does that
        status = await look()
        if status["state"] in shapes.TERMINAL:
            return status
        wait_seconds = min(wait_seconds * POLL_FACTOR, POLL_SECONDS_MAX)


def inline(data: bytes) -> dict[str, str]:
    return {"mode": "inline", "inlineBase64": base64.b64encode(data).decode()}


class StrictSender:
    """5.1: validates every field, always inline, downloads what is in storage."""

    def __init__(self, http: Http, base: str, token: str) -> None:
        self._http = http
        self._base = base
        self._token = token

    async def _call(self, method: str, path: str, data: Any = None) -> Answer:
        return await self._http.call(method, endpoint(self._base, path), data, bearer=self._token)

    async def create(self, deployment: str, command: str, params: Any, **options: Any) -> Any:
        """Create; options that are not set are left out."""
        raw = json.dumps(params).encode()
        wanted = {"deploymentId": deployment, "command": command, "params": inline(raw), **options}
        created = (await self._call("POST", "/v1/commands", wanted)).ok()
        shapes.create_answer(created, "create")
        return created

    async def status(self, command_id: str) -> Any:
        """One poll; any non-2xx ends the call."""
        status = (await self._call("GET", f"/v1/commands/{command_id}")).ok()
        shapes.status_answer(status, "status")
        return status

    async def call(self, deployment: str, command: str, params: Any, **options: Any) -> Any:
        """The result. Raises Expired, RemoteError, Failed, Undecodable."""
        created = await self.create(deployment, command, params, **options)
        return await self.result(created["commandId"])

    async def result(self, command_id: str) -> Any:
        status = await until_terminal(lambda: self.status(command_id))
        if status["state"] == "EXPIRED":
            assert "response" not in status
            raise Expired(command_id)
        response = status.get("response")
        if response is None:
            raise shapes.Undecodable("finished without a response")
        if response["status"] == "error":
            raise RemoteError(response["code"], response["message"])
        return json.loads((await self._bytes(response["response"])).decode())

    async def _bytes(self, body: Any) -> bytes:
        if body["mode"] == "inline":
            return base64.b64decode(body["inlineBase64"], validate=True)
        request = body["storageGetRequest"]
        return await download(self._http, request, checked=True)


async def download(http: Http, request: Any, *, checked: bool) -> bytes:
    """A storage GET as clients do it: by their own clock, the given headers only. checked: whether a status counts."""
    backend = request["backend"]
    assert backend["type"] == "http", "local is refused"
    expiration = datetime.fromisoformat(request["expiration"])
    assert expiration > datetime.now(UTC), "past its expiration by the local clock"
    answer = await http.call(backend["method"], backend["url"], **backend["headers"])
    if checked and not answer.is_success:
        raise Failed(answer)
    return answer.body


class DiscoveredSender(StrictSender):
    """5.1 with 2.9: built from one URL and one key; refreshes before the end, and once after a 401."""

    def __init__(self, http: Http, url: str, key: str, deployment: str) -> None:
        super().__init__(http, "", "")
        self._url = url
        self._key = key
        self._deployment = deployment
        self._until = datetime.min.replace(tzinfo=UTC)
        self.refreshes = 0

    async def refresh(self) -> None:
        wanted = {"deploymentId": self._deployment, "role": "sender"}
        answer = await self._http.call("POST", f"{self._url}/v1/commands/bootstrap", wanted, bearer=self._key)
        found = answer.ok()
        shapes.sender_connection(found, "bootstrap")
        if "target" in found:
            raise shapes.Undecodable("a sender's target must be absent, null too breaks the client")
        self._base, self._token = found["managerUrl"], found["token"]
        self._until = datetime.fromisoformat(found["expiresAt"])
        self.refreshes += 1

    def lose_token(self) -> None:
        """What the client holds goes stale before its time."""
        self._token = "stale"

    async def _call(self, method: str, path: str, data: Any = None) -> Answer:
        if (self._until - datetime.now(UTC)).total_seconds() < REFRESH_BEFORE_SECONDS:
            await self.refresh()
        answer = await super()._call(method, path, data)
        if answer.status == 401:
            await self.refresh()
            answer = await super()._call(method, path, data)
        return answer


class LenientSender:
    """5.2: the base contains `/v1`; needs few fields, and reads an unknown state as "keep polling"."""

    def __init__(self, http: Http, base: str, token: str) -> None:
        self._http = http
        self._base = base
        self._token = token

    async def call(self, deployment: str, command: str, params: Any, **options: Any) -> Any:
        wanted = {"deploymentId": deployment, "command": command, "params": inline(json.dumps(params).encode())}
        url = endpoint(self._base, "/commands")
        command_id = (await self._http.call("POST", url, wanted | options, bearer=self._token)).ok()["commandId"]
        shown = endpoint(self._base, f"/commands/{command_id}")

        async def look() -> Any:
            status = (await self._http.call("GET", shown, bearer=self._token)).ok()
            if "target" in status:
                shapes.target(status["target"], "target")
            return status

        status = await until_terminal(look)
        if status["state"] == "EXPIRED":
            raise Expired(command_id)
        response = status["response"]
        if response["status"] == "error":
            raise RemoteError(response["code"], response["message"])
        return json.loads(await self._bytes(response["response"]))

    async def _bytes(self, body: Any) -> bytes:
        if body["mode"] == "inline":
            return base64.b64decode(body["inlineBase64"], validate=True)
        backend = body["storageGetRequest"]["backend"]
        method = backend["method"] if backend["method"] in ("PUT", "POST") else "GET"
        answer = await self._http.call(method, backend["url"])
        if not answer.is_success:
            raise Failed(answer)
        return answer.body
