"""What the service needs from the outside, as Protocols, and the troubles that the outside may raise."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from arc_es.domain.checkpoints import SignedCheckpoint
from arc_es.domain.deployments import Deployment
from arc_es.domain.ids import Micros, ResourceType
from arc_es.domain.payloads import Payload
from arc_es.domain.queues import QueueCounts
from arc_es.domain.recorded import CommandKey, Key, Recorded
from arc_es.domain.state import Route, State
from arc_es.domain.tokens import Token

# --- troubles of the journal: named by whose fault they are


class JournalError(Exception):
    """Something about the journal went wrong."""


class JournalUnavailable(JournalError):
    """The journal cannot be reached. Nothing was written; try again later."""


class OutcomeUnknown(JournalError):
    """The journal did not say whether it stored the message. Look before you do anything else; never call it failed."""


class Conflict(JournalError):
    """Somebody else wrote to this history first. Nothing was written; read on and decide again."""


class JournalFull(JournalError):
    """The journal has no room for this message. Nothing was written; make room, then try again."""


class JournalClosed(JournalError):
    """We closed the journal; do not use it any more."""


class JournalMismatch(JournalError):
    """The stream exists and is not as this version needs it. The message names the field; nothing was changed."""


class JournalCorrupt(Exception):
    """A stored message cannot be understood: a bug, a damaged store, or a newer version wrote it. Never handled."""


class Overloaded(Exception):
    """Too much is going on; nothing was written. Try again later."""


class BodyStoreError(Exception):
    """The body store cannot be used now, or refused. Nothing that was stored before has changed; try again later."""


class BodyStoreFull(BodyStoreError):
    """The body store has no room. Nothing was stored; make room, then try again."""


class BodyStoreMismatch(Exception):
    """The body store is not as configured, or not as this version needs it. The message says what to do."""


class BodyMissing(Exception):
    """The body store answers, and has nothing under this name."""


class BodyTooLarge(Exception):
    """More bytes came than are allowed; nothing was stored."""


# --- the journal

BodyKind: TypeAlias = Literal["params", "response"]


@dataclass(frozen=True, slots=True)
class Append:
    """One message to store.

    key: the history it belongs to. expected: the version of that history, i.e. the position of its last message, 0 if
    it has none. id: the decision id, for recognising one's own message. body: raw bytes stored as a message of their
    own, exactly one position before this one.
    """

    key: Key
    expected: int
    id: str
    payload: bytes
    body: bytes | None = None
    body_kind: BodyKind = "params"


AppendOutcome: TypeAlias = int | JournalError
"""The position of the stored message, or Conflict, OutcomeUnknown, JournalFull, JournalUnavailable."""


@dataclass(frozen=True, slots=True)
class Message:
    """One stored event message."""

    position: int
    key: Key
    payload: bytes


Handle: TypeAlias = Callable[[int, Key, bytes], None]
"""Takes position, key and payload of one event message."""


class Journal(Protocol):
    """An append-only log of histories, each guarded by its version. Positions grow over all histories together."""

    async def append(self, appends: Sequence[Append]) -> list[AppendOutcome]:
        """Store messages, each by itself or not at all; at most one of each history.

        Returns one outcome for each, in order, after all are durable; raises no JournalError but JournalClosed.
        """

    async def read(self, positions: Sequence[int]) -> list[bytes | None]:
        """The payloads (event messages or bodies) at these positions, None where there is none.

        Raises:
            JournalUnavailable: the journal cannot be reached.
        """

    async def last(self, key: Key) -> Message | None:
        """The last message of a history, read from the leader: sees every acknowledged append. Raises as `read`."""

    async def history(self, key: Key) -> list[Message]:
        """All messages of a history, in order. Raises as `read`."""

    async def page(self, after: int, limit: int, bytes_max: int) -> list[Message]:
        """The first event messages of all histories after a position, in order and without gaps.

        At most `limit` of them, of about `bytes_max` together, but at least one if there is any. Raises as `read`.
        """

    async def end(self) -> int:
        """The position of the last event message, 0 if there is none. Raises as `read`."""

    async def identity(self) -> str:
        """A name of this journal that no other one has, for what is kept of it elsewhere. Raises as `read`."""

    async def follow(self, after: int, handle: Handle) -> None:
        """Call `handle` for each event message after that position, in order, without gaps, for ever.

        Survives reconnects. `handle` must not block; an exception from it ends `follow`.
        """

    @property
    def available(self) -> bool:
        """Whether the journal can be reached and, if somebody follows it, delivers, as far as known."""

    @property
    def spacious(self) -> bool:
        """Whether there is room for new commands, beside what the running ones still need to come to an end."""

    def reserve_for(self, live: Callable[[], int]) -> None:
        """Have `live` asked how many commands have not come to an end: `spacious` leaves room for them."""


# --- bodies too large for the journal


@dataclass(frozen=True, slots=True)
class Slot:
    """Where uploads of one command arrive: its params, or its response."""

    command_id: str
    kind: BodyKind

    @property
    def path(self) -> str:
        """The logical object path of `arc.v1` 2.10."""
        return f"arc/commands/{self.command_id}/{self.kind}"


@dataclass(frozen=True, slots=True)
class StoredBody:
    """Bytes that are stored whole and never change. ref: their name. size: bytes. sha256: lower-case hex."""

    ref: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StoredName:
    """Something in a body store: a ref, or (with `is_upload`) the newest upload of a slot. at: when it was stored."""

    name: str
    slot: Slot
    at: Micros
    is_upload: bool


@dataclass(frozen=True, slots=True)
class BodyReader:
    """Stored bytes, read as they are asked for. size: bytes of all chunks together."""

    size: int
    chunks: AsyncIterator[bytes]


class BodyStore(Protocol):
    """Bodies of commands, by names of their own; memory in use never grows with the size of a body.

    A body is first an upload, which the next upload to its slot replaces, or which is sealed: then it has a ref and
    never changes. A ref is `<slot path>/<Unix seconds>-<random hex>`, so that it tells whose it is and how old. All
    methods raise BodyStoreError.
    """

    async def upload(self, slot: Slot, chunks: AsyncIterable[bytes], bytes_max: int) -> None:
        """Make these bytes the newest upload of the slot, durably; broken off, the one before stays.

        Raises:
            BodyTooLarge: more than `bytes_max` came.
            Whatever `chunks` raises.
        """

    async def seal(self, slot: Slot) -> StoredBody | None:
        """The newest complete upload, fixed: later uploads do not change it. None if there is none.

        Raises:
            BodyTooLarge: it went straight to the store, and is larger than the store was told to allow.
        """

    async def keep(self, slot: Slot, raw: bytes) -> StoredBody:
        """Store bytes that are here already, sealed at once."""

    def read(self, name: str) -> AbstractAsyncContextManager[BodyReader]:
        """The bytes of a ref, or of the newest upload of a slot by its path. Raises BodyMissing on entering."""

    async def exists(self, ref: str) -> bool:
        """Whether the bytes are there. False is certain; not to be able to tell is BodyStoreError."""

    async def delete(self, name: str) -> None:
        """Forget a ref, or the newest upload of a slot; harmless when it is gone."""

    def names(self) -> AsyncGenerator[StoredName, None]:
        """Everything that is stored, also what was broken off and was never whole, in no order.

        What is deleted meanwhile does no harm. It is a generator: whoever may stop early closes it (`aclosing`).
        """

    def upload_url(self, slot: Slot, seconds: int) -> str | None:
        """A URL good for one method, PUT, for so long, straight to the store; None: through our own endpoints."""

    def download_url(self, ref: str, seconds: int) -> str | None:
        """A URL good for GET for so long, straight to the store; None: through our own endpoints."""


# --- pushing to workers


@dataclass(frozen=True, slots=True)
class PushOutcome:
    """What became of one push (`arc.v1` 4.4). reason: for the history and the log; no secrets."""

    result: Literal["accepted", "rejected", "unclear"]
    reason: str = ""


class Pusher(Protocol):
    """A way to hand an envelope to a worker runtime."""

    async def push(self, url: str, token: str | None, envelope: bytes) -> PushOutcome:
        """Send one envelope (JSON) to a target, with its bearer token; never raises.

        rejected: the worker certainly did not get it, or said no. unclear: it may have it. The caller cancels a push
        that takes longer than `PUSH_SECONDS_MAX`; that is unclear, too.
        """


# --- time


class Clock(Protocol):
    """Wall-clock time."""

    def now(self) -> Micros:
        """Microseconds since the Unix epoch, UTC."""


class SystemClock:
    """The machine's wall clock."""

    def now(self) -> Micros:
        """Microseconds since the Unix epoch, UTC."""
        return time.time_ns() // 1_000


