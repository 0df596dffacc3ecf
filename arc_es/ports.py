"""What the service needs from the outside, as Protocols, and the troubles that the outside may raise."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from arc_es.domain.ids import Micros
from arc_es.domain.recorded import CommandKey, Key

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
BesideKind: TypeAlias = BodyKind | Literal["erased"]
"""What lies beside an event: a body, or (with `CommandErased`) what is left of an erased command."""


@dataclass(frozen=True, slots=True)
class Append:
    """One message to store.

    key: the history it belongs to. expected: the version of that history, i.e. the position of its last message, 0 if
    it has none. id: the decision id, for recognising one's own message. body: raw bytes stored as a message of their
    own, exactly one position before this one. together: what is stored right before this one, all of it or nothing.
    """

    key: Key
    expected: int
    id: str
    payload: bytes
    body: bytes | None = None
    body_kind: BesideKind = "params"
    together: tuple[Append, ...] = ()


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
        """Store messages, each by itself (or with what belongs to it) or not at all; at most one of each history.

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

    async def erasures(self, after: int) -> list[Message]:
        """What is left of erased commands (`Append.body` of kind "erased"), after a position, in order.

        Some of it; nothing only if there is no more. Raises as `read`.
        """

    async def purge(self, key: CommandKey, before: int) -> None:
        """Remove the messages of a command before a position, and the bodies beside them; a later one must stay.

        Their bytes are overwritten where they are stored. The version of the history stays what it is. Harmless when it
        was done before. Raises as `read`.
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

    async def delete(self, name: str, *, overwrite: bool = False) -> None:
        """Forget a ref, or the newest upload of a slot; harmless when it is gone.

        overwrite: its bytes may not even stay where they were on the disk, as far as that is ours to say.
        """

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
