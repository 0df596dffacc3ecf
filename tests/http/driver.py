"""A served service without sockets: the app called as hypercorn calls it, on a journal in memory and a clock to set."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import trio

from arc_es.bootstrap import Node, assemble, build_app
from arc_es.config import Config
from arc_es.domain.ids import Micros
from arc_es.domain.limits import SECOND
from arc_es.http.app import ArcApp
from arc_es.http.connection import Presence
from arc_es.journal.memory import MemoryJournal
from arc_es.keyring import KeyRing, signing_key
from arc_es.ports import BodyStore, Pusher
from arc_es.proof.proving import Proving

ADMIN = "admin-token-123"
T0: Micros = 1_772_359_200 * SECOND
"""2026-03-01T10:00:00Z"""
E30 = "e30="
"""base64 of {}"""


class Clock:
    """A wall clock that stands still until it is set."""

    def __init__(self) -> None:
        self.at = T0

    def now(self) -> Micros:
        return self.at

    def advance(self, seconds: float) -> None:
        self.at += round(seconds * SECOND)


@dataclass
class Answer:
    """What came back."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)

    def ok(self) -> Any:
        assert self.status == 200, (self.status, self.body)
        return self.json if self.body else None

    def refused(self, status: int, code: str) -> Any:
        """It is this error, in the one shape of errors."""
        assert (self.status, self.json["code"]) == (status, code), (self.status, self.body)
        assert {"code", "message", "retryable"} <= set(self.json) <= {"code", "message", "retryable", "details"}
        assert self.json["retryable"] is (code in RETRYABLE)
        assert isinstance(self.json["message"], str)
        return self.json


RETRYABLE = {"GENERIC_ERROR", "NOT_READY", "JOURNAL_UNAVAILABLE", "OVERLOADED", "JOURNAL_FULL", "REQUEST_TIMEOUT"}
RETRYABLE |= {"STORAGE_OPERATION_FAILED"}


@asynccontextmanager
async def _leaving(gone: trio.Event | None, client: Presence) -> AsyncIterator[None]:
    """The client leaves when the event is set."""

    async def leave(gone: trio.Event) -> None:
        await gone.wait()
        client.left()

    async with trio.open_nursery() as nursery:
        if gone is not None and gone.is_set():
            client.left()
        elif gone is not None:
            nursery.start_soon(leave, gone)
        yield
        nursery.cancel_scope.cancel()


@dataclass
class Client:
    """Calls the app; `token` is what it presents, None for nothing."""

    app: ArcApp
    token: str | None = ADMIN
    host: str = "arc.example"

    async def call(
        self,
        method: str,
        path: str,
        data: Any = None,
        *,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        gone: trio.Event | None = None,
        into: Answer | None = None,
        taking: Callable[[], Awaitable[None]] | None = None,
    ) -> Answer:
        """One request. `data` is sent as JSON; `raw` as it is; `gone` is set when the client leaves.

        The answer is put `into` as it comes; the client is ready for more of it when `taking` returns.
        """
        body = raw if raw is not None else b"" if data is None else json.dumps(data).encode()
        sent = {"host": self.host, "content-length": str(len(body))}
        if data is not None:
            sent["content-type"] = "application/json"
        if self.token is not None:
            sent["authorization"] = f"Bearer {self.token}"
        sent |= {name.lower(): value for name, value in (headers or {}).items()}
        plain, _, query = path.partition("?")
        left, client = trio.Event() if gone is None else gone, Presence()
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(plain),
            "raw_path": plain.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent.items() if value],
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 8420),
            "extensions": {},
            "state": {},
            "arc.client": client,
        }
        messages: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
        answer = into or Answer()

        async def receive() -> dict[str, Any]:
            if messages:
                await trio.lowlevel.checkpoint()
                return messages.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            await trio.lowlevel.checkpoint()
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
            elif message["type"] == "http.response.body":
                answer.body += message.get("body", b"")
                if taking is not None:
                    await taking()

        async with _leaving(gone, client):
            await self.app(scope, receive, send)  # type: ignore[arg-type]
        return answer

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.call("GET", path, **more)

    async def post(self, path: str, data: Any = None, **more: Any) -> Answer:
        return await self.call("POST", path, data, **more)

    async def put(self, path: str, data: Any = None, **more: Any) -> Answer:
        return await self.call("PUT", path, data, **more)

    def presenting(self, token: str | None) -> Client:
        return Client(self.app, token, self.host)


