"""Pulling work: acquire and release leases (`arc.v1` 2.4, 2.5)."""

from __future__ import annotations

from functools import partial

from quart import Blueprint, Request, Response

from arc_es.envelopes import Envelopes
from arc_es.http.api import Api, json_of
from arc_es.http.connection import ended_in_slash, until_disconnected
from arc_es.http.problems import json_response
from arc_es.wire import parse_lease


def leases_blueprint(api: Api) -> Blueprint:
    """POST /commands/leases and /commands/leases/{leaseId}/release."""
    blueprint = Blueprint("leases", __name__)

    @blueprint.post("/commands/leases")
    async def lease(request: Request) -> Response:
        caller = await api.caller(request, "lease")
        wanted = parse_lease(await json_of(request), caller.grant.targets)
        caller.must_cover(wanted.deployment_id, wanted.target)
        by = caller.principal
        if wanted.wait_seconds:
            granted = await until_disconnected(request, partial(api.service.lease, wanted, by))
        else:
            granted = await api.service.lease(wanted, by)
        relative = wanted.target is not None and not ended_in_slash(request)
        envelopes = Envelopes(api.links(request, relative=relative), wanted.lease_seconds)
        return json_response({"leases": [envelopes.lease(one) for one in granted]})

    @blueprint.post("/commands/leases/<lease_id>/release")
    async def release(request: Request, lease_id: str) -> Response:
        caller = await api.caller(request, "lease")
        api.must_cover(caller, await api.service.held(lease_id))
        await api.service.release(lease_id, caller.principal)
        return Response(b"")

    return blueprint
