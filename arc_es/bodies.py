"""Where params and answers are kept, and how they are found again.

Up to 4 KiB inside the event, up to 150 000 bytes as a message beside it, larger ones in the body store (design section
3). A body that came through storage and is small enough is taken out of it, so that nobody who reads it has to care.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import orjson
import trio

from arc_es.actors.messages import Messages
from arc_es.codec import decode, inline_base64
from arc_es.domain.events import SIZE_UNKNOWN, Body, CommandFailed, CommandSucceeded, Event, PayloadStored
from arc_es.domain.intents import RespondError
from arc_es.domain.limits import EVENT_BODY_BYTES_MAX, INLINE_BYTES_MAX
from arc_es.domain.state import TERMINAL, Expired, needs_body
from arc_es.ports import BodyStore, BodyStoreError, Slot, StoredBody
from arc_es.views import Row
from arc_es.wire import ErrorResponse, InlineBody, StorageBody

ERROR_PREVIEW_CHARS: Final = 1_000
YOUNG_SECONDS: Final = 3_600.0
"""Longer than any request takes, by a clock that does not jump."""


@dataclass(frozen=True, slots=True)
class Inline:
    """A body that travels inside JSON."""

    base64: str


@dataclass(frozen=True, slots=True)
class InStore:
    """A body that is downloaded by a URL of its own. size: bytes."""

    ref: str
    size: int


@dataclass(frozen=True, slots=True)
class Announced:
    """A body that was not uploaded; size: bytes, None if its sender did not say."""

    size: int | None


@dataclass(frozen=True, slots=True)
class Missing:
    """Params that cannot be delivered: `gone` for good, or only out of reach now."""

    gone: bool


Found: TypeAlias = Inline | InStore | Announced
Deliverable: TypeAlias = Inline | InStore
Answer: TypeAlias = ErrorResponse | Found
Stored: TypeAlias = tuple[Body, bytes | None]
"""How a body is stored, and the bytes that go beside the event, if they do."""


ERASED: Final = ErrorResponse("COMMAND_ERASED", "What was answered has been erased", None)
"""The answer of a command that was erased: to those who wait for a result, an error that they understand."""


class Bodies:
    """Stores bodies, and reads them from where the state says that they are."""

    def __init__(self, messages: Messages, store: BodyStore) -> None:
        self._messages = messages
        self.store = store
        self._stored_at: dict[str, float] = {}

    # --- storing

    async def stored(self, slot: Slot, body: InlineBody) -> Stored:
        """Bytes that came inside JSON; large ones are in the store before any event names them.

        Raises:
            BodyStoreError: the store cannot take them; nothing was stored.
        """
        if len(body.raw) <= INLINE_BYTES_MAX:
            return inline(body.raw, body.base64)
        return self._remembered(await self.store.keep(slot, body.raw)), None

    async def taken(self, kept: StoredBody) -> Stored:
        """A sealed upload; a small one is taken out of the store. Raises BodyStoreError, BodyMissing."""
        if kept.size <= INLINE_BYTES_MAX:
            return inline(await self._whole(kept.ref))
        return self._remembered(kept), None

    async def is_there(self, row: Row) -> bool:
        """Whether the params of a command can be copied. Raises JournalError, BodyStoreError."""
        found = await self.params(row)
        return not isinstance(found, InStore) or await self.store.exists(found.ref)

    async def copied(self, slot: Slot, row: Row) -> Stored:
        """The params of a command as those of another one: bodies are never shared, so each goes with its command.

        Raises:
            BodyMissing: they are gone.
            BodyStoreError, JournalError: they cannot be copied now.
        """
        found = await self.params(row)
        if isinstance(found, Inline):
            return inline(binascii.a2b_base64(found.base64), found.base64)
        assert isinstance(found, InStore), "params that were never uploaded are not copied"
        async with self.store.read(found.ref) as reader:
            await self.store.upload(slot, reader.chunks, reader.size)
        kept = await self.store.seal(slot)
        if kept is None:
            raise BodyStoreError("The copy of the params is gone")
        return self._remembered(kept), None

    def _remembered(self, kept: StoredBody) -> Body:
        self._stored_at[kept.ref] = trio.current_time()
        return in_store(kept)

    def is_young(self, ref: str) -> bool:
        """Whether this process stored it so lately that its event may still be on its way, whatever the clock says."""
        before = trio.current_time() - YOUNG_SECONDS
        while self._stored_at and next(iter(self._stored_at.values())) < before:
            del self._stored_at[next(iter(self._stored_at))]
        return ref in self._stored_at

    async def _whole(self, ref: str) -> bytes:
        async with self.store.read(ref) as reader:
            return b"".join([chunk async for chunk in reader.chunks])

    # --- finding

    async def deliverable(self, rows: Sequence[Row]) -> list[Deliverable | Missing]:
        """The params of some commands, read together; what cannot be delivered is `Missing`. Raises JournalError."""
        beside = [row.state.facts.params_place == "message" for row in rows]
        payloads = await self._messages.get_many(
            [row.params_at - is_beside for row, is_beside in zip(rows, beside, strict=True)]
        )
        found: list[Deliverable | Missing] = []
        for row, is_beside, payload in zip(rows, beside, payloads, strict=True):
            if row.state.facts.params_place == "store":
                found.append(_from_event(decode(payload).events[-1]))
            else:
                found.append(Inline(_base64_of(is_beside=is_beside, payload=payload)))
        if any(isinstance(body, InStore) for body in found):
            await self._check(found)
        return found

    async def _check(self, found: list[Deliverable | Missing]) -> None:
        """See that what lies in the store is there."""

        async def check(index: int, ref: str) -> None:
            try:
                if not await self.store.exists(ref):
                    found[index] = Missing(gone=True)
            except BodyStoreError:
                found[index] = Missing(gone=False)

        async with trio.open_nursery() as nursery:
            for index, body in enumerate(found):
                if isinstance(body, InStore):
                    nursery.start_soon(check, index, body.ref)

    async def params(self, row: Row) -> Found | None:
        """The params of a command, None if they were erased. Raises JournalError."""
        facts = row.state.facts
        if facts.params_place is None:
            return Announced(facts.params_size)
        decision = decode(await self._messages.get(row.params_at))
        if decision.is_erased:
            return None
        if facts.params_place == "store":
            return _from_event(decision.events[-1])
        body = needs_body(decision.events[-1])
        assert body is not None, "params_at names an event without params"
        return await self.found(body, row.params_at)

    async def answer(self, row: Row) -> Answer | None:
        """The accepted answer, `ERASED` if it was a result that was erased; None in EXPIRED and in every state that is
        not terminal. Raises JournalError."""
        if not isinstance(row.state, TERMINAL) or isinstance(row.state, Expired):
            return None
        decision = decode(await self._messages.get(row.answer_at))
        event = decision.events[-1]
        if isinstance(event, CommandSucceeded):
            return ERASED if decision.is_erased else await self.found(event.response, row.answer_at)
        if not isinstance(event, CommandFailed):
            raise TypeError(f"the answer of a command is a {type(event).__name__}")
        if decision.is_erased:
            return ErrorResponse(event.code, ERASED.message, None)
        return await self.error(event, row.answer_at)

    async def event(self, at: int) -> Event:
        """The last event of the message at `at`. Raises JournalError."""
        return decode(await self._messages.get(at)).events[-1]

    async def found(self, body: Body, at: int) -> Found:
        """The body of an event in the message at `at`. Raises JournalError."""
        if body.place == "event":
            return Inline(body.base64 or "")
        if body.place == "message":
            return Inline(_base64_of(is_beside=True, payload=await self._messages.get(at - 1)))
        if body.ref is not None:
            return InStore(body.ref, body.size)
        return Announced(None if body.size == SIZE_UNKNOWN else body.size)

    async def error(self, event: CommandFailed | PayloadStored, at: int) -> ErrorResponse:
        """The error answer in the message at `at`; a long one lies beside it, whole. Raises JournalError."""
        if event.body is None:
            return ErrorResponse(event.code or "", event.message or "", event.details)
        whole = orjson.loads(await self._messages.get(at - 1))
        return ErrorResponse(whole["code"], whole["message"], whole.get("details"))


def inline(raw: bytes, base64: str | None = None) -> Stored:
    """A body of at most 150 000 bytes: inside the event, or beside it."""
    sha256 = hashlib.sha256(raw).hexdigest()
    if len(raw) > EVENT_BODY_BYTES_MAX:
        return Body(place="message", size=len(raw), sha256=sha256), raw
    text = base64 if base64 is not None else binascii.b2a_base64(raw, newline=False).decode()
    return Body(place="event", size=len(raw), sha256=sha256, base64=text), None


def in_store(kept: StoredBody) -> Body:
    """A body that stays in the body store."""
    return Body(place="store", size=kept.size, sha256=kept.sha256, ref=kept.ref)


def described(body: InlineBody) -> Body:
    """A body of which only size and digest are recorded."""
    return Body(place="store", size=len(body.raw), sha256=hashlib.sha256(body.raw).hexdigest())


def announced(body: StorageBody) -> Body:
    """A body that nobody has uploaded; its digest is of what was said about it."""
    size = SIZE_UNKNOWN if body.size is None else body.size
    return Body(place="store", size=size, sha256=_digest_of_announced(body))


def params_digest(body: InlineBody | StorageBody) -> str:
    """What is compared when an idempotency key comes again: the mode and the bytes, or the announced size (4.5)."""
    if isinstance(body, StorageBody):
        return _digest_of_announced(body)
    return hashlib.sha256(b"inline\0" + body.raw).hexdigest()


def _digest_of_announced(body: StorageBody) -> str:
    return hashlib.sha256(f"storage\0{'' if body.size is None else body.size}".encode()).hexdigest()


def respond_error(response: ErrorResponse) -> tuple[RespondError, bytes | None]:
    """The intent of an error answer; one too long for an event goes beside it, whole."""
    whole = {"code": response.code, "message": response.message}
    if response.details is not None:
        whole["details"] = response.details
    raw = orjson.dumps(whole)
    sha256 = hashlib.sha256(raw).hexdigest()
    if len(raw) <= EVENT_BODY_BYTES_MAX:
        short = RespondError(
            code=response.code, message=response.message, details=response.details, sha256=sha256, size=len(raw)
        )
        return short, None
    intent = RespondError(
        code=response.code[:ERROR_PREVIEW_CHARS],
        message=response.message[:ERROR_PREVIEW_CHARS],
        details=None,
        sha256=sha256,
        size=len(raw),
        body=Body(place="message", size=len(raw), sha256=sha256),
    )
    return intent, raw


def _from_event(event: object) -> InStore:
    body = needs_body(event)  # type: ignore[arg-type]  # an event that params_at names
    assert body is not None, "params_at names an event without params"
    assert body.ref is not None, "params in the store have a ref"
    return InStore(body.ref, body.size)


def _base64_of(*, is_beside: bool, payload: bytes) -> str:
    """The base64 text of a body that is a message of its own (beside its event), or lies in an event."""
    if is_beside:
        return binascii.b2a_base64(payload, newline=False).decode()
    return inline_base64(payload)
