"""Both current receivers (`arc.v1` 5.3): what they do with a lease, and what makes them stop for good."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

import trio

from tests.e2e.old_clients import shapes
from tests.e2e.old_clients.http import ACCEPTABLE, Answer, Failed, Http, endpoint, resolve
from tests.e2e.old_clients.sender import download

Handler: TypeAlias = Callable[[bytes], Awaitable[Any]]
POLL_SECONDS = 0.02
"""5 in the field, doubling up to 30; who tests has no time."""
SAFETY_SECONDS = 5
SUBMIT_SECONDS_MAX = 30
RETRY_SECONDS = 0.1
RETRY_SECONDS_MAX = 1.0


@dataclass(frozen=True)
class Flavour:
    """Where the two implementations differ."""

    name: str
    retries: bool
    """Whether uploads and submits are tried again after temporary trouble."""
    checks_downloads: bool
    """Whether the status of a params download is looked at."""
    estimates: bool
    """Whether the raw length is estimated as base64 length x 3/4."""
    strips_slash: bool
    """Whether a trailing slash of the base is dropped before a path is appended."""
    encodes_ids: bool
    """Whether a lease id is percent-encoded in the path."""

    def __repr__(self) -> str:
        return self.name


ONE = Flavour("one", retries=True, checks_downloads=True, estimates=False, strips_slash=True, encodes_ids=False)
OTHER = Flavour("other", retries=False, checks_downloads=False, estimates=True, strips_slash=False, encodes_ids=True)


class CommandError(Exception):
    """What a handler throws; the code is its own."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Receiver:
    """A receiver of one target."""

    http: Http
    base: str
    token: str
    deployment: str
    target: Mapping[str, str]
    handlers: Mapping[str, Handler]
    flavour: Flavour = ONE
    lease_seconds: int = 60
    leases_max: int = 1
    leases: list[Any] = field(default_factory=list)
    """All that were granted, with their references resolved."""
    submitted: list[tuple[str, int]] = field(default_factory=list)
    """Command ids and the statuses of their submissions."""
    released: list[int] = field(default_factory=list)
    has_released: trio.Event = field(default_factory=trio.Event)
    _active: dict[str, str] = field(default_factory=dict)
    _work: trio.CancelScope = field(default_factory=trio.CancelScope)
    _polling: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def run(self) -> None:
        """Poll until `stop`. Raises Failed or Undecodable: what ends a receiver for good."""
        async with trio.open_nursery() as nursery:
            self._work = nursery.cancel_scope
            with self._polling:
                while True:
                    for lease in await self.poll():
                        nursery.start_soon(self.work, lease)
                    await trio.sleep(POLL_SECONDS)  # an old client does that

    def abort(self) -> None:
        """The end of a shutdown: no new polls, handlers are aborted and their leases released (30 s in the field)."""
        self._polling.cancel()
        self._work.cancel()

    async def poll(self) -> list[Any]:
        """Lease once; nothing while full."""
        wanted = self.leases_max - len(self._active)
        if wanted <= 0:
            return []
        posted = endpoint(self.base, "/commands/leases", strips_slash=self.flavour.strips_slash)
        answer = await self.http.call("POST", posted, self._request(wanted), bearer=self.token)
        if answer.is_temporary:
            return []
        found = answer.ok()
        shapes.lease_answer(found, "leases")
        leases = [self._resolved(posted, lease) for lease in found["leases"]]
        self.leases += leases
        return leases

    def _request(self, wanted: int) -> dict[str, Any]:
        return {
            "deploymentId": self.deployment,
            "target": dict(self.target),
            "maxLeases": wanted,
            "leaseSeconds": self.lease_seconds,
        }

    @staticmethod
    def _resolved(posted: str, lease: Any) -> Any:
        return {**lease, "envelope": absolute(posted, lease["envelope"])}

    async def work(self, lease: Any) -> None:
        """One lease, to its submission or release."""
        command_id, lease_id = lease["commandId"], lease["leaseId"]
        if command_id in self._active:
            await self.release(lease_id)  # still running here
            return
        self._active[command_id] = lease_id
        try:
            response = await self._handled(lease)
            await self.submit(lease, response)
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await self.release(lease_id)
            raise
        finally:
            del self._active[command_id]

    async def _handled(self, lease: Any) -> dict[str, Any] | bytes:
        """An error response, or the bytes of a success."""
        envelope = lease["envelope"]
        budget_seconds = self._budget_seconds(lease)
        if budget_seconds <= 0:
            return error("HANDLER_TIMEOUT", "no time is left")
        handler = self.handlers.get(envelope["command"])
        if handler is None:
            return error("UNKNOWN_COMMAND", envelope["command"])
        with trio.move_on_after(budget_seconds):
            try:
                return json.dumps(await handler(await self._params(envelope["params"]))).encode()
            except binascii.Error:
                return error("INVALID_ENVELOPE", "params")
            except Failed as failed:
                return error("STORAGE_OPERATION_FAILED", str(failed))
            except CommandError as raised:
                return error(raised.code, str(raised))
        return error("HANDLER_TIMEOUT", f"{budget_seconds} s")

    @staticmethod
    def _budget_seconds(lease: Any) -> float:
        """min(deadline, leaseExpiresAt - 5 s), by the local clock."""
        ends = [moment(lease["leaseExpiresAt"]) - SAFETY_SECONDS]
        if "deadline" in lease["envelope"]:
            ends.append(moment(lease["envelope"]["deadline"]))
        return min(ends) - now()

    async def _params(self, params: Any) -> bytes:
        if params["mode"] == "inline":
            return base64.b64decode(params["inlineBase64"], validate=True)
        return await download(self.http, params["storageGetRequest"], checked=self.flavour.checks_downloads)

    async def submit(self, lease: Any, response: dict[str, Any] | bytes) -> None:
        """One budget for upload and submit; no Authorization; 409 and 410 count as success."""
        handling = lease["envelope"]["responseHandling"]
        seconds = min(SUBMIT_SECONDS_MAX, moment(lease["leaseExpiresAt"]) - now())
        with trio.move_on_after(seconds):
            if isinstance(response, bytes):
                response = {"status": "success", "response": await self._body(handling, response)}
            answer = await self._put(handling["submitResponseUrl"], response)
            self.submitted.append((lease["commandId"], answer.status))

    async def _body(self, handling: Any, data: bytes) -> dict[str, Any]:
        encoded = base64.b64encode(data).decode()
        length = len(encoded) * 3 // 4 if self.flavour.estimates else len(data)
        if length <= handling["maxInlineBytes"]:
            return {"mode": "inline", "inlineBase64": encoded}
        backend = handling["storageUploadRequest"]["backend"]
        answer = await self._put(backend["url"], None, data, **backend["headers"])
        if not answer.is_success:
            raise Failed(answer)
        return {"mode": "storage", "size": len(data), "storagePutUsed": True}

    async def _put(self, url: str, data: Any, raw: bytes = b"", **headers: str) -> Answer:
        wait_seconds = RETRY_SECONDS
        while True:
            answer = await self.http.call("PUT", url, data, raw=raw, **headers)
            if not (self.flavour.retries and answer.is_temporary):
                return answer
            await trio.sleep(wait_seconds)  # an old client does that
            wait_seconds = min(2 * wait_seconds, RETRY_SECONDS_MAX)

    async def release(self, lease_id: str) -> None:
        """Give a lease back; 2xx, 409 and 410 are accepted, anything else is only logged."""
        shown = lease_id.replace("_", "%5F").replace("-", "%2D") if self.flavour.encodes_ids else lease_id
        url = endpoint(self.base, f"/commands/leases/{shown}/release", strips_slash=self.flavour.strips_slash)
        answer = await self.http.call("POST", url, {"leaseId": lease_id}, bearer=self.token)
        self.released.append(answer.status)
        self.has_released.set()

    @property
    def accepted(self) -> list[str]:
        """The commands whose submission it takes for done."""
        return [one for one, status in self.submitted if 200 <= status < 300 or status in ACCEPTABLE]


