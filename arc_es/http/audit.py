"""What happened and what waits: histories and queues (extensions, "Audit" and "Finding")."""

from __future__ import annotations

import logging
from typing import Any

from quart import Blueprint, Request, Response

from arc_es.domain.ids import Target
from arc_es.domain.tokens import Grant
from arc_es.event_json import event_entries
from arc_es.http.api import Api
from arc_es.http.past import counts_json, moment_of, queues_then
from arc_es.http.problems import json_response
from arc_es.proof.chain import broken_at
from arc_es.service import Held, Queue
from arc_es.wire import format_time

log = logging.getLogger("arc_es.http")


def audit_blueprint(api: Api) -> Blueprint:
    """GET /commands/{commandId}/events and GET /queues."""
    blueprint = Blueprint("audit", __name__)
    service = api.service

    @blueprint.get("/commands/<command:command_id>/events")
    async def events(request: Request, command_id: str) -> Response:
        await api.covered(await api.caller(request, "read"), command_id)
        history = await service.history(command_id)
        answer: dict[str, Any] = {
            "events": [entry for message, decision in history for entry in event_entries(message, decision)]
        }
        if (position := broken_at(history)) is not None:
            log.error("The history of %s was changed: its chain is broken at seq %d", command_id, position)
            answer["chainBrokenAt"] = position
        return json_response(answer)

    @blueprint.get("/queues")
    async def queues(request: Request) -> Response:
        grant = (await api.caller(request, "read")).grant
        if (moment := moment_of(request)) is not None:
            return json_response(await queues_then(api, request, grant, moment))
        now = service.now()
        found = [_queue(api, queue, now) for queue in service.queues() if _covers(api, grant, queue)]
        return json_response({"queues": found, "appliedSeq": service.applied})

    return blueprint


def _covers(api: Api, grant: Grant, queue: Queue) -> bool:
    counts = queue.counts
    known = api.service.type_of(counts.deployment_id, counts.target_id)
    return grant.covers(counts.deployment_id, Target(counts.target_id, known))


def _queue(api: Api, queue: Queue, now: int) -> dict[str, Any]:
    counts = queue.counts
    known = api.service.type_of(counts.deployment_id, counts.target_id)
    entry = counts_json(counts, known, now)
    entry["waiting"] = queue.waiting
    if queue.last_poll is not None:
        entry["lastPollAt"] = format_time(queue.last_poll.at)
        if queue.last_poll.agent is not None:
            entry["lastAgent"] = queue.last_poll.agent
    if queue.oldest is not None:
        entry["oldestLease"] = _held(queue.oldest)
    return entry


def _held(held: Held) -> dict[str, Any]:
    lease = held.lease
    entry: dict[str, Any] = {
        "commandId": held.command_id,
        "attempt": lease.attempt,
        "leasedAt": format_time(lease.leased_at),
        "leaseExpiresAt": format_time(lease.expires_at),
        "renewals": lease.renewals,
    }
    if lease.agent is not None:
        entry["agent"] = lease.agent
    if held.agent_polled_at is not None:
        entry["agentLastPollAt"] = format_time(held.agent_polled_at)
    return entry
