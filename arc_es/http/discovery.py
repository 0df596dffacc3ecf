"""Discovery: clients that are built from one URL and one token ask here for the rest (`arc.v1` 2.9)."""

from __future__ import annotations

from typing import Any

from quart import Blueprint, Request, Response

from arc_es.domain.ids import Target
from arc_es.domain.limits import SECOND
from arc_es.http.api import Api, bearer, json_of
from arc_es.http.connection import header_of
from arc_es.http.problems import json_response
from arc_es.wire import format_time, parse_bootstrap, target_json

BOOTSTRAP_SECONDS = 3_600


def discovery_blueprint(api: Api) -> Blueprint:
    """POST /commands/bootstrap."""
    blueprint = Blueprint("discovery", __name__)
    service = api.service

    @blueprint.post("/commands/bootstrap")
    async def bootstrap(request: Request) -> Response:
        caller = await api.caller(request)
        if not caller.grant.allows("create"):
            caller.must("lease")
        wanted = parse_bootstrap(await json_of(request))
        caller.must("create" if wanted.role == "sender" else "lease")
        caller.must_cover(wanted.deployment_id, None if wanted.target_id is None else Target(wanted.target_id))
        answer: dict[str, Any] = {
            "managerUrl": api.base_url(request).removesuffix("/v1"),
            "token": bearer(header_of(request, b"authorization")) or caller.grant.scope,
            "expiresAt": format_time(service.now() + BOOTSTRAP_SECONDS * SECOND),
        }
        if wanted.target_id is not None:
            target = service.receiver_target(wanted.deployment_id, wanted.target_id)
            caller.must_cover(wanted.deployment_id, target)
            answer["target"] = target_json(target.resource_id, target.resource_type)
        return json_response(answer)

    return blueprint
