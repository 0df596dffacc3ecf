"""What somebody asks of one command. Intents are never stored; what comes of them, if anything, is.

Ids and randomness come in with the intent, so deciding stays pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from arc_es.domain.events import Body, RetryPolicy, TraceContext
from arc_es.domain.ids import Delivery, Micros, ResourceType, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Ask that a command run. Fields are those of `CommandCreated`; params None means that they will be uploaded."""

    deployment_id: str
    command: str
    target: Target
    delivery: Delivery
    params: Body | None
    upload_size: int | None = None
    deadline: Micros | None = None
    idempotency_key: str | None = None
    params_digest: str | None = None
    replay_on_conflict: bool = False
    max_attempts: int = 20
    retry: RetryPolicy | None = None
    priority: int = 0
    not_before: Micros | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    trace: TraceContext | None = None
    redrive_of: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteUpload:
    """Say that the params are uploaded; the service has verified them."""

    params: Body


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Take the command for `seconds`; `lease_id` is new and made by the service."""

    lease_id: str
    seconds: int
    target_type: ResourceType
    agent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Renew:
    """Keep the lease for `seconds` from now."""

    lease_id: str
    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Give the command back, leasable at once or after `delay`. undelivered: nobody has received the lease."""

    lease_id: str
    delay: Micros = 0
    undelivered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RespondSuccess:
    """Answer with a result."""

    response: Body


@dataclass(frozen=True, slots=True, kw_only=True)
class RespondError:
    """Answer with an error; `sha256` and `size` are of the whole answer, `body` holds it when it is long."""

    code: str
    message: str
    details: str | None
    sha256: str
    size: int
    body: Body | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """The caller no longer wants it."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Redrive:
    """Let the ended command run again as the new command `redriven_as`, if its newest redrive still is `newest`."""

    redriven_as: str
    newest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """The service is about to push the command; `seconds` is the length of the delivery lease."""

    lease_id: str
    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectDelivery:
    """The push under this delivery lease was definitely not accepted."""

    lease_id: str
    reason: str
    jitter: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoseParams:
    """The params object is gone for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erase:
    """Remove what is private about a command that has ended. messages, unproven: as in `CommandErased`."""

    reason: str
    messages: int
    unproven: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time passed: do what is due."""

    jitter: float = 1.0


Intent: TypeAlias = (
    Create
    | CompleteUpload
    | Lease
    | Renew
    | Release
    | RespondSuccess
    | RespondError
    | Cancel
    | Redrive
    | Dispatch
    | RejectDelivery
    | LoseParams
    | Erase
    | Tick
)
