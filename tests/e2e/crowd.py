"""Callers and agents that ride through every failure, and a log of what the service acknowledged to them."""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import orjson
import trio

from tests.e2e.http import Answer, Client, NoAnswer, create_body, lease_body, submit_path
from tests.e2e.process import ServiceProcess
from tests.e2e.transfer import target_of

TARGETS = ("a", "b", "c")
TERMINAL = ("SUCCEEDED", "FAILED", "EXPIRED")
RETRY_SECONDS = 0.05
RETRY_AFTER = (408, 429, 500, 502, 503, 504)
LARGE_BYTES = 6_000
"""More than fits an event: stored as a message of its own, in one batch with the event."""
STORED_BYTES = 200_000
"""More than travels inside JSON: kept in the body store."""


@dataclass
class Log:
    """What was acknowledged. `violations` is what must be empty at the end."""

    created: set[str] = field(default_factory=set)
    by_key: dict[str, str] = field(default_factory=dict)
    leases: dict[str, tuple[str, int]] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    answered: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    sent: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    params: dict[str, str] = field(default_factory=dict)
    """Digests of the params that were uploaded, by command."""
    stored: set[str] = field(default_factory=set)
    """Commands that were answered with an uploaded result."""
    ends: dict[str, Any] = field(default_factory=dict)
    troubles: int = 0
    violations: list[str] = field(default_factory=list)
    changed: trio.Event = field(default_factory=trio.Event)

    @property
    def progress(self) -> int:
        """How many changes were acknowledged."""
        return len(self.created) + len(self.leases) + len(self.released) + len(self.answered)

    def _note(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def until(self, progress: int) -> None:
        """Wait until so many changes were acknowledged."""
        while self.progress < progress:
            await self.changed.wait()

    def create(self, command_id: str, key: str | None) -> None:
        if key is not None and self.by_key.setdefault(key, command_id) != command_id:
            self.violations.append(f"key {key} gave {self.by_key[key]}, then {command_id}")
        self.created.add(command_id)
        self._note()

    def lease(self, lease: dict[str, Any]) -> None:
        if lease["leaseId"] in self.leases:
            self.violations.append(f"{lease['leaseId']} was given twice")
        self.leases[lease["leaseId"]] = lease["commandId"], lease["attempt"]
        self._note()

    def release(self, lease_id: str) -> None:
        self.released.add(lease_id)
        self._note()

    def answer(self, command_id: str, sha256: str) -> None:
        self.answered[command_id].add(sha256)
        self._note()

    def read(self, command_id: str, answer: Answer) -> None:
        """A status was read: it must exist, and if terminal be what it was when it was read first."""
        if answer.status != 200:
            self.violations.append(f"status of {command_id}: {answer.status} {answer.body!r}")
        elif answer.json["state"] in TERMINAL:
            end = without_url(answer.json)
            if self.ends.setdefault(command_id, end) != end:
                self.violations.append(f"{command_id} ended as {self.ends[command_id]}, later {end}")
        elif command_id in self.ends:
            self.violations.append(f"{command_id} came back from its end: {answer.json}")


def without_url(status: dict[str, Any]) -> dict[str, Any]:
    """A status without the download URL, which is a new one each time."""
    response = status.get("response") or {}
    if response.get("status") != "success":
        return status
    body = {name: value for name, value in response["response"].items() if name != "storageGetRequest"}
    return {**status, "response": {**response, "response": body}}


def large(mark: str) -> bytes:
    """A body for the body store that no other mark has."""
    return (mark.encode() * (STORED_BYTES // len(mark.encode()) + 1))[:STORED_BYTES]


class Crowd:
    """Callers and agents of one service. They stop when told, and finish what they are at."""

    def __init__(self, service: ServiceProcess, log: Log, random: Random) -> None:
        self._service = service
        self._log = log
        self._random = random
        self._keys = 0
        self.callers_stop = False
        self.agents_stop = False

    async def insist(self, client: Client, method: str, path: str, data: object = None) -> Answer:
        """Repeat a request that may be repeated until there is an answer to keep."""
        while True:
            try:
                answer = await client.call(method, path, data)
            except NoAnswer:
                answer = None
            if answer is not None and answer.status not in RETRY_AFTER:
                return answer
            self._log.troubles += 1
            await trio.sleep(RETRY_SECONDS)

    async def caller(self) -> None:
        """Create commands, with a key or without, and look at them."""
        async with self._service.client() as client:
            while not self.callers_stop:
                command_id = await (
                    self._create_with_key(client) if self._random.random() < 0.6 else self._create(client)
                )
                if command_id is not None:
                    self._log.read(command_id, await self.insist(client, "GET", f"/commands/{command_id}"))
                for known in self._random.sample(sorted(self._log.ends), min(1, len(self._log.ends))):
                    self._log.read(known, await self.insist(client, "GET", f"/v1/commands/{known}"))

    def _body(self, **more: object) -> dict[str, object]:
        if self._random.random() < 0.15:
            more["deadline"] = (datetime.now(UTC) + timedelta(seconds=self._random.uniform(0.5, 3))).isoformat()
        if self._random.random() < 0.1:
            more["params"] = {"mode": "inline", "inlineBase64": base64.b64encode(b"p" * LARGE_BYTES).decode()}
        return {**create_body(self._random.choice(TARGETS)), **more}

    async def _create(self, client: Client) -> str | None:
        """Without a key an unclear outcome stays unclear."""
        try:
            answer = await client.call("POST", "/commands", self._body())
        except NoAnswer:
            self._log.troubles += 1
            return None
        return self._created(answer, None)

    async def _create_with_key(self, client: Client) -> str | None:
        self._keys += 1
        key = f"key {self._keys}"
        body = self._body(idempotencyKey=key)
        if "deadline" in body:  # may have passed when it is repeated
            del body["deadline"]
        if self._random.random() < 0.1:
            return await self._create_with_upload(client, key, body)
        command_id = self._created(await self.insist(client, "POST", "/commands", body), key)
        if self._random.random() < 0.3:
            self._created(await self.insist(client, "POST", "/v1/commands", body), key)
        return command_id

    async def _create_with_upload(self, client: Client, key: str, body: dict[str, object]) -> str | None:
        raw = large(key)
        body["params"] = {"mode": "storage", "size": len(raw)}
        created = await self.insist(client, "POST", "/commands", body)
        command_id = self._created(created, key)
        if command_id is None:
            return None
        self._log.params[command_id] = hashlib.sha256(raw).hexdigest()
        uploaded = await self.insist(client, "PUT", target_of(created.json["storageUpload"]["putRequest"]), raw)
        size = {"size": len(raw)}
        done = await self.insist(client, "POST", f"/commands/{command_id}/upload-complete", size)
        was_done_before = done.status == 400 and done.json["code"] == "INVALID_STATE_TRANSITION"
        if uploaded.status != 200 or not (done.status == 200 or was_done_before):
            self._log.violations.append(f"upload: {uploaded.status}, {done.status} {done.body!r}")
        return command_id

    def _created(self, answer: Answer, key: str | None) -> str | None:
        if answer.status == 200:
            command_id: str = answer.json["commandId"]
            self._log.create(command_id, key)
            return command_id
        if answer.status != 503:
            self._log.violations.append(f"create: {answer.status} {answer.body!r}")
        return None

    async def agent(self) -> None:
        """Lease and do with each lease what agents do, good and bad."""
        async with self._service.client() as client:
            while not self.agents_stop:
                random = self._random
                target = random.choice((*TARGETS, None))
                more = {"waitSeconds": random.choice((0, 0, 1)), "maxLeases": random.randint(1, 5)}
                leased = await self._lease(client, lease_body(target, leaseSeconds=random.randint(1, 3), **more))
                for lease in leased:
                    self._log.lease(lease)
                for lease in leased:
                    await self._work(client, lease)

    async def _lease(self, client: Client, request: dict[str, object]) -> list[dict[str, Any]]:
        try:
            answer = await client.call("POST", "/commands/leases", request)
        except NoAnswer:
            answer = None
        if answer is None or answer.status != 200:
            if answer is not None and answer.status != 503:
                self._log.violations.append(f"lease: {answer.status} {answer.body!r}")
            self._log.troubles += 1
            await trio.sleep(RETRY_SECONDS)
            return []
        leases: list[dict[str, Any]] = answer.json["leases"]
        return leases

    async def _work(self, client: Client, lease: dict[str, Any]) -> None:
        fate = self._random.random()
        if fate < 0.12:
            return  # an agent that died: the lease runs out
        if fate < 0.25:
            answer = await self.insist(client, "POST", f"/commands/leases/{lease['leaseId']}/release")
            if answer.status == 200:
                self._log.release(lease["leaseId"])
            elif answer.status != 404:
                self._log.violations.append(f"release: {answer.status} {answer.body!r}")
            return
        command_id = lease["commandId"]
        await self._check_params(client, lease)
        if fate < 0.35:
            await self._answer_with_upload(client, lease)
            return
        response, sha256 = self._response(f"{lease['leaseId']}")
        self._log.sent[command_id].add(sha256)
        answer = await self.insist(client, "PUT", submit_path(lease), response)
        if answer.status == 200:
            self._log.answer(command_id, sha256)
        else:
            self._log.violations.append(f"answer: {answer.status} {answer.body!r}")

    async def _check_params(self, client: Client, lease: dict[str, Any]) -> None:
        """Uploaded params come as they were."""
        request = lease["envelope"]["params"].get("storageGetRequest")
        if request is None:
            return
        found = await self.insist(client, "GET", target_of(request))
        if hashlib.sha256(found.body).hexdigest() != self._log.params.get(lease["commandId"]):
            self._log.violations.append(f"params of {lease['commandId']}: {found.status}, {len(found.body)} bytes")

    async def _answer_with_upload(self, client: Client, lease: dict[str, Any]) -> None:
        """All agents make the same result of a command: of several uploads the last counts, whoever answers first."""
        command_id = lease["commandId"]
        raw = large(command_id)
        self._log.sent[command_id] |= {hashlib.sha256(raw).hexdigest(), announced_digest(len(raw))}
        upload = target_of(lease["envelope"]["responseHandling"]["storageUploadRequest"])
        uploaded = await self.insist(client, "PUT", upload, raw)
        stored = {"mode": "storage", "size": len(raw), "storagePutUsed": True}
        answer = await self.insist(client, "PUT", submit_path(lease), {"status": "success", "response": stored})
        if (uploaded.status, answer.status) == (200, 200):
            self._log.stored.add(command_id)
        else:
            self._log.violations.append(f"stored answer: {uploaded.status}, {answer.status} {answer.body!r}")

    def _response(self, mark: str) -> tuple[dict[str, object], str]:
        """An answer that no other is equal to, and the digest that the history has of it."""
        if self._random.random() < 0.2:
            error = {"code": "HANDLER_ERROR", "message": mark}
            return {"status": "error", **error}, hashlib.sha256(orjson.dumps(error)).hexdigest()
        raw = mark.encode() * (1 if self._random.random() < 0.9 else LARGE_BYTES // len(mark))
        inline = {"mode": "inline", "inlineBase64": base64.b64encode(raw).decode()}
        return {"status": "success", "response": inline}, hashlib.sha256(raw).hexdigest()


def announced_digest(size: int) -> str:
    """What the history has of an answer that came after the end, when its upload was no longer kept."""
    return hashlib.sha256(f"storage\0{size}".encode()).hexdigest()
