"""Params and answers under ids that have no command, for demonstrations and migration (`arc.v1` 2.7, 2.8)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from arc_es.actors.messages import Messages
from arc_es.actors.turns import Turns
from arc_es.bodies import Bodies, respond_error, stored
from arc_es.codec import decode
from arc_es.domain.errors import CommandExists, CommandNotFound, InvalidCommand, NotImplementedHere
from arc_es.domain.events import Body, PayloadStored
from arc_es.domain.ids import COMMAND_ID_PATTERN
from arc_es.domain.recorded import Principal
from arc_es.ports import BodyKind, ReadModels
from arc_es.wire import (
    ErrorResponse,
    InlineBody,
    StorageBody,
    SuccessResponse,
    error_response,
    optional,
    parse_body,
    parse_field_object,
    parse_object,
    parse_response,
    success_response,
)


@dataclass(frozen=True, slots=True)
class PayloadRequest:
    """PUT /commands/{commandId}/payload (`arc.v1` 2.8); None where nothing was given."""

    params: InlineBody | StorageBody | None
    response: SuccessResponse | ErrorResponse | None


def parse_payload(value: object) -> PayloadRequest:
    """Read a request to store a payload. Raises WireError 422, or 400 for bad base64."""
    data = parse_object(value)
    return PayloadRequest(
        optional(data, "params", parse_body),
        optional(data, "response", lambda given, name: parse_response(parse_field_object(given, name))),
    )


Step: TypeAlias = tuple[PayloadStored, bytes | None, BodyKind]
"""One decision to store: its event, and the body that goes beside it."""


class Payloads:
    """Stores payloads as events of histories of their own, and reads them back."""

    def __init__(self, *, models: ReadModels, turns: Turns, messages: Messages, bodies: Bodies) -> None:
        self._models = models
        self._turns = turns
        self._messages = messages
        self._bodies = bodies

    async def store(self, command_id: str, request: PayloadRequest, by: Principal) -> None:
        """Store what is given in place of what was stored before; a repeated request stores nothing.

        One decision, but for params and an answer that are both too large for an event: these are two, params first,
        each whole or not at all. If only the first came through, the caller sees an error, and repeating the request
        stores the second.

        Raises:
            InvalidCommand: no command could have this id.
            CommandExists: a command has it; nothing was written.
            NotImplementedHere: a body in storage, or above 150000 bytes; nothing was written.
        """
        if COMMAND_ID_PATTERN.fullmatch(command_id) is None:
            raise InvalidCommand("A command id has 1 to 128 characters out of A-Z, a-z, 0-9, _ and -")
        if self._models.status.get(command_id) is not None:
            raise CommandExists
        for event, beside, kind in _steps(request):
            await self._turns.perform_payload(command_id, event, by, beside, kind)

    async def read(self, command_id: str) -> dict[str, object]:
        """What is stored under an id, as `params` and `response`; each is there if it was given.

        Raises:
            CommandNotFound: nothing is stored under it.
        """
        row = self._models.payloads.get(command_id)
        if row is None:
            raise CommandNotFound
        found: dict[str, object] = {}
        if row.params_at:
            event = await self._event(row.params_at)
            assert event.params is not None, "params_at names a message without params"
            found["params"] = await self._bodies.inline(event.params, row.params_at)
        if row.answer_at:
            found["response"] = await self._answer(row.answer_at)
        return found

    async def _answer(self, at: int) -> dict[str, object]:
        event = await self._event(at)
        if event.response is not None:
            return success_response(await self._bodies.inline(event.response, at))
        if event.body is not None:
            return await self._bodies.long_error(at)
        assert event.code is not None, "answer_at names a message without an answer"
        return error_response(event.code, event.message or "", event.details)

    async def _event(self, at: int) -> PayloadStored:
        event = decode(await self._messages.get(at)).events[-1]
        assert isinstance(event, PayloadStored), "the history of a payload holds another event"
        return event


def _steps(request: PayloadRequest) -> list[Step]:
    """The decisions to store: one, or two where each has a body beside its event."""
    params, params_beside = (None, None) if request.params is None else _stored(request.params)
    answer, answer_beside = _stored_answer(request.response)
    if params_beside is not None and answer_beside is not None:
        return [(PayloadStored(params=params), params_beside, "params"), (answer, answer_beside, "response")]
    whole = replace(answer, params=params)
    return [(whole, answer_beside, "response") if params_beside is None else (whole, params_beside, "params")]


def _stored(body: InlineBody | StorageBody) -> tuple[Body, bytes | None]:
    if isinstance(body, StorageBody):
        raise NotImplementedHere("Bodies in storage are not supported by this version; send them inline")
    return stored(body)


def _stored_answer(response: SuccessResponse | ErrorResponse | None) -> tuple[PayloadStored, bytes | None]:
    """The answer part of an event, and what goes beside it."""
    if response is None:
        return PayloadStored(), None
    if isinstance(response, SuccessResponse):
        body, beside = _stored(response.response)
        return PayloadStored(response=body), beside
    error, beside = respond_error(response)
    event = PayloadStored(
        code=error.code, message=error.message, details=error.details, sha256=error.sha256, body=error.body
    )
    return event, beside