@dataclass
class Served:
    """A node with its app, journal and clock, and sentences about commands."""

    node: Node
    app: ArcApp
    journal: MemoryJournal
    clock: Clock
    client: Client

    async def create(self, **more: Any) -> str:
        """A new command of dep for indexer."""
        answer = await self.client.post("/v1/commands", a_command(**more))
        created: str = answer.ok()["commandId"]
        return created

    async def lease(self, **more: Any) -> list[Any]:
        """Leases of dep's daemon indexer."""
        found: list[Any] = (await self.client.post("/v1/commands/leases", a_lease(**more))).ok()["leases"]
        return found

    async def status(self, command_id: str) -> Any:
        return (await self.client.get(f"/v1/commands/{command_id}")).ok()

    async def respond(self, command_id: str, response: Any = None) -> Answer:
        return await self.client.put(f"/v1/commands/{command_id}/response", response or success())

    async def release(self, lease_id: str) -> Answer:
        return await self.client.post(f"/v1/commands/leases/{lease_id}/release")

    async def events(self, command_id: str) -> list[Any]:
        found: list[Any] = (await self.client.get(f"/v1/commands/{command_id}/events")).ok()["events"]
        return found

    async def types(self, command_id: str) -> list[str]:
        return [event["type"] for event in await self.events(command_id)]

    async def declare(self, *targets: Mapping[str, Any], deployment: str = "dep", **more: Any) -> Answer:
        return await self.client.put(f"/v1/deployments/{deployment}", {"targets": list(targets), **more})


def without_none(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value is not None}


def a_command(**more: Any) -> dict[str, Any]:
    """A create request; None leaves a field out."""
    plain = {"deploymentId": "dep", "command": "report/build", "params": inline(b"{}"), "targetResourceId": "indexer"}
    return without_none(plain | more)


def a_target(resource_id: str = "indexer", resource_type: str = "daemon") -> dict[str, str]:
    return {"resourceId": resource_id, "resourceType": resource_type}


def a_lease(**more: Any) -> dict[str, Any]:
    """A lease request; None leaves a field out."""
    return without_none({"deploymentId": "dep", "target": a_target()} | more)


def inline(raw: bytes) -> dict[str, str]:
    return {"mode": "inline", "inlineBase64": base64.b64encode(raw).decode()}


def success(raw: bytes = b'{"rows":17}') -> dict[str, Any]:
    return {"status": "success", "response": inline(raw)}


def failure(code: str = "DB_DOWN", message: str = "no connection", **more: Any) -> dict[str, Any]:
    return {"status": "error", "code": code, "message": message, **more}


@asynccontextmanager
async def serving(
    journal: MemoryJournal | None = None,
    clock: Clock | None = None,
    pusher: Pusher | None = None,
    store: BodyStore | None = None,
    keys: KeyRing | None = None,
    proving: Proving | None = None,
    **settings: Any,
) -> AsyncGenerator[Served, None]:
    """A running service; `settings` are those of `Config`, with an admin token unless told otherwise."""
    config = Config(**({"admin_token": ADMIN} | settings))
    journal = journal or MemoryJournal()
    clock = clock or Clock()
    keys = keys or KeyRing(b"example-signing-key" if config.admin_token is None else signing_key(config))
    node = assemble(journal, config, clock=clock, keys=keys, pusher=pusher, store=store, proving=proving)
    app = build_app(node.service, config, keys)
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        yield Served(node, app, journal, clock, Client(app))
        nursery.cancel_scope.cancel()
