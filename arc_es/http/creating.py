"""Creating commands (`arc.v1` 2.1)."""

from __future__ import annotations

from typing import Any

from quart import Blueprint, Request, Response

from arc_es.domain.events import TraceContext
from arc_es.domain.state import PUBLIC_STATE, PendingUpload
from arc_es.http.api import Api, json_of
from arc_es.http.connection import header_of
from arc_es.http.problems import json_response
from arc_es.views import Row
from arc_es.wire import create_answer, parse_create, valid_traceparent, valid_tracestate


def creating_blueprint(api: Api) -> Blueprint:
    """POST /commands."""
    blueprint = Blueprint("creating", __name__)
    service = api.service

    @blueprint.post("/commands")
    async def create(request: Request) -> Response:
        caller = await api.caller(request, "create")
        wanted = parse_create(await json_of(request), service.now(), caller.must_create)
        command_id, row = await service.create(wanted, caller.principal, _trace(request))
        return json_response(created_json(api, request, command_id, row))

    return blueprint


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
