"""What every handler needs: the service, who is calling, the base URL, the request body."""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass
from typing import Any

import orjson
from quart import Request

from arc_es.domain.ids import Target
from arc_es.domain.limits import PRINCIPAL_CHARS_MAX, SKIPPED_BYTES_MAX
from arc_es.domain.recorded import Principal
from arc_es.domain.tokens import ADMIN, OPEN, Grant, Right
from arc_es.http.connection import body_of, header_of
from arc_es.http.problems import Refusal
from arc_es.http.urls import base_of
from arc_es.links import Links
from arc_es.sealing import Sealer
from arc_es.service import Service
from arc_es.signing import Signer
from arc_es.views import Row
from arc_es.wire import WireError


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling, as the server knows it, and what they may do."""

    principal: Principal
    grant: Grant

    @property
    def is_admin(self) -> bool:
        """Whether the caller may administer; in an open service everybody may."""
        return self.grant.allows("administer")

    def must(self, right: Right) -> None:
        """Step 2 of `arc.v1` 1.7. Raises Refusal 403: this scope never may."""
        if not self.grant.allows(right):
            raise Refusal("FORBIDDEN", f"A token of scope {self.grant.scope} has no right to {right}")

    def must_cover(self, deployment_id: str, target: Target | None = None) -> None:
        """Step 5 of `arc.v1` 1.7. Raises Refusal 403: the token is for other deployments or targets."""
        grant = self.grant
        covered = grant.covers_deployment(deployment_id) if target is None else grant.covers(deployment_id, target)
        if not covered:
            raise Refusal("FORBIDDEN", "This token is not for this deployment and target")

    def must_create(self, deployment_id: str, target_id: str | None, command: str) -> None:
        """Step 5 for a create or its upload. Raises Refusal 403."""
        if not self.grant.may_create(deployment_id, target_id, command):
            raise Refusal("FORBIDDEN", "This token may not create this command for this deployment and target")


@dataclass(frozen=True, slots=True)
class Api:
    """The service and the settings of the HTTP edge. Without an admin token the service is open."""

    service: Service
    signer: Signer
    sealer: Sealer
    admin_token: str | None
    public_url: str | None
    version: str
    trust_forwarded: bool = False

    async def caller(self, request: Request, right: Right | None = None) -> Caller:
        """Who is calling, by the Authorization header; steps 1 and 2 of `arc.v1` 1.7.

        right: what the endpoint asks for; None if any known token will do.

        Raises:
            Refusal: 401, credentials are needed and missing or unknown; 403, this scope never may.
            JournalUnavailable: whether the token is known cannot be told now.
        """
        caller = await self.identified(request)
        if caller is None:
            raise Refusal("UNAUTHORIZED", "A valid token is needed: Authorization: Bearer …")
        if right is not None:
            caller.must(right)
        return caller

    async def identified(self, request: Request) -> Caller | None:
        """Who is calling, None if the header carries no known token; in constant time. In an open service anybody is.

        Raises:
            JournalUnavailable: whether the token is known cannot be told now.
        """
        if self.admin_token is None:
            return Caller(principal_of(request, "open", "open"), OPEN)
        token = bearer(header_of(request, b"authorization"))
        if token is None:
            return None
        if hmac.compare_digest(token.encode(), self.admin_token.encode()):
            return Caller(principal_of(request, "admin", "admin"), ADMIN)
        found = await self.service.tokens.grant_of(token)
        if found is None:
            return None
        token_id, grant = found
        return Caller(principal_of(request, token_id, grant.scope), grant)

    async def covered(self, caller: Caller, command_id: str) -> Row:
        """The command named in the path; steps 4 and 5 of `arc.v1` 1.7.

        Raises:
            CommandNotFound: there is none.
            Refusal: 403, it is not the caller's.
        """
        row = await self.service.known(command_id)
        self.must_cover(caller, row)
        return row

    def must_cover(self, caller: Caller, row: Row) -> None:
        """Step 5 for a command: it is for a deployment and target of the caller. Raises Refusal 403."""
        route = row.state.facts.route
        kind = route.target_type or self.service.type_of(route.deployment_id, route.target_id)
        caller.must_cover(route.deployment_id, Target(route.target_id, kind))

    def refusal_of(self, caller: Caller, row: Row) -> Refusal | None:
        """Why `must_cover` refuses a command, None if it does not."""
        try:
            self.must_cover(caller, row)
        except Refusal as refusal:
            return refusal
        return None

    def base_url(self, request: Request) -> str:
        """The URL in front of `/commands` and `/storage` (`arc.v1` 1.8)."""
        if self.public_url is not None:
            return self.public_url
        return base_of(request, trust_forwarded=self.trust_forwarded)

    def links(self, request: Request, *, relative: bool = False) -> Links:
        """What mints the URLs of the answer to a request; `relative` to the lease endpoint (`arc.v1` 4.7)."""
        base = None if relative else self.base_url(request)
        return Links(self.signer, self.service.store, base, self.service.now())


def principal_of(request: Request, name: str, kind: str) -> Principal:
    """The principal that events will name; address and headers are facts of the connection."""
    agent = header_of(request, b"user-agent")
    request_id = header_of(request, b"x-request-id")
    return Principal(
        name,
        kind,
        request.remote_addr,
        None if agent is None else agent[:PRINCIPAL_CHARS_MAX],
        None if request_id is None else request_id[:PRINCIPAL_CHARS_MAX],
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


async def json_if_any(request: Request) -> Any:
    """The request body as JSON, None if there is no body. Raises as `json_of`."""
    return None if request.content_length == 0 else await json_of(request)


async def note_of(request: Request) -> Any:
    """A small body as JSON where it need not be there, whatever its content type; None if it is none or too large."""
    size = request.content_length
    if not size or size > SKIPPED_BYTES_MAX:
        return None
    try:
        return orjson.loads(await body_of(request))
    except orjson.JSONDecodeError:
        return None


async def json_of(request: Request, *, is_batch: bool = False) -> Any:
    """The request body as JSON; that of a batch may be larger.

    Raises:
        Refusal: 415, another content type. WireError: 400, empty or malformed.
    """
    kind = (header_of(request, b"content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Refusal("UNSUPPORTED_MEDIA_TYPE", "The body must be application/json")
    body = await body_of(request, is_batch=is_batch)
    if not body:
        raise WireError(400, "INVALID_REQUEST", "The request body is empty")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise WireError(400, "INVALID_REQUEST", "The request body is not JSON", str(error)) from None
