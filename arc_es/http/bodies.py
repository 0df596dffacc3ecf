"""Signed body URLs (`arc.v1` 2.10). Their signatures are checked; moving bytes is not supported by this version."""

from __future__ import annotations

from quart import Blueprint, Request, Response

from arc_es.http.api import Api
from arc_es.http.problems import Refusal
from arc_es.signing import Method


def bodies_blueprint(api: Api) -> Blueprint:
    """PUT and GET /storage/arc/commands/{commandId}/{params|response}."""
    blueprint = Blueprint("bodies", __name__)

    @blueprint.route("/storage/arc/commands/<command_id>/<any(params, response):kind>", methods=["GET", "PUT"])
    async def body(request: Request, command_id: str, kind: str) -> Response:
        path = f"arc/commands/{command_id}/{kind}"
        given = request.args.get("signature", ""), request.args.get("expires", "")
        method: Method = "PUT" if request.method == "PUT" else "GET"
        if not api.signer.storage_valid(method, path, *given, now=api.service.now()):
            raise Refusal("FORBIDDEN", "The signature of this URL is wrong or has expired")
        raise Refusal("OPERATION_NOT_SUPPORTED", "Bodies in storage are not supported by this version")

    return blueprint
