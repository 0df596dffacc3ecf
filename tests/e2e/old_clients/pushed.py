"""Worker runtimes that take pushed envelopes, and the relay that pushes what it leases (`arc.v1` 5.4, 5.5)."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.dispatch.worker import Received, Worker, answer, working
from tests.e2e.old_clients import shapes
from tests.e2e.old_clients.http import Http, endpoint
from tests.e2e.old_clients.receiver import Handler, absolute, moment, now
from tests.e2e.old_clients.sender import download

RELAY_EXTRA_SECONDS = 60
WORKER_SECONDS = 180


class Runtime:
    """A worker runtime of one deployment and target; one command at a time, duplicates of it are taken again."""

    def __init__(self, http: Http, worker: Worker, nursery: trio.Nursery, token: str, target: str) -> None:
        self._http = http
        self._nursery = nursery
        self._token = token
        self._target = target
        self._one_at_a_time = trio.Lock()
        self.running: set[str] = set()
        self.handler: Handler = _echo
        self.url = worker.url
        self.answered: list[int] = []
        self.envelopes: list[Any] = []
        self.submitted: list[int] = []
        worker.behave = self._behave

    async def _behave(self, stream: trio.SocketStream, request: Received) -> None:
        status = self._status(request)
        self.answered.append(status)
        if status == 202 and (envelope := request.envelope)["commandId"] not in self.running:
            self.envelopes.append(envelope)
            self.running.add(envelope["commandId"])
            self._nursery.start_soon(self._work, envelope, now())
        await answer(status)(stream, request)

    def _status(self, request: Received) -> int:
        """What 5.5 answers: 401 the token, 400 the envelope, 403 whom it is for, 202."""
        if request.headers.get("authorization") != f"Bearer {self._token}":
            return 401
        envelope = request.envelope
        try:
            shapes.envelope(envelope, "envelope")
        except shapes.Undecodable:
            return 400
        return 202 if envelope["target"] == {"resourceId": self._target, "resourceType": "worker"} else 403

    async def _work(self, envelope: Any, received_at: float) -> None:
        end = min(received_at + WORKER_SECONDS, moment(envelope.get("deadline", "9999-01-01T00:00:00Z")))
        async with self._one_at_a_time:
            with trio.move_on_after(end - now()):
                params = envelope["params"]
                if params["mode"] == "inline":
                    data = base64.b64decode(params["inlineBase64"], validate=True)
                else:
                    data = await download(self._http, params["storageGetRequest"], checked=True)
                result = json.dumps(await self.handler(data)).encode()
                body = {"mode": "inline", "inlineBase64": base64.b64encode(result).decode()}
                url = envelope["responseHandling"]["submitResponseUrl"]
                submitted = await self._http.call("PUT", url, {"status": "success", "response": body})
                self.submitted.append(submitted.status)
        self.running.discard(envelope["commandId"])


async def _echo(data: bytes) -> Any:
    return json.loads(data)


@asynccontextmanager
async def runtime(http: Http, token: str, target: str) -> AsyncGenerator[Runtime, None]:
    """A worker runtime on a port of its own."""
    async with working() as worker, trio.open_nursery() as nursery:
        yield Runtime(http, worker, nursery, token, target)
        nursery.cancel_scope.cancel()


class Relay:
    """Leases for workers, and pushes what it gets to them; a failed push is not released. `current`: names a target."""

    def __init__(self, http: Http, base: str, token: str, *, current: bool = True) -> None:
        self._http = http
        self._base = base
        self._token = token
        self._current = current

    async def round(self, deployment: str, worker: str, push_url: str, push_token: str) -> list[tuple[str, int]]:
        """One of the rounds that come every 5 s: command ids, and what the worker said to each."""
        posted = endpoint(self._base, "/commands/leases")
        wanted: dict[str, Any] = {"deploymentId": deployment, "maxLeases": 10, "leaseSeconds": 60}
        if self._current:
            wanted["target"] = {"resourceId": worker, "resourceType": "worker"}
            wanted["leaseSeconds"] = WORKER_SECONDS + RELAY_EXTRA_SECONDS
        leased = await self._http.call("POST", posted, wanted, bearer=self._token, User_Agent="operator")
        found = leased.ok()
        shapes.lease_answer(found, "leases")
        pushed = []
        for lease in found["leases"]:
            envelope = absolute(posted, lease["envelope"]) if self._current else lease["envelope"]
            answered = await self._http.push(push_url, envelope, push_token)
            pushed.append((lease["commandId"], answered))
        return pushed
