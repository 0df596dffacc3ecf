"""Minting, listing and revoking access tokens (extensions, "Tokens")."""

from __future__ import annotations

from typing import Any

from quart import Blueprint, Request, Response

from arc_es.http.api import Api, json_of
from arc_es.http.problems import json_response
from arc_es.tokens import parse_token_request, token_json
from arc_es.wire import format_time


def tokens_blueprint(api: Api) -> Blueprint:
    """POST and GET /tokens, DELETE /tokens/{tokenId}."""
    blueprint = Blueprint("tokens", __name__)
    tokens = api.service.tokens

    @blueprint.post("/tokens")
    async def mint(request: Request) -> Response:
        by = (await api.caller(request, "administer")).principal
        wanted = parse_token_request(await json_of(request))
        api.service.need_room()
        minted = await tokens.mint(wanted, by)
        answer: dict[str, Any] = {"token": minted.token, "id": minted.token_id}
        if minted.expires_at is not None:
            answer["expiresAt"] = format_time(minted.expires_at)
        response = json_response(answer, 201)
        response.headers["Cache-Control"] = "no-store"
        return response

    @blueprint.get("/tokens")
    async def list_all(request: Request) -> Response:
        await api.caller(request, "administer")
        return json_response({"tokens": [token_json(token_id, token) for token_id, token in tokens.not_revoked()]})

    @blueprint.delete("/tokens/<token_id>")
    async def revoke(request: Request, token_id: str) -> Response:
        by = (await api.caller(request, "administer")).principal
        await tokens.revoke(token_id, by)
        return Response(b"", 204)

    return blueprint