# --- read models: projections as the service sees them


class Row(Protocol):
    """What is known of one command. Positions: version of its last message, params_at and answer_at of the messages
    that hold (or come right after) the params and the answer; 0 if there are none yet."""

    @property
    def command_id(self) -> str: ...
    @property
    def state(self) -> State: ...
    @property
    def version(self) -> int: ...
    @property
    def params_at(self) -> int: ...
    @property
    def answer_at(self) -> int: ...


class StatusView(Protocol):
    """The folded state of each command, but for those that ended long ago: `arc_es.lookup` brings them back."""

    def get(self, command_id: str) -> Row | None:
        """The row of a command, None if it is not in memory."""

    def await_row(self, command_id: str) -> None:
        """Watch an id that is not in memory for decisions that pass by, until `restore` or `give_up`."""

    def restore(self, key: CommandKey, history: Iterable[Recorded]) -> Row | None:
        """Put the row of an ended command back, from its whole history; None: more has passed by, read it again."""

    def give_up(self, command_id: str) -> None:
        """End one `await_row`."""

    def holder_of(self, lease_id: str) -> str | None:
        """The id of the command that is held under this live lease."""

    def items(self) -> Iterable[tuple[str, Row]]:
        """Ids and rows of all commands in memory."""

    def __len__(self) -> int: ...


