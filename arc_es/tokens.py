"""Access tokens: minting, revoking, and finding out whose a token is.

A token is `arc_<id>_<secret>`. The id names its history, the secret is 256 random bits; only its SHA-256 is stored.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, get_args

import trio

from arc_es.actors.follower import Follower
from arc_es.actors.turns import Turns
from arc_es.domain.errors import TokenNotFound
from arc_es.domain.events import TokenCreated, TokenRevoked, TokenScope
from arc_es.domain.ids import Micros, Target
from arc_es.domain.limits import NAMES_PER_TOKEN_MAX, SECOND, TOKEN_LOOK_SECONDS, TOKEN_SECONDS_MAX
from arc_es.domain.recorded import Principal
from arc_es.domain.tokens import Grant, Token
from arc_es.ports import Clock, JournalError, JournalUnavailable
from arc_es.views import TokensView
from arc_es.wire import count, format_time, name_text, optional, parse_object, parse_target, required, text, wrong_shape

T = TypeVar("T")

ID_BYTES: Final = 10
SECRET_BYTES: Final = 32

_TOKEN: Final = re.compile(rf"arc_([0-9a-f]{{{2 * ID_BYTES}}})_([0-9a-f]{{{2 * SECRET_BYTES}}})")
_NO_DIGEST: Final = "0" * 64
"""What the secret of an unknown token is compared with, so that it takes as long as that of a known one."""


@dataclass(frozen=True, slots=True)
class Minted:
    """A new token. `token` is shown once and stored nowhere."""

    token: str
    token_id: str
    expires_at: Micros | None


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """POST /tokens (extensions, "Tokens"); None means all, or for ever."""

    scope: TokenScope
    deployments: tuple[str, ...] | None
    targets: tuple[Target, ...] | None
    command: str | None
    ttl_seconds: int | None
    name: str | None


def parse_token_request(value: object) -> TokenRequest:
    """Read a request to mint a token. Raises WireError 422, or 400 if a name is too long."""
    data = parse_object(value)
    scope = required(data, "scope", text)
    if scope not in get_args(TokenScope):
        raise wrong_shape(f"scope must be one of {', '.join(get_args(TokenScope))}")
    found: TokenScope = scope  # type: ignore[assignment]
    ttl_seconds = optional(data, "ttlSeconds", count)
    if ttl_seconds == 0:
        raise wrong_shape("ttlSeconds must be at least 1")
    request = TokenRequest(
        scope=found,
        deployments=optional(data, "deployments", lambda given, name: _some(given, name, _name)),
        targets=optional(data, "targets", lambda given, name: _some(given, name, _target)),
        command=optional(data, "command", _name),
        ttl_seconds=None if ttl_seconds is None else min(ttl_seconds, TOKEN_SECONDS_MAX),
        name=optional(data, "name", name_text),
    )
    _check_scope(request)
    return request


def _check_scope(request: TokenRequest) -> None:
    """Refuse what a scope cannot have: a limit that nothing keeps would mislead."""
    if request.scope == "admin" and request.deployments is not None:
        raise wrong_shape("deployments: an admin token covers all of them")
    if request.targets is not None and request.scope != "receiver":
        raise wrong_shape("targets: only a receiver token has them")
    if request.scope == "operations":
        if request.deployments is None or len(request.deployments) != 1:
            raise wrong_shape("deployments: an operations token has exactly one")
        if request.command is None:
            raise wrong_shape("command is missing: an operations token creates one kind of command")
        if ":" in request.command:
            raise wrong_shape("command must not contain ':'")
    elif request.command is not None:
        raise wrong_shape("command: only an operations token has one")


def _some(value: object, name: str, read: Callable[[object, str], T]) -> tuple[T, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= NAMES_PER_TOKEN_MAX:
        raise wrong_shape(f"{name} must be a list of 1 to {NAMES_PER_TOKEN_MAX} entries")
    return tuple(read(item, name) for item in value)


def _name(value: object, name: str) -> str:
    if not (found := name_text(value, name)):
        raise wrong_shape(f"{name}: a name is empty")
    return found


def _target(value: object, name: str) -> Target:
    target = parse_target(value, name)
    _name(target.resource_id, f"{name}.resourceId")
    return target


def token_json(token_id: str, token: Token) -> dict[str, Any]:
    """A token as administrators see it; neither its secret nor the digest of it."""
    grant = token.grant
    entry: dict[str, Any] = {"id": token_id, "scope": grant.scope}
    if grant.deployments is not None:
        entry["deployments"] = sorted(grant.deployments)
    if grant.targets is not None:
        targets = sorted((target.resource_id, str(target.resource_type)) for target in grant.targets)
        entry["targets"] = [{"resourceId": name, "resourceType": kind} for name, kind in targets]
    if grant.command is not None:
        entry["command"] = grant.command
    if token.name is not None:
        entry["name"] = token.name
    entry["createdAt"] = format_time(token.created_at)
    if token.expires_at is not None:
        entry["expiresAt"] = format_time(token.expires_at)
    return entry


class Tokens:
    """The use-cases of tokens."""

    def __init__(self, *, tokens: TokensView, turns: Turns, follower: Follower, clock: Clock) -> None:
        self._tokens = tokens
        self._turns = turns
        self._clock = clock
        self._latest = Latest(follower)

    async def grant_of(self, presented: str) -> tuple[str, Grant] | None:
        """Id and rights of the token that was presented, None if it is not known, has expired, or is revoked.

        Another node may have minted it a moment ago, so an unknown id is looked for in the journal.

        Raises:
            JournalUnavailable: whether it is known cannot be told now.
        """
        match = _TOKEN.fullmatch(presented)
        if match is None:
            return None
        token_id, secret = match.groups()
        if self._tokens.get(token_id) is None:
            await self._latest.reached()
        token = self._tokens.get(token_id)
        digest = hashlib.sha256(secret.encode()).hexdigest()
        right = hmac.compare_digest(digest, _NO_DIGEST if token is None else token.sha256)
        if token is None or not right or not token.alive(self._clock.now()):
            return None
        return token_id, token.grant

    async def mint(self, request: TokenRequest, by: Principal) -> Minted:
        """Make a token. Raises JournalError, Overloaded."""
        token_id, secret = secrets.token_hex(ID_BYTES), secrets.token_hex(SECRET_BYTES)
        seconds = request.ttl_seconds
        expires_at = None if seconds is None else self._clock.now() + seconds * SECOND
        event = TokenCreated(
            scope=request.scope,
            sha256=hashlib.sha256(secret.encode()).hexdigest(),
            deployments=request.deployments,
            targets=request.targets,
            command=request.command,
            name=request.name,
            expires_at=expires_at,
        )
        await self._turns.perform_token(token_id, event, by)
        return Minted(f"arc_{token_id}_{secret}", token_id, expires_at)

    async def revoke(self, token_id: str, by: Principal) -> None:
        """End a token now; harmless when it is ended already.

        Raises:
            TokenNotFound: there is none with this id.
            JournalError, Overloaded: it could not be stored.
        """
        if self._tokens.get(token_id) is None:
            await self._latest.reached()
            if self._tokens.get(token_id) is None:
                raise TokenNotFound
        await self._turns.perform_token(token_id, TokenRevoked(), by)

    def not_revoked(self) -> list[tuple[str, Token]]:
        """Ids and tokens that nobody revoked, also expired ones, in order of their making."""
        return [(token_id, token) for token_id, token in self._tokens.all() if token.revoked_at is None]


class Latest:
    """Brings the node up to date with the journal: one look at a time, for all who asked before it began, and few of
    them, so that strangers cannot make the journal busy."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._turn = trio.Lock()
        self._looked_at = float("-inf")
        self._trouble: str | None = None

    async def reached(self) -> None:
        """Wait until all that is stored now has been applied. Raises JournalUnavailable."""
        asked_at = trio.current_time()
        async with self._turn:
            if self._looked_at <= asked_at:
                await trio.sleep_until(self._looked_at + TOKEN_LOOK_SECONDS)
                began_at, trouble = trio.current_time(), None
                try:
                    await self._follower.caught_up()
                except JournalError as error:
                    trouble = str(error)
                self._looked_at, self._trouble = began_at, trouble
            if self._trouble is not None:
                raise JournalUnavailable(self._trouble)