@asynccontextmanager
async def receiving(*receivers: Receiver) -> AsyncGenerator[None, None]:
    """These receivers run meanwhile; what stops one for good fails the test."""
    async with trio.open_nursery() as nursery:
        for receiver in receivers:
            nursery.start_soon(receiver.run)
        yield
        nursery.cancel_scope.cancel()


def absolute(posted: str, envelope: Any) -> Any:
    """An envelope with its references resolved against the endpoint that the lease request was posted to (4.7)."""
    handling = envelope["responseHandling"]
    found = {
        **envelope,
        "responseHandling": {
            **handling,
            "submitResponseUrl": resolve(posted, handling["submitResponseUrl"]),
            "storageUploadRequest": _presigned(posted, handling["storageUploadRequest"]),
        },
    }
    if "storageGetRequest" in envelope["params"]:
        request = _presigned(posted, envelope["params"]["storageGetRequest"])
        found["params"] = {**envelope["params"], "storageGetRequest": request}
    return found


def _presigned(posted: str, request: Any) -> Any:
    return {**request, "backend": {**request["backend"], "url": resolve(posted, request["backend"]["url"])}}


def error(code: str, message: str) -> dict[str, Any]:
    return {"status": "error", "code": code, "message": message}


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def now() -> float:
    return datetime.now(UTC).timestamp()
