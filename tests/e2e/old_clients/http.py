"""The HTTP of all old clients, and what `arc.v1` section 1 says about every answer: looked at here, each time."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx2

ANSWER_SECONDS = 30.0
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")
TIMES = {"deadline", "expiration", "expiresAt", "leaseExpiresAt"}
RETRYABLE_4XX = {408, 429}
ACCEPTABLE = {409, 410}
"""What a receiver takes for success beside 2xx when it submits or releases (5.3)."""


class Failed(Exception):
    """An answer that ends what the client was doing."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status} {answer.body[:500]!r}")
        self.status = answer.status


class Answer:
    """What came back."""

    def __init__(self, response: httpx2.Response) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self.body = response.content

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_temporary(self) -> bool:
        """Whether a receiver tries again; every other status is final (5.3)."""
        return self.status in RETRYABLE_4XX or self.status >= 500

    def ok(self) -> Any:
        """The JSON of a 2xx. Raises Failed."""
        if not self.is_success:
            raise Failed(self)
        return self.json if self.body else None

    def refused(self, status: int, code: str) -> Any:
        assert (self.status, self.json["code"]) == (status, code), (self.status, self.body)
        return self.json


class Http:
    """Requests as old clients send them: no redirects followed, nothing added but what the caller says."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client
        self.seen: list[tuple[str, str, Mapping[str, str]]] = []

    async def call(
        self, method: str, url: str, data: Any = None, *, bearer: str | None = None, raw: bytes = b"", **headers: str
    ) -> Answer:
        """One request. data: JSON, or else `raw` goes as it is; `_` in the name of a header stands for `-`."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            raw = json.dumps(data).encode()
            fields = {"Content-Type": "application/json", **fields}
        if bearer is not None:
            fields["Authorization"] = f"Bearer {bearer}"
        self.seen.append((method, url, fields))
        answer = Answer(await self._client.request(method, url, content=raw, headers=fields))
        check_conventions(answer)
        return answer

    async def push(self, url: str, envelope: Any, bearer: str) -> int:
        """Hand an envelope to a worker, which is no arc service; the status."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {bearer}"}
        answered = await self._client.post(url, content=json.dumps(envelope).encode(), headers=headers)
        return answered.status_code


@asynccontextmanager
async def http() -> AsyncGenerator[Http, None]:
    """A client of its own connections."""
    async with httpx2.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False, verify=False) as client:
        yield Http(client)


def check_conventions(answer: Answer) -> None:
    """1.2, 1.3, 1.6: a `Date`, never a redirect, errors in JSON of one shape, no null, times in one form."""
    assert "date" in answer.headers
    assert not 300 <= answer.status < 400, answer.status
    is_json = answer.headers.get("content-type") == "application/json"
    assert answer.is_success or is_json, (answer.status, dict(answer.headers))
    if not answer.body or not is_json:
        return
    if not answer.is_success:
        problem = answer.json
        assert {"code", "message", "retryable"} <= problem.keys() <= {"code", "message", "retryable", "details"}
        assert isinstance(problem["retryable"], bool)
        assert isinstance(problem.get("details", ""), str)
        assert answer.status < 500 or problem["retryable"]
    check_values(answer.json)


def check_values(value: Any, name: str = "") -> None:
    """No null but the size of a storage BodySpec, no number with a fraction, each time in the one form."""
    if isinstance(value, dict):
        for key, inner in value.items():
            check_values(inner, key)
    elif isinstance(value, list):
        for inner in value:
            check_values(inner)
    assert value is not None or name == "size", name
    assert not isinstance(value, float), (name, value)
    assert name not in TIMES or TIME.fullmatch(value), (name, value)


def endpoint(base: str, path: str, *, strips_slash: bool = True) -> str:
    """A path behind a base URL whose query string stays at the end (1.1)."""
    parts = urlsplit(base)
    front = parts.path.rstrip("/") if strips_slash else parts.path
    return urlunsplit((parts.scheme, parts.netloc, front + path, parts.query, ""))


def resolve(posted: str, reference: str) -> str:
    """RFC 3986 5.2 as browsers and Rust do it: repeated slashes stay, the query of `posted` is dropped (4.7)."""
    if urlsplit(reference).scheme or reference.startswith("//"):
        return reference
    parts = urlsplit(posted)
    path, _, query = reference.partition("?")
    segments = parts.path.split("/")[:-1]
    for segment in path.split("/"):
        if segment == "..":
            segments = segments[:-1]
        else:
            segments.append(segment)
    return urlunsplit((parts.scheme, parts.netloc, "/".join(segments), query, ""))
