"""Erasing what is private about a command."""

from __future__ import annotations

from typing import Any

from quart import Blueprint, Request, Response

from arc_es.domain.state import PUBLIC_STATE
from arc_es.event_json import principal_json
from arc_es.http.api import Api, json_of
from arc_es.http.problems import json_response
from arc_es.wire import format_time, parse_erase


def erasing_blueprint(api: Api) -> Blueprint:
    """POST /commands/{commandId}/erase."""
    blueprint = Blueprint("erasing", __name__)

    @blueprint.post("/commands/<command:command_id>/erase")
    async def erase(request: Request, command_id: str) -> Response:
        caller = await api.caller(request, "administer")
        reason = parse_erase(await json_of(request))
        row, is_gone = await api.service.erase(command_id, reason, caller.principal)
        answer = {"commandId": command_id, "state": PUBLIC_STATE[type(row.state)]}
        return json_response({**answer, **await erased_json(api, command_id), "gone": is_gone})

    return blueprint


async def erased_json(api: Api, command_id: str) -> dict[str, Any]:
    """That a command was erased, when, by whom and why."""
    decision, event = await api.service.erasure(command_id)
    facts = {"at": format_time(decision.at), "by": principal_json(decision.by), "reason": event.reason}
    return {"erased": facts}