class PendingView(Protocol):
    """Which commands wait for a receiver (`pending`) or a push (`pushes`).

    Per target, best first: higher priority, then longer waiting.
    """

    def take(self, deployment_id: str, target_id: str | None, count: int, now: Micros) -> list[str]:
        """Reserve up to `count` leasable commands; target None means all pull targets of the deployment but `operator`.

        A taken command is offered to nobody else until it is given back, or leaves the queue by an event.
        """

    def give_back(self, command_ids: Iterable[str]) -> None:
        """End reservations; commands that are still pending are offered again, at their old place."""

    def next_available_at(self) -> Micros | None:
        """When the next delayed command becomes leasable."""

    def wake_delayed(self, now: Micros) -> list[str]:
        """Make commands whose time has come leasable; returns their ids."""

    def queues(self, now: Micros) -> list[QueueCounts]:
        """All queues that ever had a command."""

    def ahead(self, route: Route, priority: int, params_at: int, count_max: int) -> int:
        """How many leasable commands of the same target are taken before this one, counted up to `count_max`."""


class DueView(Protocol):
    """When commands next change by themselves."""

    def next_at(self) -> Micros | None:
        """The earliest time at which something is due."""

    def take_due(self, now: Micros, count: int) -> list[str]:
        """Remove and return up to `count` commands that are due; they come back by `put_back` or by an event."""

    def put_back(self, command_ids: Iterable[str]) -> None:
        """Offer commands again whose Tick could not be stored."""


class IdempotencyView(Protocol):
    """Which command holds an idempotency key."""

    def holder(self, deployment_id: str, target_id: str, command: str, key: str) -> str | None:
        """The id of the newest command created with this key, if it is remembered."""


class DeploymentsView(Protocol):
    """What is known of deployments and their targets."""

    def get(self, deployment_id: str) -> Deployment:
        """Declaration and observed targets (empty for a deployment nobody declared or leased from)."""

    def version(self, deployment_id: str) -> int:
        """The version of the deployment's own history."""

    def known_targets(self, deployment_id: str) -> Iterable[str]:
        """Target ids that a create named or resolved to."""

    def type_of(self, deployment_id: str, target_id: str) -> ResourceType | None:
        """The type of a target, None while nobody has said."""

    def declared(self) -> list[str]:
        """Ids of all declared deployments, in order of name."""


class PayloadRow(Protocol):
    """What is known of an id that has no command. Positions as those of `Row`, but of the latest params and answer."""

    @property
    def payload(self) -> Payload: ...
    @property
    def version(self) -> int: ...
    @property
    def params_at(self) -> int: ...
    @property
    def answer_at(self) -> int: ...


class PayloadsView(Protocol):
    """What is stored under ids that have no command."""

    def get(self, command_id: str) -> PayloadRow | None:
        """The row of an id, None if nothing was ever stored under it. A row never changes; a new one replaces it."""


class TokensView(Protocol):
    """All access tokens ever made."""

    def get(self, token_id: str) -> Token | None:
        """The token with this id, also one that is revoked or has expired; None if it was never made."""

    def version(self, token_id: str) -> int:
        """The version of the token's own history."""

    def all(self) -> Iterable[tuple[str, Token]]:
        """Ids and tokens, in order of their making."""


class CheckpointsView(Protocol):
    """The signed state of the log."""

    @property
    def origin(self) -> str | None:
        """The name of the log, None as long as it has no key."""

    @property
    def key_notes(self) -> tuple[str, ...]:
        """The announcements of all keys, in order."""

    @property
    def latest(self) -> SignedCheckpoint | None:
        """The checkpoint over most of the log."""

    def version(self, name: str) -> int:
        """The version of the history of the keys, or of the checkpoints of a day that is not over."""


class StatsView(Protocol):
    """Counts over everything."""

    @property
    def messages(self) -> int:
        """Decisions applied."""

    @property
    def events(self) -> int:
        """Events applied."""

    def by_state(self) -> dict[str, int]:
        """Number of commands in each public state."""


class ReadModels(Protocol):
    """All projections, fed in one place."""

    @property
    def status(self) -> StatusView: ...
    @property
    def pending(self) -> PendingView: ...
    @property
    def pushes(self) -> PendingView: ...
    @property
    def due(self) -> DueView: ...
    @property
    def idempotency(self) -> IdempotencyView: ...
    @property
    def deployments(self) -> DeploymentsView: ...
    @property
    def payloads(self) -> PayloadsView: ...
    @property
    def tokens(self) -> TokensView: ...
    @property
    def checkpoints(self) -> CheckpointsView: ...
    @property
    def stats(self) -> StatsView: ...

    def findable(self, position: int) -> None:
        """Everything up to this position can be found in the index: what ended long ago may leave memory."""

    def apply(self, recorded: Recorded) -> str | None:
        """Fold one decision. Returns the id of a command that may be leased or pushed from now on, else None."""

    def dump(self) -> Iterator[tuple[str, Any]]:
        """Everything as named pieces of plain data, in an order that `load` needs; equal for equal histories."""

    def load(self, pieces: Iterable[tuple[str, Any]]) -> None:
        """Take in what was dumped by the same version; only into new projections."""
