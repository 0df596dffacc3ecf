"""A service process under fire: what exists in it, what it has acknowledged, and what it must never answer."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tests.fuzz import seeds
from tests.fuzz.strategies import Known, Request

ADMIN: Final = "fuzz-admin-token"
ANSWER_SECONDS: Final = 20.0
WAITING_SECONDS: Final = 0.1
"""How long the fuzzer stays with a request that may wait for long."""
FRESH_EVERY: Final = 25
"""Requests after which new things are made, as the old ones are finished or gone."""
ALLOWED_5XX: Final = {503: {"OVERLOADED", "JOURNAL_UNAVAILABLE"}, 507: {"JOURNAL_FULL"}}
CONTENT_TYPES: Final = {
    "application/json",
    "application/octet-stream",
    "application/jsonl",
    "application/cloudevents-batch+json",
    "text/plain",
}
_STATUS: Final = re.compile(rb"(?:^|\}|\n)HTTP/1\.1 (\d{3}) ")


class World:
    """Plain blocking sockets: Hypothesis calls us from a thread."""

    def __init__(self, port: int, pid: int) -> None:
        self._port = port
        self._pid = pid
        self._sock: socket.socket | None = None
        self._sent = 0
        self.known: dict[str, list[str]] = {}
        self.acknowledged: set[str] = set()
        self.statuses: dict[int, int] = {}

    # --- talking

    def call(self, method: str, path: str, data: Any = None) -> Any:
        """A well-formed request that must succeed; the answer's JSON."""
        body = b"" if data is None else json.dumps(data).encode()
        status, _, answer = self._send(method, path, {"Content-Type": "application/json"}, body)
        assert status in (200, 201, 204), (method, path, status, answer)
        return json.loads(answer) if answer else None

    def fire(self, request: Request) -> None:
        """Send a request and check the answer."""
        if self._sent % FRESH_EVERY == 0:
            self._freshen()
        self._sent += 1
        path = "".join(self._text(part) for part in request.path)
        try:
            status, headers, body = self._send(request.method, path, dict(request.headers), request.body)
        except TimeoutError:
            self.close()
            assert "waitSeconds" in path or b"waitSeconds" in request.body, "no answer"
            return
        self._judge(status, headers, body, head=request.method == "HEAD")
        routed = re.sub("/+", "/", path.partition("?")[0]).removeprefix("/v1").rstrip("/")
        if (request.method, routed, status) == ("POST", "/commands", 200):
            self.acknowledged.add(json.loads(body)["commandId"])

    def fire_raw(self, data: bytes) -> None:
        """Send bytes on a connection of their own, and look at all that comes back."""
        received = b""
        with socket.create_connection(("127.0.0.1", self._port), ANSWER_SECONDS) as sock, suppress(ConnectionError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while piece := sock.recv(65_536):
                received += piece
        for found in _STATUS.findall(received):
            self._count(int(found))
            assert int(found) < 500 or int(found) in ALLOWED_5XX, received

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Any, bytes]:
        sent = {"Host": "127.0.0.1", "Authorization": f"Bearer {ADMIN}"} | dict(headers)
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("latin-1")
        if self._sock is None:
            self._sock = socket.create_connection(("127.0.0.1", self._port))
        waits = "waitSeconds" in path or b"waitSeconds" in body
        self._sock.settimeout(WAITING_SECONDS if waits else ANSWER_SECONDS)
        self._sock.sendall(head + body)
        response = http.client.HTTPResponse(self._sock, method=method)
        response.begin()
        found = response.status, response.headers, response.read()
        if response.headers.get("Connection") == "close":
            self.close()
        return found

    # --- what exists

    def _freshen(self) -> None:
        """A command in each of several states, a lease, a token, and signed URLs of bodies."""
        plain = {key: value for key, value in seeds.CREATE.items() if key != "idempotencyKey"}
        plain |= {"deploymentId": f"fresh_{self._sent}"}
        lease = seeds.LEASE | {"deploymentId": plain["deploymentId"]}
        del lease["waitSeconds"]
        upload = self.call("POST", "/v1/commands", plain | {"params": {"mode": "storage", "size": 3}})
        created = [self.call("POST", "/v1/commands", plain)["commandId"] for _ in range(3)]
        leases = self.call("POST", "/v1/commands/leases", lease)["leases"]
        self.call("PUT", f"/v1/commands/{leases[0]['commandId']}/response", seeds.SUCCESS)
        token = self.call("POST", "/v1/tokens", {"scope": "auditor"})
        put = urlsplit(upload["storageUpload"]["putRequest"]["backend"]["url"])
        self.known = {
            "command_id": [upload["commandId"], *created],
            "lease_id": [one["leaseId"] for one in leases],
            "token_id": [token["tokenId"] if "tokenId" in token else token["id"]],
            "deployment_id": [str(plain["deploymentId"]), "fuzz"],
            "kind": ["params", f"params?{put.query}&", "response"],
        }
        self.acknowledged |= {upload["commandId"], *created}

    def _text(self, part: str | Known) -> str:
        if isinstance(part, str):
            return part
        choices = self.known.get(part.argument, ["x"])
        return choices[part.index % len(choices)]

    # --- judging

    def _count(self, status: int) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1

    def _judge(self, status: int, headers: Any, body: bytes, *, head: bool) -> None:
        self._count(status)
        assert headers["Date"], "an answer without a date"
        if head:
            assert status < 500, status
            return
        if status < 400:
            assert not body or headers["Content-Type"].partition(";")[0] in CONTENT_TYPES, headers
            return
        assert headers["Content-Type"] == "application/json", (status, body)
        problem = json.loads(body)
        assert {"code", "message", "retryable"} <= problem.keys() <= {"code", "message", "retryable", "details"}, (
            problem
        )
        assert len(body) < 20_000, "an error that echoes"
        if status >= 500:
            assert problem["code"] in ALLOWED_5XX.get(status, ()), (status, problem)
            assert headers["Retry-After"]

    def rss_bytes(self) -> int:
        """How much memory the service process has."""
        pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
        return pages * 4_096
