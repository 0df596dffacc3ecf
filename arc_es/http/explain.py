"""GET /commands/{commandId}/explain: why a command is where it is (extensions, "Finding")."""

from __future__ import annotations

from quart import Blueprint, Request, Response

from arc_es.http.api import Api
from arc_es.http.problems import json_response


def explain_blueprint(api: Api) -> Blueprint:
    """GET /commands/{commandId}/explain."""
    blueprint = Blueprint("explain", __name__)

    @blueprint.get("/commands/<command:command_id>/explain")
    async def explain(request: Request, command_id: str) -> Response:
        await api.covered(await api.caller(request, "read"), command_id)
        found = await api.service.explaining.explain(command_id, can_push=api.public_url is not None)
        return json_response({"state": found.state, "because": found.because, "facts": found.facts})

    return blueprint
