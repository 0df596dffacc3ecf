"""Watching, answering and cancelling commands (`arc.v1` 2.2, 2.3, 2.6, 2.7, 2.8, extensions)."""

from __future__ import annotations

from functools import partial
from typing import Any

from quart import Blueprint, Request, Response

from arc_es.bodies import Found
from arc_es.domain.errors import CommandNotFound
from arc_es.domain.ids import Micros
from arc_es.domain.limits import SECOND
from arc_es.domain.recorded import Principal
from arc_es.domain.state import PUBLIC_STATE, attempt_of, lease_end_max_of
from arc_es.http.api import Api, Caller, bearer, json_if_any, json_of, principal_of
from arc_es.http.connection import header_of, until_disconnected
from arc_es.http.erasing import erased_json
from arc_es.http.finding import parse_view, summary_json
from arc_es.http.past import moment_of, row_then
from arc_es.http.problems import Refusal, json_response
from arc_es.payloads import parse_payload
from arc_es.ports import Slot
from arc_es.signing import parse_expires
from arc_es.snapshots.moment import Moment
from arc_es.summaries import summary_of
from arc_es.views import Row
from arc_es.wire import (
    WireError,
    count,
    parse_cancel,
    parse_object,
    parse_response,
    parse_wait,
    required,
    target_json,
)


def commands_blueprint(api: Api) -> Blueprint:
    """Everything under /commands/{commandId}."""
    blueprint = Blueprint("commands", __name__)
    service = api.service

    @blueprint.get("/commands/<command:command_id>")
    async def status(request: Request, command_id: str) -> Response:
        caller = await api.caller(request, "read")
        wait_seconds, moment = parse_wait(request.args.get("waitSeconds")), moment_of(request)
        is_full = parse_view(request)
        await api.covered(caller, command_id)
        if moment is not None:
            return json_response(await _status_then(api, request, command_id, moment, is_full=is_full))
        row = await _awaited(api, request, command_id, wait_seconds)
        show = _full if is_full else status_json
        return json_response(await show(api, request, command_id, row))

    @blueprint.put("/commands/<command:command_id>/response")
    async def respond(request: Request, command_id: str) -> Response:
        caller = None if bearer(header_of(request, b"authorization")) is None else await api.identified(request)
        if caller is None:
            by = await _by_signed_query(api, request, command_id)
        else:
            caller.must("lease")
            by = caller.principal
        response = parse_response(await json_of(request))
        if caller is not None:
            await api.covered(caller, command_id)
        await service.respond(command_id, response, by)
        return Response(b"")

    @blueprint.post("/commands/<command:command_id>/upload-complete")
    async def upload_complete(request: Request, command_id: str) -> Response:
        caller = await api.caller(request, "create")
        size = required(parse_object(await json_of(request)), "size", count)
        facts = (await service.known(command_id)).state.facts
        caller.must_create(facts.route.deployment_id, facts.route.target_id, facts.route.command)
        row = await service.complete_upload(command_id, size, caller.principal)
        return json_response({"commandId": command_id, "state": PUBLIC_STATE[type(row.state)]})

    @blueprint.post("/commands/<command:command_id>/cancel")
    async def cancel(request: Request, command_id: str) -> Response:
        caller = await api.caller(request, "cancel")
        reason = parse_cancel(await json_if_any(request))
        await api.covered(caller, command_id)
        row = await service.holding.cancel(command_id, reason, caller.principal)
        return json_response(await status_json(api, request, command_id, row))

    @blueprint.get("/commands/<command:command_id>/payload")
    async def payload(request: Request, command_id: str) -> Response:
        caller = await api.caller(request, "read")
        return json_response({"commandId": command_id, **await _payload(api, request, caller, command_id)})

    @blueprint.put("/commands/<command:command_id>/payload")
    async def put_payload(request: Request, command_id: str) -> Response:
        caller = await api.caller(request, "administer")
        await service.store_payload(command_id, parse_payload(await json_of(request)), caller.principal)
        return Response(b"")

    return blueprint


async def status_json(api: Api, request: Request, command_id: str, row: Row) -> dict[str, Any]:
    """The status of a command (`arc.v1` 2.2)."""
    state = row.state
    target = api.service.target_of(state.facts)
    body: dict[str, Any] = {
        "commandId": command_id,
        "state": PUBLIC_STATE[type(state)],
        "attempt": attempt_of(state),
        "target": target_json(target.resource_id, target.resource_type),
    }
    return {**body, **await _response(api, request, command_id, row)}


async def _awaited(api: Api, request: Request, command_id: str, wait_seconds: float) -> Row:
    if not wait_seconds:
        return await api.service.status(command_id)
    return await until_disconnected(request, partial(api.service.status, command_id, wait_seconds))


async def _status_then(api: Api, request: Request, command_id: str, moment: Moment, *, is_full: bool) -> dict[str, Any]:
    row, besides = await row_then(api, command_id, moment)
    shown = await status_json(api, request, command_id, row)
    if is_full:
        shown = {**summary_json(api, summary_of(command_id, row.state, row.traces)), **shown}
    return {**shown, **besides}


async def _full(api: Api, request: Request, command_id: str, seen: Row) -> dict[str, Any]:
    """All that is known of the command, at least as new as what was `seen`."""
    summary, row = await api.service.finding.summary(command_id)
    told = {**summary_json(api, summary), **await _response(api, request, command_id, row)}
    return told | await erased_json(api, command_id) if row.state.facts.options.is_erased else told


async def _response(api: Api, request: Request, command_id: str, row: Row) -> dict[str, Any]:
    answer = await api.service.answer(row)
    return {} if answer is None else {"response": api.links(request).answer(command_id, answer)}


async def _payload(api: Api, request: Request, caller: Caller, command_id: str) -> dict[str, Any]:
    """Params and response of a command, or else, for an admin, what is stored under the id (`arc.v1` 2.7)."""
    row = api.service.peek(command_id) or await api.service.latest(command_id)
    params: Found | None
    if row is not None:
        api.must_cover(caller, row)
        params, answer = await api.service.params(row), await api.service.answer(row)
    elif caller.is_admin:
        params, answer = await api.service.stored_params(command_id), await api.service.stored_answer(command_id)
    else:
        raise CommandNotFound
    found: dict[str, Any] = {}
    links = api.links(request)
    if params is not None:
        found["params"] = links.body(Slot(command_id, "params"), params)
    if answer is not None:
        found["response"] = links.answer(command_id, answer)
    return found


async def _by_signed_query(api: Api, request: Request, command_id: str) -> Principal:
    """Who answers by the signed URL, without a known token (`arc.v1` 2.6)."""
    given, expires_text = request.args.get("response_token"), request.args.get("expires")
    if given is None or expires_text is None:
        raise Refusal("UNAUTHORIZED", "A token or a signed URL is needed to answer a command")
    expires = parse_expires(expires_text)
    if expires is None:
        raise WireError(400, "INVALID_REQUEST", "expires must be an integer")

    def valid(lease_end_max: Micros) -> bool:
        return api.signer.token_valid(command_id, given, expires, api.service.now(), lease_end_max)

    lease_end_max = _lease_end_max(api.service.peek(command_id))
    if not valid(lease_end_max) and valid(expires * SECOND):  # ours, but for a longer lease than this node knows of
        lease_end_max = _lease_end_max(await api.service.latest(command_id))
    if not valid(lease_end_max):
        raise Refusal("UNAUTHORIZED", "The response token is wrong or has expired")
    return principal_of(request, f"response-token:{command_id}", "response-token")


def _lease_end_max(row: Row | None) -> Micros:
    return 0 if row is None else lease_end_max_of(row.state)
