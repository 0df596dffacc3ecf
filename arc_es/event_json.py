"""The Event JSON of extensions, "Audit": what auditors read of a stored decision, the same in every answer."""

from __future__ import annotations

import re
from dataclasses import fields
from functools import lru_cache
from typing import Any, Final

from arc_es.codec import digest
from arc_es.domain.events import PushSettings, TokenCreated
from arc_es.domain.recorded import CommandKey, Decision, DeploymentKey, PayloadKey, Principal
from arc_es.ports import Message
from arc_es.wire import format_time

TIME_FIELDS: Final = frozenset({"deadline", "not_before", "upload_until", "expires_at", "available_at"})


def event_entries(message: Message, decision: Decision) -> list[dict[str, Any]]:
    """The events of one stored decision as Event JSON; they share seq, prev and hash and carry an index."""
    shared: dict[str, Any] = {"seq": message.position, "id": decision.id, "at": format_time(decision.at)}
    if isinstance(message.key, CommandKey | PayloadKey):
        shared["commandId"] = message.key.command_id
    if isinstance(message.key, CommandKey | DeploymentKey):
        shared["deploymentId"] = message.key.deployment_id
    shared["by"] = principal_json(decision.by)
    if decision.prev is not None:
        shared["prev"] = decision.prev
    shared["hash"] = digest(message.payload)
    return [
        {**shared, "index": index, "type": type(event).__name__, "data": _data(event)}
        for index, event in enumerate(decision.events)
    ]


def principal_json(by: Principal) -> dict[str, str]:
    """Who caused a decision."""
    entry = {"id": by.id, "kind": by.kind, "address": by.address}
    entry |= {"userAgent": by.user_agent, "requestId": by.request_id}
    return {name: value for name, value in entry.items() if value is not None}


def _data(record: object) -> dict[str, Any]:
    """The fields of an event, times readable, without body bytes and secrets."""
    data: dict[str, Any] = {}
    for entry in fields(record):  # type: ignore[arg-type]
        value = getattr(record, entry.name)
        if value is None or value in ({}, ()) or _is_secret(record, entry.name):
            continue
        data[camel(entry.name)] = format_time(value) if entry.name in TIME_FIELDS else _value(value)
    return data


def _is_secret(record: object, name: str) -> bool:
    match record:
        case PushSettings():
            return name.startswith("token")
        case TokenCreated():
            return name == "sha256"
        case _:
            return name == "base64"


def _value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_value(item) for item in value]
    return _data(value) if hasattr(value, "__dataclass_fields__") else value


@lru_cache(maxsize=256)
def camel(name: str) -> str:
    """`lease_id` -> `leaseId`."""
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)
