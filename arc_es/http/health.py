"""Is it alive, is it ready (`arc.v1` 2.11, extensions "Operations")."""

from __future__ import annotations

from quart import Blueprint, Request, Response

from arc_es.http.api import Api
from arc_es.http.problems import json_response


def health_blueprint(api: Api) -> Blueprint:
    """GET /health, /healthz, /readyz."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/health")
    @blueprint.get("/healthz")
    async def alive(request: Request) -> Response:
        return json_response({"status": "healthy"})

    @blueprint.get("/readyz")
    async def ready(request: Request) -> Response:
        service = api.service
        if not service.ready:
            progress = {"status": "replaying", **service.replay_progress()}
            return json_response(progress, 503)
        if not service.journal_available:
            progress = {"status": "journal unavailable", **service.replay_progress()}
            return json_response(progress, 503)
        return json_response({"status": "ready"})

    return blueprint
