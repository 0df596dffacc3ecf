"""Pausing and limiting deliveries (extensions, "Deployments")."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quart import Blueprint, Request, Response

from arc_es.controls import controls_json, parse_limit, parse_pause, parse_resume
from arc_es.domain.deployments import Control
from arc_es.http.api import Api, json_if_any, json_of
from arc_es.http.problems import json_response
from arc_es.wire import name_text


def controls_blueprint(api: Api) -> Blueprint:
    """POST /deployments/{id}/pause, /resume and /limit, and GET /deployments/{id}/controls."""
    blueprint = Blueprint("controls", __name__)
    service = api.service

    async def control(request: Request, deployment_id: str, parse: Callable[[Any], Control], body: Any) -> Response:
        by = (await api.caller(request, "administer")).principal
        intent = parse(await body(request))
        name_text(deployment_id, "deploymentId")
        return json_response(controls_json(deployment_id, await service.control(deployment_id, intent, by)))

    @blueprint.post("/deployments/<deployment_id>/pause")
    async def pause(request: Request, deployment_id: str) -> Response:
        return await control(request, deployment_id, parse_pause, json_if_any)

    @blueprint.post("/deployments/<deployment_id>/resume")
    async def resume(request: Request, deployment_id: str) -> Response:
        return await control(request, deployment_id, parse_resume, json_if_any)

    @blueprint.post("/deployments/<deployment_id>/limit")
    async def limit(request: Request, deployment_id: str) -> Response:
        return await control(request, deployment_id, parse_limit, json_of)

    @blueprint.get("/deployments/<deployment_id>/controls")
    async def show(request: Request, deployment_id: str) -> Response:
        (await api.caller(request, "read")).must_cover(deployment_id)
        return json_response(controls_json(deployment_id, service.controls(deployment_id)))

    return blueprint
