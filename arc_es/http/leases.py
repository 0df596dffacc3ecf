"""Pulling work: acquire, renew and release leases (`arc.v1` 2.4, 2.5, extensions "Pulling work")."""

from __future__ import annotations

from functools import partial
from typing import Any

from quart import Blueprint, Request, Response

from arc_es.domain.errors import LeaseNotFound
from arc_es.envelopes import Envelopes
from arc_es.holding import Renewed
from arc_es.http.api import Api, json_of, note_of
from arc_es.http.connection import ended_in_slash, until_disconnected
from arc_es.http.problems import json_response
from arc_es.wire import format_time
from arc_es.wire_leases import parse_lease, parse_release, parse_renew


def leases_blueprint(api: Api) -> Blueprint:
    """POST /commands/leases, /commands/leases/{leaseId}/release and /commands/leases/{leaseId}/renew."""
    blueprint = Blueprint("leases", __name__)
    holding = api.service.holding

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
        delay = parse_release(await note_of(request))
        api.must_cover(caller, await holding.held(lease_id))
        await holding.release(lease_id, caller.principal, delay)
        return Response(b"")

    @blueprint.post("/commands/leases/<lease_id>/renew")
    async def renew(request: Request, lease_id: str) -> Response:
        caller = await api.caller(request, "lease")
        seconds = parse_renew(await json_of(request))
        (row,) = await holding.believed([lease_id])
        if row is None:
            raise LeaseNotFound
        api.must_cover(caller, row)
        renewed = (await holding.renew({lease_id: seconds}, caller.principal))[lease_id]
        if isinstance(renewed, Exception):
            raise renewed
        return json_response({**renewed_json(renewed), "cancelled": renewed.cancelled})

    return blueprint


def renewed_json(renewed: Renewed) -> dict[str, Any]:
    """A renewed lease."""
    return {"leaseId": renewed.lease_id, "leaseExpiresAt": format_time(renewed.expires_at)}
