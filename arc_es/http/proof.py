"""Checkpoints and exports: what proves the log (docs/howto/prove.md)."""

from __future__ import annotations

from typing import Final

from quart import Blueprint, Request, Response

from arc_es.domain.recorded import CommandKey
from arc_es.http.api import Api, Caller
from arc_es.http.problems import Refusal
from arc_es.proof.export import Commands, Exports, NoCheckpoint, OfDeployment, Period, Wanted
from arc_es.wire import count, parse_time, wrong_shape

NOTE: Final = "text/plain; charset=utf-8"
LINES: Final = "application/jsonl"
COMMANDS_MAX: Final = 1_000
"""Of one export; more by deployment or by time."""


def proof_blueprint(api: Api) -> Blueprint:
    """GET /checkpoint, /commands/{commandId}/proof and /export."""
    blueprint = Blueprint("proof", __name__)
    service = api.service

    def exports() -> Exports:
        if service.exports is None:
            raise NoCheckpoint
        return service.exports

    @blueprint.get("/checkpoint")
    async def checkpoint(request: Request) -> Response:
        await api.caller(request)
        response = Response(exports().latest_note(), content_type=NOTE)
        response.headers["Cache-Control"] = "no-store"
        return response

    @blueprint.get("/commands/<command:command_id>/proof")
    async def proof(request: Request, command_id: str) -> Response:
        caller = await api.caller(request, "audit")
        wanted = Commands([await _key(api, caller, command_id)])
        return await _answer(exports(), request, wanted)

    @blueprint.get("/export")
    async def export(request: Request) -> Response:
        caller = await api.caller(request, "audit")
        return await _answer(exports(), request, await _wanted(api, caller, request))

    return blueprint


async def _key(api: Api, caller: Caller, command_id: str) -> CommandKey:
    row = await api.covered(caller, command_id)
    return CommandKey(row.state.facts.route.deployment_id, command_id)


async def _wanted(api: Api, caller: Caller, request: Request) -> Wanted:
    """What is to be exported. Raises WireError, Refusal and CommandNotFound."""
    given = request.args
    command_ids = list(dict.fromkeys(given.getlist("commandId")))
    deployment_id, since, until = given.get("deploymentId"), given.get("since"), given.get("until")
    if bool(command_ids) + (deployment_id is not None) + (since is not None or until is not None) != 1:
        raise wrong_shape("Give commandId (one or several), or deploymentId, or since and until")
    if len(command_ids) > COMMANDS_MAX:
        raise wrong_shape(f"At most {COMMANDS_MAX} commands at once")
    if command_ids:
        return Commands([await _key(api, caller, command_id) for command_id in command_ids])
    if deployment_id is not None:
        caller.must_cover(deployment_id)
        return OfDeployment(deployment_id)
    if not caller.is_admin:
        raise Refusal("FORBIDDEN", "What happened in a time is of all deployments: it takes an admin token")
    return Period(
        None if since is None else parse_time(since, "since"), None if until is None else parse_time(until, "until")
    )


async def _answer(exports: Exports, request: Request, wanted: Wanted) -> Response:
    old_size = request.args.get("from")
    if old_size is not None and not (old_size.isascii() and old_size.isdigit()):
        raise wrong_shape("from must be the size of a checkpoint")
    bodies = request.args.get("bodies", "false")
    if bodies not in ("true", "false"):
        raise wrong_shape("bodies must be true or false")
    lines = await exports.make(
        wanted, with_bodies=bodies == "true", old_size=None if old_size is None else count(int(old_size), "from")
    )
    response = Response(lines, content_type=LINES)
    response.headers["Cache-Control"] = "no-store"
    return response
