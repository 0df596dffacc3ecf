"""What happened and what waits: histories and queues (extensions, "Audit" and "Finding")."""

from __future__ import annotations

import re
from dataclasses import fields
from functools import lru_cache
from typing import Any, Final

from quart import Blueprint, Request, Response

from arc_es.codec import digest
from arc_es.domain.events import PushSettings
from arc_es.domain.ids import Target
from arc_es.domain.limits import SECOND
from arc_es.domain.recorded import CommandKey, Decision, DeploymentKey, PayloadKey, Principal
from arc_es.domain.tokens import Grant
from arc_es.http.api import Api
from arc_es.http.problems import json_response
from arc_es.ports import Message
from arc_es.service import Queue
from arc_es.wire import format_time, target_json

TIME_FIELDS: Final = frozenset({"deadline", "not_before", "upload_until", "expires_at", "available_at"})


def audit_blueprint(api: Api) -> Blueprint:
    """GET /commands/{commandId}/events and GET /queues."""
    blueprint = Blueprint("audit", __name__)
    service = api.service

    @blueprint.get("/commands/<command:command_id>/events")
    async def events(request: Request, command_id: str) -> Response:
        await api.covered(await api.caller(request, "read"), command_id)
        history = await service.history(command_id)
        return json_response(
            {"events": [entry for message, decision in history for entry in event_entries(message, decision)]}
        )

    @blueprint.get("/queues")
    async def queues(request: Request) -> Response:
        grant = (await api.caller(request, "read")).grant
        now = service.now()
        found = [_queue(api, queue, now) for queue in service.queues() if _covers(api, grant, queue)]
        return json_response({"queues": found, "appliedSeq": service.applied})

    return blueprint


def event_entries(message: Message, decision: Decision) -> list[dict[str, Any]]:
    """The events of one stored decision as Event JSON; they share seq, prev and hash and carry an index."""
    shared: dict[str, Any] = {"seq": message.position, "id": decision.id, "at": format_time(decision.at)}
    if isinstance(message.key, CommandKey | PayloadKey):
        shared["commandId"] = message.key.command_id
    if isinstance(message.key, CommandKey | DeploymentKey):
        shared["deploymentId"] = message.key.deployment_id
    shared["by"] = _principal(decision.by)
    if decision.prev is not None:
        shared["prev"] = decision.prev
    shared["hash"] = digest(message.payload)
    return [
        {**shared, "index": index, "type": type(event).__name__, "data": _data(event)}
        for index, event in enumerate(decision.events)
    ]


def _principal(by: Principal) -> dict[str, str]:
    entry = {"id": by.id, "kind": by.kind, "address": by.address}
    entry |= {"userAgent": by.user_agent, "requestId": by.request_id}
    return {name: value for name, value in entry.items() if value is not None}


def _data(record: object) -> dict[str, Any]:
    """The fields of an event, times readable, without body bytes and secrets."""
    data: dict[str, Any] = {}
    for entry in fields(record):  # type: ignore[arg-type]
        value = getattr(record, entry.name)
        if value is None or value in ({}, ()):
            continue
        if entry.name == "base64" or (isinstance(record, PushSettings) and entry.name.startswith("token")):
            continue
        data[camel(entry.name)] = format_time(value) if entry.name in TIME_FIELDS else _value(value)
    return data


def _value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_value(item) for item in value]
    return _data(value) if hasattr(value, "__dataclass_fields__") else value


@lru_cache(maxsize=256)
def camel(name: str) -> str:
    """`lease_id` -> `leaseId`."""
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)


def _covers(api: Api, grant: Grant, queue: Queue) -> bool:
    counts = queue.counts
    known = api.service.type_of(counts.deployment_id, counts.target_id)
    return grant.covers(counts.deployment_id, Target(counts.target_id, known))


def _queue(api: Api, queue: Queue, now: int) -> dict[str, Any]:
    counts = queue.counts
    known = api.service.type_of(counts.deployment_id, counts.target_id)
    entry: dict[str, Any] = {
        "deploymentId": counts.deployment_id,
        "target": target_json(counts.target_id, known),
        "pending": counts.pending,
        "delayed": counts.delayed,
        "leased": counts.leased,
    }
    if counts.oldest_pending_at is not None:
        entry["oldestPendingSeconds"] = max(0, now - counts.oldest_pending_at) // SECOND
    entry["waiting"] = queue.waiting
    if queue.last_poll is not None:
        entry["lastPollAt"] = format_time(queue.last_poll.at)
        if queue.last_poll.agent is not None:
            entry["lastAgent"] = queue.last_poll.agent
    return entry
