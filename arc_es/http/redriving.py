"""Letting commands run again (extensions, "Creating and waiting")."""

from __future__ import annotations

from quart import Blueprint, Request, Response

from arc_es.http.api import Api
from arc_es.http.creating import created_json
from arc_es.http.problems import json_response


def redriving_blueprint(api: Api) -> Blueprint:
    """POST /commands/{commandId}/redrive."""
    blueprint = Blueprint("redriving", __name__)
    service = api.service

    @blueprint.post("/commands/<command:command_id>/redrive")
    async def redrive(request: Request, command_id: str) -> Response:
        caller = await api.caller(request, "create")
        route = (await service.known(command_id)).state.facts.route
        caller.must_create(route.deployment_id, route.target_id, route.command)
        return json_response(created_json(api, request, *await service.redrive(command_id, caller.principal)))

    return blueprint
