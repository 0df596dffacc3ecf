"""What every handler needs: the service, who is calling, the base URL, the request body."""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from quart import Request

from arc_es.domain.recorded import Principal
from arc_es.http.connection import body_of, header_of, prefix_of
from arc_es.http.problems import Refusal
from arc_es.service import Service
from arc_es.signing import Signer
from arc_es.wire import WireError

OPEN = "open"
USER_AGENT_CHARS_MAX = 256


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling, as the server knows it."""

    principal: Principal
    scope: Literal["admin", "open"]

    @property
    def is_admin(self) -> bool:
        """Whether the caller has every right; in an open service everybody has."""
        return self.scope in ("admin", OPEN)


@dataclass(frozen=True, slots=True)
class Api:
    """The service and the settings of the HTTP edge. Without an admin token the service is open."""

    service: Service
    signer: Signer
    admin_token: str | None
    public_url: str | None
    version: str

    async def caller(self, request: Request) -> Caller:
        """Who is calling, by the Authorization header (`arc.v1` 1.7).

        Raises:
            Refusal: 401, credentials are needed and missing or unknown.
        """
        if self.admin_token is None:
            return Caller(principal_of(request, "open", "open"), "open")
        token = bearer(header_of(request, b"authorization"))
        if token is None or not self.known(token):
            raise Refusal("UNAUTHORIZED", "A valid token is needed: Authorization: Bearer …")
        return Caller(principal_of(request, "admin", "admin"), "admin")

    def known(self, token: str) -> bool:
        """Whether this is a token of the service; in constant time."""
        if self.admin_token is None:
            return True
        return hmac.compare_digest(token.encode(), self.admin_token.encode())

    def base_url(self, request: Request) -> str:
        """The URL in front of `/commands` and `/storage` (`arc.v1` 1.8)."""
        if self.public_url is not None:
            return self.public_url
        return f"{request.scheme}://{request.host}{prefix_of(request)}"


def principal_of(request: Request, name: str, kind: str) -> Principal:
    """The principal that events will name; address and headers are facts of the connection."""
    agent = header_of(request, b"user-agent")
    request_id = header_of(request, b"x-request-id")
    return Principal(
        name,
        kind,
        request.remote_addr,
        None if agent is None else agent[:USER_AGENT_CHARS_MAX],
        None if request_id is None else request_id[:USER_AGENT_CHARS_MAX],
    )


def bearer(header: str | None) -> str | None:
    """The token of an Authorization header: Bearer, or Basic with the token as password; None for anything else."""
    scheme, _, value = (header or "").strip().partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return value or None
    if scheme.lower() == "basic":
        try:
            _, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return None
        return password if colon and password else None
    return None


async def json_of(request: Request) -> Any:
    """The request body as JSON.

    Raises:
        Refusal: 415, another content type. WireError: 400, empty or malformed.
    """
    kind = (header_of(request, b"content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Refusal("UNSUPPORTED_MEDIA_TYPE", "The body must be application/json")
    body = await body_of(request)
    if not body:
        raise WireError(400, "INVALID_REQUEST", "The request body is empty")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise WireError(400, "INVALID_REQUEST", "The request body is not JSON", str(error)) from None
