"""How params and answers are stored, and how they are read back as wire JSON."""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Sequence
from typing import Final

import orjson

from arc_es.actors.messages import Messages
from arc_es.codec import decode, inline_base64
from arc_es.domain.errors import NotImplementedHere
from arc_es.domain.events import Body, CommandFailed, CommandSucceeded
from arc_es.domain.intents import RespondError
from arc_es.domain.limits import EVENT_BODY_BYTES_MAX, INLINE_BYTES_MAX
from arc_es.domain.state import TERMINAL, Expired
from arc_es.ports import Row
from arc_es.wire import ErrorResponse, InlineBody, error_response, inline_body, storage_body, success_response

ERROR_PREVIEW_CHARS: Final = 1_000


class Bodies:
    """Reads bodies from where the state says that they are."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    async def params_base64(self, rows: Sequence[Row]) -> list[str]:
        """The whole params of some commands, all read at once. Raises as `Messages.get_many`."""
        beside = [row.state.facts.params_place == "message" for row in rows]
        payloads = await self._messages.get_many(
            [row.params_at - is_beside for row, is_beside in zip(rows, beside, strict=True)]
        )
        return [
            _base64_of(is_beside=is_beside, payload=payload)
            for is_beside, payload in zip(beside, payloads, strict=True)
        ]

    async def params(self, row: Row) -> dict[str, object]:
        """The params as a BodySpec."""
        facts = row.state.facts
        if facts.params_place is None:
            return storage_body(facts.params_size)
        return inline_body((await self.params_base64([row]))[0])

    async def answer(self, row: Row) -> dict[str, object] | None:
        """The accepted answer as a CommandResponse; None in EXPIRED and in every state that is not terminal."""
        if not isinstance(row.state, TERMINAL) or isinstance(row.state, Expired):
            return None
        event = decode(await self._messages.get(row.answer_at)).events[-1]
        if isinstance(event, CommandSucceeded):
            return success_response(await self.inline(event.response, row.answer_at))
        if not isinstance(event, CommandFailed):
            raise TypeError(f"the answer of a command is a {type(event).__name__}")
        if event.body is not None:
            return await self.long_error(row.answer_at)
        return error_response(event.code, event.message, event.details)

    async def inline(self, body: Body, at: int) -> dict[str, object]:
        """The body of an event in the message at `at`, as an inline BodySpec."""
        if body.place == "event":
            return inline_body(body.base64 or "")
        return inline_body(_base64_of(is_beside=True, payload=await self._messages.get(at - 1)))

    async def long_error(self, at: int) -> dict[str, object]:
        """The error answer that lies beside the message at `at`, as a CommandResponse."""
        whole = orjson.loads(await self._messages.get(at - 1))
        return error_response(whole["code"], whole["message"], whole.get("details"))


def stored(body: InlineBody) -> tuple[Body, bytes | None]:
    """How a body is stored, and the bytes that go beside the event if they do not go inside."""
    size = len(body.raw)
    if size > INLINE_BYTES_MAX:
        raise NotImplementedHere("Bodies above 150000 bytes are not supported by this version")
    sha256 = hashlib.sha256(body.raw).hexdigest()
    if size <= EVENT_BODY_BYTES_MAX:
        return Body(place="event", size=size, sha256=sha256, base64=body.base64), None
    return Body(place="message", size=size, sha256=sha256), body.raw


def params_digest(body: InlineBody) -> str:
    """What is compared when an idempotency key comes again: the mode and the bytes (`arc.v1` 4.5)."""
    return hashlib.sha256(b"inline\0" + body.raw).hexdigest()


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


def _base64_of(*, is_beside: bool, payload: bytes) -> str:
    """The base64 text of a body that is a message of its own (beside its event), or lies in an event."""
    if is_beside:
        return binascii.b2a_base64(payload, newline=False).decode()
    return inline_base64(payload)
