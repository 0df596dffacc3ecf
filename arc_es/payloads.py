"""Params and answers under ids that have no command, for demonstrations and migration (`arc.v1` 2.7, 2.8)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from arc_es.actors.turns import Turns
from arc_es.bodies import Answer, Bodies, Found, Stored, announced, respond_error
from arc_es.domain.errors import CommandExists, CommandNotFound, InvalidCommand
from arc_es.domain.events import PayloadStored
from arc_es.domain.ids import COMMAND_ID_PATTERN
from arc_es.domain.recorded import Principal
from arc_es.lookup import Lookup
from arc_es.ports import BodyKind, Slot
from arc_es.views import PayloadRow, ReadModels
from arc_es.wire import (
    ErrorResponse,
    InlineBody,
    StorageBody,
    SuccessResponse,
    optional,
    parse_body,
    parse_field_object,
    parse_object,
    parse_response,
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

    def __init__(self, models: ReadModels, turns: Turns, bodies: Bodies, lookup: Lookup) -> None:
        self._models = models
        self._lookup = lookup
        self._turns = turns
        self._bodies = bodies

    async def store(self, command_id: str, request: PayloadRequest, by: Principal) -> None:
        """Store what is given in place of what was stored before; a repeated request stores nothing.

        One decision, but for params and an answer that both go beside their event: these are two, params first, each
        whole or not at all. If only the first came through, the caller sees an error, and repeating the request stores
        the second. A body in storage mode is one that nobody uploaded: what was said of its size is kept.

        Raises:
            InvalidCommand: no command could have this id.
            CommandExists: a command has it; nothing was written.
            BodyStoreError: a large body cannot be stored; nothing was written.
        """
        if COMMAND_ID_PATTERN.fullmatch(command_id) is None:
            raise InvalidCommand("A command id has 1 to 128 characters out of A-Z, a-z, 0-9, _ and -")
        if await self._lookup.found(command_id) is not None:
            raise CommandExists
        for event, beside, kind in await self._steps(command_id, request):
            await self._turns.perform_payload(command_id, event, by, beside, kind)

    async def _steps(self, command_id: str, request: PayloadRequest) -> list[Step]:
        """The decisions to store: one, or two where each has a body beside its event."""
        params, params_beside = None, None
        if request.params is not None:
            params, params_beside = await self._stored(Slot(command_id, "params"), request.params)
        answer, answer_beside = PayloadStored(), None
        if isinstance(request.response, SuccessResponse):
            slot = Slot(command_id, "response")
            body, answer_beside = await self._stored(slot, request.response.response)
            answer = PayloadStored(response=body)
        elif request.response is not None:
            error, answer_beside = respond_error(request.response)
            answer = PayloadStored(
                code=error.code, message=error.message, details=error.details, sha256=error.sha256, body=error.body
            )
        if params_beside is not None and answer_beside is not None:
            return [(PayloadStored(params=params), params_beside, "params"), (answer, answer_beside, "response")]
        whole = replace(answer, params=params)
        return [(whole, answer_beside, "response") if params_beside is None else (whole, params_beside, "params")]

    async def _stored(self, slot: Slot, body: InlineBody | StorageBody) -> Stored:
        if isinstance(body, StorageBody):
            return announced(body), None
        return await self._bodies.stored(slot, body)

    def row(self, command_id: str) -> PayloadRow:
        """Where things are that are stored under an id. Raises CommandNotFound."""
        row = self._models.payloads.get(command_id)
        if row is None:
            raise CommandNotFound
        return row

    async def params(self, command_id: str) -> Found | None:
        """The params under an id, None if none were stored. Raises CommandNotFound."""
        row = self.row(command_id)
        if not row.params_at:
            return None
        event = await self._event(row.params_at)
        assert event.params is not None, "params_at names a message without params"
        return await self._bodies.found(event.params, row.params_at)

    async def answer(self, command_id: str) -> Answer | None:
        """The answer under an id, None if none was stored. Raises CommandNotFound."""
        row = self.row(command_id)
        if not row.answer_at:
            return None
        event = await self._event(row.answer_at)
        if event.response is not None:
            return await self._bodies.found(event.response, row.answer_at)
        return await self._bodies.error(event, row.answer_at)

    async def _event(self, at: int) -> PayloadStored:
        event = await self._bodies.event(at)
        assert isinstance(event, PayloadStored), "the history of a payload holds another event"
        return event
