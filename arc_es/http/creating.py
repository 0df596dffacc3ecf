"""Creating commands, one or many (`arc.v1` 2.1, extensions "Creating and waiting")."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any, Final

import trio
from quart import Blueprint, Request, Response

from arc_es.domain.events import TraceContext
from arc_es.domain.limits import ENTRIES_MAX
from arc_es.domain.state import PUBLIC_STATE, PendingUpload
from arc_es.http.api import Api, Caller, json_of
from arc_es.http.commands import status_json
from arc_es.http.connection import header_of, until_disconnected
from arc_es.http.problems import Refusal, entry_error, json_response
from arc_es.ports import JournalError, Overloaded
from arc_es.views import Row
from arc_es.wire import (
    CreateRequest,
    WireError,
    create_answer,
    parse_create,
    parse_list,
    parse_object,
    required,
    valid_traceparent,
    valid_tracestate,
)

ENTRIES_AT_ONCE: Final = 50
"""Of a batch that are read without a pause for others: a few milliseconds."""


def creating_blueprint(api: Api) -> Blueprint:
    """POST /commands and POST /commands/batch."""
    blueprint = Blueprint("creating", __name__)
    service = api.service

    @blueprint.post("/commands")
    async def create(request: Request) -> Response:
        caller = await api.caller(request, "create")
        wanted = parse_create(await json_of(request), service.now(), caller.must_create)
        command_id, row = await service.create(wanted, caller.principal, _trace(request))
        if wanted.wait_seconds and not isinstance(row.state, PendingUpload):  # of that, nobody has the upload URL yet
            with suppress(JournalError, Overloaded):  # it was created, whatever comes after that
                return json_response(await _awaited(api, request, command_id, wanted.wait_seconds))
        return json_response(created_json(api, request, command_id, row))

    @blueprint.post("/commands/batch")
    async def batch(request: Request) -> Response:
        caller = await api.caller(request, "create")
        given = required(parse_object(await json_of(request, is_batch=True)), "commands", parse_list)
        if len(given) > ENTRIES_MAX:
            raise WireError(413, "PAYLOAD_TOO_LARGE", f"commands has more than {ENTRIES_MAX} entries")
        entries = await _parsed(api, caller, given)
        wanted = [entry for entry in entries if isinstance(entry, CreateRequest)]
        made = iter(await service.create_each(wanted, caller.principal, _trace(request)))
        results = [next(made) if isinstance(entry, CreateRequest) else entry for entry in entries]
        return json_response({"results": [_result_json(api, request, result) for result in results]})

    return blueprint


async def _awaited(api: Api, request: Request, command_id: str, wait_seconds: int) -> dict[str, Any]:
    """The answer to a create whose caller waits for the end of the command."""
    row = await until_disconnected(request, partial(api.service.status, command_id, wait_seconds))
    return {**created_json(api, request, command_id, row), **await status_json(api, request, command_id, row)}


async def _parsed(api: Api, caller: Caller, given: list[Any]) -> list[CreateRequest | WireError | Refusal]:
    """The entries of a batch, or why one is refused."""
    entries: list[CreateRequest | WireError | Refusal] = []
    for entry in given:
        if len(entries) % ENTRIES_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
        try:
            entries.append(parse_create(entry, api.service.now(), caller.must_create))
        except (WireError, Refusal) as refusal:
            entries.append(refusal)
    return entries


def _result_json(api: Api, request: Request, result: tuple[str, Row] | Exception) -> dict[str, Any]:
    if isinstance(result, Exception):
        return {"error": entry_error(result)}
    return created_json(api, request, *result)


def created_json(api: Api, request: Request, command_id: str, row: Row) -> dict[str, Any]:
    """The answer to a create."""
    answer = create_answer(command_id, PUBLIC_STATE[type(row.state)])
    if isinstance(row.state, PendingUpload):
        answer["storageUpload"] = api.links(request).storage_upload(command_id)
    return answer


def _trace(request: Request) -> TraceContext | None:
    traceparent = valid_traceparent(header_of(request, b"traceparent"))
    if traceparent is None:
        return None
    return TraceContext(traceparent=traceparent, tracestate=valid_tracestate(header_of(request, b"tracestate")))
