"""The Event JSON of extensions, "Audit": what auditors read of a stored decision, the same in every answer."""

from __future__ import annotations

import re
from dataclasses import fields
from functools import cache
from typing import Any, Final

from arc_es.codec import PRIVATE, digest
from arc_es.domain.events import PushSettings, TokenCreated
from arc_es.domain.recorded import CommandKey, Decision, DeploymentKey, PayloadKey, Principal
from arc_es.ports import Message
from arc_es.wire import format_time

TIME_FIELDS: Final = frozenset({"deadline", "not_before", "upload_until", "expires_at", "available_at"})
_PLAIN: Final = frozenset({str, int, float, bool})


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
    if decision.is_erased:
        shared["erased"] = True
    return [
        {**shared, "index": index, "type": type(event).__name__, "data": _data(event, is_erased=decision.is_erased)}
        for index, event in enumerate(decision.events)
    ]


def principal_json(by: Principal) -> dict[str, Any]:
    """Who caused a decision, and which agent it says it is."""
    entry: dict[str, Any] = {"id": by.id, "kind": by.kind, "address": by.address}
    entry |= {"userAgent": by.user_agent, "requestId": by.request_id}
    if by.agent is not None:
        entry["agent"] = _data(by.agent)
    return {name: value for name, value in entry.items() if value is not None}


def _data(record: Any, *, is_erased: bool = False) -> dict[str, Any]:
    """The fields of an event, times readable, without body bytes and secrets, and without what was erased."""
    hidden = PRIVATE.get(type(record), frozenset()) if is_erased else frozenset()
    data: dict[str, Any] = {}
    for name, shown, is_time in _shown_fields(type(record)):  # type: ignore[arg-type]  # a class is hashable
        value = getattr(record, name)
        if value is None or name in hidden:
            continue
        if is_time:
            data[shown] = format_time(value)
        elif type(value) in _PLAIN:
            data[shown] = value
        elif value not in ({}, ()):
            data[shown] = _value(value, is_erased=is_erased)
    return data


@cache
def _shown_fields(cls: type[Any]) -> tuple[tuple[str, str, bool], ...]:
    """Name, name in JSON, and whether it is a time, of all fields that are no secret and no body bytes."""
    names = (entry.name for entry in fields(cls))
    return tuple((name, camel(name), name in TIME_FIELDS) for name in names if not _is_secret(cls, name))


def _is_secret(cls: type[Any], name: str) -> bool:
    if cls is PushSettings:
        return name.startswith("token")
    if cls is TokenCreated:
        return name == "sha256"
    return name == "base64"


def _value(value: Any, *, is_erased: bool) -> Any:
    if isinstance(value, tuple):
        return [_value(item, is_erased=is_erased) for item in value]
    return _data(value, is_erased=is_erased) if hasattr(value, "__dataclass_fields__") else value


def camel(name: str) -> str:
    """`lease_id` -> `leaseId`."""
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)
