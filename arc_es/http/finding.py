"""Lists of commands: GET /commands (extensions, "Finding")."""

from __future__ import annotations

import re
from typing import Any, Final

from quart import Blueprint, Request, Response

from arc_es.domain.ids import OPERATOR, ResourceType, Target
from arc_es.domain.tokens import Grant
from arc_es.http.api import Api
from arc_es.http.past import moment_of, page_then
from arc_es.http.problems import json_response
from arc_es.summaries import ORIGINS, STATES, BadCursor, Find, Order, Reach, Summary, cursor_of, place_of
from arc_es.wire import format_time, parse_time, target_json, wrong_shape

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 1_000
_NUMBER: Final = re.compile(r"-?[0-9]{1,9}")


def finding_blueprint(api: Api) -> Blueprint:
    """GET /commands."""
    blueprint = Blueprint("finding", __name__)
    service = api.service

    @blueprint.get("/commands")
    async def commands(request: Request) -> Response:
        caller = await api.caller(request, "read")
        moment = moment_of(request)
        find = parse_find(request, reach_of(api, caller.grant))
        page = await (service.finding.page(find) if moment is None else page_then(api, request, find, moment))
        answer: dict[str, Any] = {"commands": [summary_json(api, summary) for summary in page.commands]}
        if page.behind is not None:
            answer["nextCursor"] = cursor_of(find, page.behind)
        answer["appliedSeq"] = page.position
        return json_response(answer)

    return blueprint


def parse_find(request: Request, reach: Reach) -> Find:
    """Read the query. Raises WireError 422."""
    given = request.args
    state = given.get("state")
    if state is not None and state not in STATES:
        raise wrong_shape(f"state must be one of {', '.join(STATES)}")
    origin = _origin(given.get("origin"), state)
    times = {name: given.get(name) for name in ("createdAfter", "createdBefore")}
    after, before = (None if text is None else parse_time(text, name) for name, text in times.items())
    find = Find(
        deployment_id=given.get("deploymentId"),
        target_id=given.get("target"),
        command=given.get("command"),
        state=state,
        origin=origin,
        redriven=parse_flag(given.get("redriven"), "redriven"),
        labels=tuple(sorted({_label(text) for text in given.getlist("label")})),
        created_after=after,
        created_before=before,
        order=_order(given.get("order", "desc")),
        limit=_limit(given.get("limit")),
        reach=reach,
        moment=given.get("asOf"),
    )
    cursor = given.get("cursor")
    if cursor is None:
        return find
    try:
        return find.behind(place_of(find, cursor))
    except BadCursor as error:
        raise wrong_shape(str(error)) from None


def parse_view(request: Request) -> bool:
    """Whether all that is known of one command is asked for. Raises WireError 422."""
    view = request.args.get("view")
    if view not in (None, "full"):
        raise wrong_shape("view must be full")
    return view is not None


def _origin(origin: str | None, state: str | None) -> str | None:
    if origin is None:
        return None
    if origin not in ORIGINS:
        raise wrong_shape(f"origin must be one of {', '.join(ORIGINS)}")
    if state not in (None, "FAILED"):
        raise wrong_shape("origin says why a command FAILED, so state can be nothing else")
    return origin


def parse_flag(text: str | None, name: str) -> bool | None:
    """A query parameter that is true, false, or not given. Raises WireError 422."""
    if text not in (None, "true", "false"):
        raise wrong_shape(f"{name} must be true or false")
    return None if text is None else text == "true"


def _label(text: str) -> tuple[str, str]:
    key, colon, value = text.partition(":")
    if not colon:
        raise wrong_shape("label must be like key:value")
    return key, value


def _order(text: str) -> Order:
    if text == "asc":
        return "asc"
    if text == "desc":
        return "desc"
    raise wrong_shape("order must be asc or desc")


def _limit(text: str | None) -> int:
    if text is None:
        return LIMIT_DEFAULT
    if _NUMBER.fullmatch(text) is None:
        raise wrong_shape("limit must be an integer")
    return min(max(int(text), 1), LIMIT_MAX)


def reach_of(api: Api, grant: Grant) -> Reach:
    """What a token may see, as the query needs it."""
    if grant.targets is None:
        return Reach(grant.deployments)

    def covers(deployment_id: str, target_id: str, target_type: ResourceType | None) -> bool:
        kind = target_type or api.service.type_of(deployment_id, target_id)
        return grant.covers(deployment_id, Target(target_id, kind))

    return Reach(grant.deployments, frozenset(one.resource_id for one in grant.targets) - {OPERATOR}, covers)


def summary_json(api: Api, summary: Summary) -> dict[str, Any]:
    """A summary as JSON; what is not so, or not known, is left out."""
    kind = summary.target_type or api.service.type_of(summary.deployment_id, summary.target_id)
    entry: dict[str, Any] = {
        "commandId": summary.command_id,
        "state": summary.state,
        "attempt": summary.attempt,
        "target": target_json(summary.target_id, kind),
        "deploymentId": summary.deployment_id,
        "command": summary.command,
        "createdAt": format_time(summary.created_at),
        "priority": summary.priority,
        "labels": dict(summary.labels),
    }
    for name, at in (
        ("dispatchedAt", summary.dispatched_at),
        ("completedAt", summary.completed_at),
        ("deadline", summary.deadline),
        ("notBefore", summary.not_before),
        ("leaseExpiresAt", summary.lease_expires_at),
    ):
        if at is not None:
            entry[name] = format_time(at)
    maybe = {
        "requestSizeBytes": summary.request_bytes,
        "responseSizeBytes": summary.response_bytes,
        "leaseId": summary.lease_id,
        "agent": summary.agent,
        "origin": summary.origin,
        "redriveOf": summary.redrive_of,
        "redrivenAs": summary.redriven_as,
    }
    entry |= {name: value for name, value in maybe.items() if value is not None}
    if summary.error is not None:
        entry["error"] = {"code": summary.error[0], "message": summary.error[1]}
    return entry
