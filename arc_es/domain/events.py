"""Facts, past tense. These classes are storage formats.

Never rename a class or a field, never change what a field means: stored histories are for ever. A new shape is a new
version in `arc_es.codec`, with an upcaster from the old one. Fields with a default are left out of storage when they
have it, so a new optional field needs no new version. All times are microseconds since the Unix epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Final, Literal, TypeAlias

from arc_es.domain.ids import Delivery, Micros, ResourceType, Target
from arc_es.domain.value import record

BodyPlace: TypeAlias = Literal["event", "message", "store"]
FailureOrigin: TypeAlias = Literal["agent", "delivery", "cancel", "attempts", "storage"]
ExpiryReason: TypeAlias = Literal["deadline", "upload"]
TokenScope: TypeAlias = Literal["admin", "sender", "receiver", "auditor", "operations"]

SIZE_UNKNOWN: Final = -1
"""The size of a body that is nowhere and was announced without one."""


@record
class Body:
    """Where the bytes of params or a response are, and what they are.

    place: "event" (here, in `base64`), "message" (the stream message just before this one), "store" (body store, under
    the name `ref`; without one the bytes are nowhere, only their announced size is known).
    size: raw bytes, `SIZE_UNKNOWN` if it was not even announced. sha256: lower-case hex over the raw bytes; empty if
    it was erased.
    """

    place: BodyPlace
    size: int
    sha256: str
    base64: str | None = None
    ref: str | None = None


@record
class RetryPolicy:
    """How long a command rests after an attempt that ended without an answer."""

    initial_seconds: float
    max_seconds: float
    factor: float


@record
class TraceContext:
    """W3C trace context of the request that created a command (`arc.v1` 3.8)."""

    traceparent: str
    tracestate: str | None = None


@record
class PushSettings:
    """Where and how a declared worker target is pushed to.

    The bearer token of the target is a secret: only its encrypted form is stored, as `token_sealed`. `token` (in clear)
    is how the first versions stored it; it is read for ever and written no more.
    """

    url: str
    token: str | None = None
    timeout_seconds: int = 180
    token_sealed: str | None = None


@record
class DeclaredTarget:
    """One target of a declared deployment."""

    resource_id: str
    resource_type: ResourceType
    delivery: Delivery = "pull"
    push: PushSettings | None = None


@record
class DeploymentDeclared:
    """An administrator gave a deployment its targets and settings, replacing any earlier declaration.

    max_leases_without_target: how many commands one lease request gets that names no target; None: as many as it asks.
    """

    model: Delivery
    targets: tuple[DeclaredTarget, ...]
    project_id: str | None = None
    max_attempts: int = 20
    retry: RetryPolicy | None = None
    idempotency_conflict: Literal["reject", "replay"] = "reject"
    max_leases_without_target: int | None = None


@record
class TargetObserved:
    """A receiver leased with this id and type for the first time in an undeclared deployment; the type is now fixed."""

    resource_id: str
    resource_type: ResourceType


@record
class DeliveryPaused:
    """An administrator stopped the deliveries of one target, or of a whole deployment (target_id None).

    What is leased or being pushed already goes on; nothing more is handed out until `DeliveryResumed`.
    """

    target_id: str | None = None
    reason: str = ""


@record
class DeliveryResumed:
    """What `DeliveryPaused` stopped goes on."""

    target_id: str | None = None


@record
class ConcurrencyLimited:
    """An administrator said how many commands of a target may be leased or being pushed at once; None: any number."""

    target_id: str
    leases_max: int | None = None


@record
class CommandCreated:
    """A caller asked that a command run.

    params is None while the caller still has to upload them (PENDING_UPLOAD); `upload_size` is then the announced size,
    a hint, and `upload_until` the end of the upload window. `params_digest` (hex SHA-256 over the mode and the bytes or
    the announced size, `arc.v1` 4.5) is there with an idempotency key. redrive_of: the ended command that this one
    repeats.
    """

    deployment_id: str
    command: str
    target_id: str
    target_type: ResourceType | None
    delivery: Delivery = "pull"
    params: Body | None = None
    upload_size: int | None = None
    upload_until: Micros | None = None
    deadline: Micros | None = None
    idempotency_key: str | None = None
    params_digest: str | None = None
    max_attempts: int = 20
    retry: RetryPolicy | None = None
    priority: int = 0
    not_before: Micros | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    trace: TraceContext | None = None
    redrive_of: str | None = None


@record
class UploadCompleted:
    """The params were uploaded and verified; the command may now be delivered."""

    params: Body


@record
class CommandLeased:
    """A receiver took the command; nobody else gets it until `expires_at`."""

    lease_id: str
    attempt: int
    expires_at: Micros
    target_type: ResourceType
    agent: str | None = None


@record
class LeaseRenewed:
    """The holder asked for more time."""

    lease_id: str
    expires_at: Micros


@record
class LeaseReleased:
    """The holder gave the command back; `attempt` is the attempt that ended.

    undelivered: the service took it back, since nobody has received the lease; the attempt has not ended then.
    """

    lease_id: str
    attempt: int
    available_at: Micros | None = None
    undelivered: bool = False


@record
class LeaseExpired:
    """The time of a lease, or of a delivery lease, ran out; `attempt` is the attempt that ended."""

    lease_id: str
    attempt: int
    available_at: Micros | None = None


@record
class CommandDispatched:
    """The service is about to push the command under a delivery lease (whose id is never public)."""

    lease_id: str
    attempt: int
    expires_at: Micros


@record
class DeliveryFailed:
    """A push was definitely not accepted; `attempt` is the attempt that ended."""

    lease_id: str
    attempt: int
    reason: str
    available_at: Micros | None = None


@record
class CommandSucceeded:
    """An answer with a result was accepted. Final."""

    attempt: int
    response: Body


@record
class CommandFailed:
    """An error answer was accepted, or the service gave up. Final.

    A long error is stored as `body` (JSON object of code, message, details); the texts here are then its first part.
    `sha256` is the digest of an agent's whole error answer.
    """

    attempt: int
    origin: FailureOrigin
    code: str
    message: str
    details: str | None = None
    sha256: str | None = None
    body: Body | None = None


@record
class CommandExpired:
    """The deadline passed, or the upload window closed. Final."""

    attempt: int
    reason: ExpiryReason


@record
class LateResponseRecorded:
    """An answer came after the end of the command; it changed nothing. Size and digest say what it was."""

    status: Literal["success", "error"]
    size: int
    sha256: str
    code: str | None = None


@record
class CommandRedriven:
    """Somebody had it run again, as a new command, which was stored together with this."""

    redriven_as: str


@record
class CommandArchived:
    """All messages of the command before this one, `messages` of them, went to a segment file, bodies included.

    segment: name of the file. sha256: hex digest of the line that is this command's.
    """

    segment: str
    sha256: str
    messages: int


@record
class CommandErased:
    """An administrator had what is private about the command removed for good, and said why.

    messages: all of its messages before this one; their public parts, and where bodies were, are in the stream message
    just before this one. unproven: how many of them are of schema version 1, so that their digest vouches for the
    whole of what they were, and for nothing that is left.
    """

    reason: str
    messages: int
    unproven: int = 0


@record
class PayloadStored:
    """An administrator stored params, an answer, or both under an id that has no command.

    What is given replaces what was stored before; what is not given stays. The answer is a result (`response`) or an
    error (`code` and what follows, in the form of `CommandFailed`).
    """

    params: Body | None = None
    response: Body | None = None
    code: str | None = None
    message: str | None = None
    details: str | None = None
    sha256: str | None = None
    body: Body | None = None


@record
class TokenCreated:
    """An administrator made a token. What is stored is `sha256`, the hex digest of its secret; the secret is nowhere.

    deployments, targets: None means all. command: of the scope operations only, the one that it may create.
    """

    scope: TokenScope
    sha256: str
    deployments: tuple[str, ...] | None = None
    targets: tuple[Target, ...] | None = None
    command: str | None = None
    name: str | None = None
    expires_at: Micros | None = None


@record
class TokenRevoked:
    """An administrator ended a token before its time. Final."""


@record
class CheckpointKeyAdded:
    """A key signs checkpoints from now on.

    origin: the name of the log, the same for ever. public_key: `<origin>+<key id>+<base64>` (C2SP signed-note). note:
    the announcement, signed by the key itself and, if that was at hand, by the key before it.
    """

    origin: str
    public_key: str
    note: str


@record
class CheckpointSigned:
    """The service signed the root of the tree over the first `size` event messages of the log.

    position: of the last of them. note: the checkpoint (C2SP tlog-checkpoint).
    """

    size: int
    position: int
    note: str


CommandEvent: TypeAlias = (
    CommandCreated
    | UploadCompleted
    | CommandLeased
    | LeaseRenewed
    | LeaseReleased
    | LeaseExpired
    | CommandDispatched
    | DeliveryFailed
    | CommandSucceeded
    | CommandFailed
    | CommandExpired
    | LateResponseRecorded
    | CommandRedriven
    | CommandArchived
    | CommandErased
)
DeploymentEvent: TypeAlias = DeploymentDeclared | TargetObserved | DeliveryPaused | DeliveryResumed | ConcurrencyLimited
PayloadEvent: TypeAlias = PayloadStored
TokenEvent: TypeAlias = TokenCreated | TokenRevoked
LogEvent: TypeAlias = CheckpointKeyAdded | CheckpointSigned
Event: TypeAlias = CommandEvent | DeploymentEvent | PayloadEvent | TokenEvent | LogEvent
