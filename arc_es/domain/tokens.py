"""Access tokens: what a scope may do (`arc.v1` 1.7, extensions "Tokens"), and the life of one token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from arc_es.domain.errors import TokenIdTaken, TokenNotFound
from arc_es.domain.events import TokenCreated, TokenEvent, TokenRevoked, TokenScope
from arc_es.domain.ids import OPERATOR, Micros, Target

Scope: TypeAlias = TokenScope | Literal["open"]
"""What a caller is. `open`: anybody, in a service without an admin token; may do everything."""

Right: TypeAlias = Literal["create", "read", "cancel", "lease", "administer", "audit"]
"""What is asked for. create: also upload-complete and redrive. read: status, payload, history, queues, declarations.
lease: also renew, release and answer. administer: declare deployments, mint and revoke tokens, store payloads.
audit: prove and export."""

RIGHTS: Final[Mapping[Scope, frozenset[Right]]] = {
    "open": frozenset({"create", "read", "cancel", "lease", "administer", "audit"}),
    "admin": frozenset({"create", "read", "cancel", "lease", "administer", "audit"}),
    "sender": frozenset({"create", "read", "cancel"}),
    "receiver": frozenset({"read", "lease"}),
    "auditor": frozenset({"read", "audit"}),
    "operations": frozenset({"create"}),
}
"""What each scope may do at all."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a caller may do. deployments, targets: None means all. command: the only one that `operations` creates."""

    scope: Scope
    deployments: frozenset[str] | None = None
    targets: frozenset[Target] | None = None
    command: str | None = None

    def allows(self, right: Right) -> bool:
        """Whether the scope may do this at all, to whatever it covers."""
        return right in RIGHTS[self.scope]

    def covers_deployment(self, deployment_id: str) -> bool:
        """Whether something of this deployment is within reach."""
        return self.deployments is None or deployment_id in self.deployments

    def covers(self, deployment_id: str, target: Target) -> bool:
        """Whether what is for this target is within reach, to read, lease or cancel it.

        While nobody has said the type of a target, its id decides: to lease from it would settle the type.
        """
        if not self.covers_deployment(deployment_id):
            return False
        if self.targets is None:
            return True
        if target.resource_id == OPERATOR:
            return False
        if target.resource_type is None:
            return any(target.resource_id == one.resource_id for one in self.targets)
        return target in self.targets

    def may_create(self, deployment_id: str, target_id: str | None, command: str) -> bool:
        """Whether this command may be created, or its upload completed. target_id: None while none is named.

        What is for the operator is created by its own scope only, which creates nothing else.
        """
        if self.scope == "open":
            return True
        if not self.allows("create") or not self.covers_deployment(deployment_id):
            return False
        if self.scope == "operations":
            return target_id == OPERATOR and command == self.command
        return target_id != OPERATOR


OPEN: Final = Grant("open")
ADMIN: Final = Grant("admin")


@dataclass(frozen=True, slots=True)
class Token:
    """One token that was made. sha256: hex digest of its secret."""

    grant: Grant
    sha256: str
    created_at: Micros
    name: str | None = None
    expires_at: Micros | None = None
    revoked_at: Micros | None = None

    def alive(self, now: Micros) -> bool:
        """Whether it may be used now."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def decide_token(intent: TokenEvent, state: Token | None) -> tuple[TokenEvent, ...]:
    """The events that `intent` produces; `()` when the token is revoked already.

    Making and revoking have no choices of their own, so the wanted fact is the intent.

    Raises:
        TokenNotFound: nothing to revoke.
        TokenIdTaken: there is a token with this id.
    """
    match intent:
        case TokenCreated():
            if state is not None:
                raise TokenIdTaken
            return (intent,)
        case TokenRevoked():
            if state is None:
                raise TokenNotFound
            return () if state.revoked_at is not None else (intent,)


def evolve_token(state: Token | None, event: TokenEvent, at: Micros) -> Token:
    """The token after `event`, which happened at `at`. Raises TokenNotFound if it was never made."""
    match event:
        case TokenCreated():
            return Token(_grant(event), event.sha256, at, event.name, event.expires_at)
        case TokenRevoked():
            if state is None:
                raise TokenNotFound
            return replace(state, revoked_at=at)


def _grant(event: TokenCreated) -> Grant:
    return Grant(
        event.scope,
        None if event.deployments is None else frozenset(event.deployments),
        None if event.targets is None else frozenset(event.targets),
        event.command,
    )
