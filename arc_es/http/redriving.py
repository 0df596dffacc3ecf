"""Letting commands run again (extensions, "Creating and waiting")."""

from __future__ import annotations

from typing import Any

from quart import Blueprint, Request, Response

from arc_es.domain.recorded import Principal
from arc_es.http.api import Api, Caller
from arc_es.http.creating import created_json
from arc_es.http.finding import parse_find, parse_flag, reach_of
from arc_es.http.problems import Refusal, entry_error, json_response
from arc_es.redriving import Redriven
from arc_es.summaries import Find, Summary, cursor_of
from arc_es.wire import wrong_shape


def redriving_blueprint(api: Api) -> Blueprint:
    """POST /commands/{commandId}/redrive and POST /commands/redrive."""
    blueprint = Blueprint("redriving", __name__)
    service = api.service

    @blueprint.post("/commands/<command:command_id>/redrive")
    async def redrive(request: Request, command_id: str) -> Response:
        caller = await api.caller(request, "create")
        route = (await service.known(command_id)).state.facts.route
        caller.must_create(route.deployment_id, route.target_id, route.command)
        return json_response(created_json(api, request, *await service.redrive(command_id, caller.principal)))

    @blueprint.post("/commands/redrive")
    async def redrive_found(request: Request) -> Response:
        caller = await api.caller(request, "create")
        caller.must("read")
        is_dry = parse_flag(request.args.get("dryRun"), "dryRun") is True
        find = _parse(api, request, caller)
        page = await service.finding.page(find)
        results = await _redriven(api, caller, page.commands, None if is_dry else caller.principal)
        answer: dict[str, Any] = {"results": results, "dryRun": is_dry}
        if page.behind is not None:
            answer["nextCursor"] = cursor_of(find, page.behind)
        return json_response(answer)

    return blueprint


def _parse(api: Api, request: Request, caller: Caller) -> Find:
    """Which commands. Raises WireError 422."""
    find = parse_find(request, reach_of(api, caller.grant))
    if find.origin is None and find.state not in ("FAILED", "EXPIRED"):
        raise wrong_shape("Say which commands: state=FAILED or state=EXPIRED, or an origin")
    if find.moment is not None:
        raise wrong_shape("Only what is now can be redriven: leave asOf out")
    if find.order == "asc" and find.created_before is None:
        raise wrong_shape("order=asc needs createdBefore, or what fails again would come up again")
    return find


async def _redriven(api: Api, caller: Caller, found: tuple[Summary, ...], by: Principal | None) -> list[dict[str, Any]]:
    """What comes of each; by None: what would."""
    allowed = [one.command_id for one in found if _may(caller, one)]
    service = api.service
    if by is not None:
        service.need_room()
    each = service.redriving.look_at_each(allowed) if by is None else service.redriving.redrive_each(allowed, by)
    results = dict(zip(allowed, await each, strict=True))
    refused = Refusal("FORBIDDEN", "This token may not create this command for this deployment and target")
    return [_result_json(one.command_id, results.get(one.command_id, refused)) for one in found]


def _may(caller: Caller, one: Summary) -> bool:
    return caller.grant.may_create(one.deployment_id, one.target_id, one.command)


def _result_json(command_id: str, result: Redriven | Exception) -> dict[str, Any]:
    if isinstance(result, Exception):
        return {"commandId": command_id, "error": entry_error(result)}
    entry: dict[str, Any] = {"commandId": command_id, "redriven": result.is_new}
    return entry if result.newest is None else entry | {"redrivenAs": result.newest}
