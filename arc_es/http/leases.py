"""Pulling work: acquire, renew and release leases (`arc.v1` 2.4, 2.5, extensions "Pulling work")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from quart import Blueprint, Request, Response

from arc_es.domain.state import PUBLIC_STATE
from arc_es.envelopes import Envelopes
from arc_es.holding import Renewed
from arc_es.http.api import Api, Caller, json_of, note_of
from arc_es.http.connection import ended_in_slash, until_disconnected, when_sent
from arc_es.http.problems import entry_error, json_response
from arc_es.leasing import Granted
from arc_es.ports import JournalError, Overloaded
from arc_es.views import Row
from arc_es.wire import format_time
from arc_es.wire_leases import (
    Completion,
    Renewal,
    Unreadable,
    parse_completions,
    parse_lease,
    parse_release,
    parse_renew,
    parse_renewals,
)


def leases_blueprint(api: Api) -> Blueprint:
    """POST /commands/leases, /commands/leases/{leaseId}/release and /commands/leases/{leaseId}/renew."""
    blueprint = Blueprint("leases", __name__)
    holding = api.service.holding

    @blueprint.post("/commands/leases")
    async def lease(request: Request) -> Response:
        caller = await api.caller(request, "lease")
        call = _Call(api, request, caller, await json_of(request, is_batch=True))
        return json_response(await call.answer())

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
        renewal = Renewal(lease_id, parse_renew(await json_of(request)))
        refusal_of = partial(api.refusal_of, caller)
        _, (renewed,) = await api.service.settling.settle([], [renewal], caller.principal, refusal_of)
        if isinstance(renewed, Exception):
            raise renewed
        return json_response({**_renewed_json(renewed), "cancelled": renewed.cancelled})

    return blueprint


class _Call:
    """One round trip of an agent: answers and renewals, then leases, then what it must not go on with."""

    def __init__(self, api: Api, request: Request, caller: Caller, body: Any) -> None:
        self._api = api
        self._request = request
        self._caller = caller
        self._wanted = parse_lease(body, caller.grant.targets)
        self._completions = parse_completions(body)
        self._renewals = parse_renewals(body)
        self._asked = {name for name in ("complete", "renew", "agent") if body.get(name) is not None}
        caller.must_cover(self._wanted.deployment_id, self._wanted.target)
        self._by = replace(caller.principal, agent=self._wanted.agent)

    async def answer(self) -> dict[str, Any]:
        """Do all of it."""
        settled = await self._settle()
        granted = await self._lease()
        answer = {"leases": self._envelopes(granted), **settled}
        if self._asked:
            answer["cancelled"] = await self._cancelled()
        if granted or answer.get("cancelled"):
            when_sent(self._request, partial(self._sent, granted))
        return answer

    async def _settle(self) -> dict[str, Any]:
        """Take answers and renewals. Raises JournalError, Overloaded: nothing was stored."""
        completions = [one for one in self._completions if isinstance(one, Completion)]
        renewals = [one for one in self._renewals if isinstance(one, Renewal)]
        refusal_of = partial(self._api.refusal_of, self._caller)
        completed, renewed = await self._api.service.settling.settle(completions, renewals, self._by, refusal_of)
        answer = {}
        if "complete" in self._asked:
            outcomes = iter(completed)
            answer["completed"] = [
                _unreadable_json("commandId", one)
                if isinstance(one, Unreadable)
                else _completed_json(one, next(outcomes))
                for one in self._completions
            ]
        if "renew" in self._asked:
            results = iter(renewed)
            answer["renewed"] = [
                _unreadable_json("leaseId", one) if isinstance(one, Unreadable) else _renewal_json(one, next(results))
                for one in self._renewals
            ]
        return answer

    async def _lease(self) -> list[Granted]:
        """Take leases. What was settled is not answered with an error: the next call will meet it, with less to do."""
        service, wanted = self._api.service, self._wanted
        try:
            if not wanted.wait_seconds:
                return await service.lease(wanted, self._by)
            return await until_disconnected(self._request, partial(service.lease, wanted, self._by))
        except (JournalError, Overloaded):
            if not self._completions and not self._renewals:
                raise
            return []

    def _envelopes(self, granted: Sequence[Granted]) -> list[dict[str, Any]]:
        relative = self._wanted.target is not None and not ended_in_slash(self._request)
        envelopes = Envelopes(self._api.links(self._request, relative=relative), self._wanted.lease_seconds)
        return [envelopes.lease(one) for one in granted]

    async def _cancelled(self) -> list[dict[str, str]]:
        """The leases that this agent holds, or names, whose commands were cancelled."""
        service, wanted = self._api.service, self._wanted
        named = [one.lease_id for one in self._renewals if isinstance(one, Renewal)]
        found = service.cancellations.leases(wanted.deployment_id, wanted.agent_id, named)
        return [
            {"commandId": lease.command_id, "leaseId": lease.lease_id}
            for lease in found
            if self._api.refusal_of(self._caller, await service.known(lease.command_id)) is None
        ]

    async def _sent(self, granted: Sequence[Granted], is_sent: bool) -> None:  # noqa: FBT001 - as `when_sent` calls it
        if is_sent:
            self._api.service.cancellations.told(self._wanted.deployment_id, self._wanted.agent_id)
        else:
            await self._api.service.take_back(granted)


def _renewed_json(renewed: Renewed) -> dict[str, Any]:
    return {"leaseId": renewed.lease_id, "leaseExpiresAt": format_time(renewed.expires_at)}


def _completed_json(entry: Completion, outcome: Row | Exception) -> dict[str, Any]:
    if isinstance(outcome, Exception):
        return {"commandId": entry.command_id, "error": entry_error(outcome)}
    return {"commandId": entry.command_id, "state": PUBLIC_STATE[type(outcome.state)]}


def _renewal_json(entry: Renewal, outcome: Renewed | Exception) -> dict[str, Any]:
    if isinstance(outcome, Exception):
        return {"leaseId": entry.lease_id, "error": entry_error(outcome)}
    return _renewed_json(outcome)


def _unreadable_json(named_by: str, entry: Unreadable) -> dict[str, Any]:
    name = {} if entry.name is None else {named_by: entry.name}
    return {**name, "error": entry_error(entry.error)}
