"""Decisions to bytes and back: JSON by orjson, with a schema version and strict reading.

A stored message is `{"v", "id", "at", "by", "prev"?, "events": [{"type", …}]}`. Field names are those of the event
classes; a field that has its default is left out. Version 1 is the only one so far. To change a shape: raise `VERSION`,
add an upcaster from the old version, add golden files under `tests/domain/golden/`, keep the old ones for ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, Final

import orjson

from arc_es.domain import events as e
from arc_es.domain.events import Event
from arc_es.domain.ids import Target
from arc_es.domain.recorded import Decision, Key, Principal, Recorded
from arc_es.ports import JournalCorrupt

VERSION: Final = 1

EVENT_TYPES: Final[Mapping[str, type[Any]]] = {
    cls.__name__: cls
    for cls in (
        e.DeploymentDeclared,
        e.TargetObserved,
        e.CommandCreated,
        e.UploadCompleted,
        e.CommandLeased,
        e.LeaseRenewed,
        e.LeaseReleased,
        e.LeaseExpired,
        e.CommandDispatched,
        e.DeliveryFailed,
        e.CommandSucceeded,
        e.CommandFailed,
        e.CommandExpired,
        e.LateResponseRecorded,
        e.CommandArchived,
        e.PayloadStored,
        e.TokenCreated,
        e.TokenRevoked,
        e.CheckpointKeyAdded,
        e.CheckpointSigned,
    )
}
"""Every event class ever stored, by its stored name."""

UPCASTERS: Final[Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]] = {}
"""From version n to n + 1, on the whole stored object."""


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def _plain(value: Any) -> Any:
    """A storable form of a field's value: records become objects without their defaults."""
    if hasattr(value, "__dataclass_fields__"):
        return {
            name: _plain(item) for name, default in _FIELDS[type(value)] if (item := getattr(value, name)) != default
        }
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


_RECORDS: Final = (e.Body, e.RetryPolicy, e.TraceContext, e.PushSettings, e.DeclaredTarget, Principal, Target)
_FIELDS: Final[Mapping[type[Any], tuple[tuple[str, Any], ...]]] = {
    cls: tuple((field.name, _default(field)) for field in fields(cls)) for cls in (*EVENT_TYPES.values(), *_RECORDS)
}


def _declared_target(data: dict[str, Any]) -> e.DeclaredTarget:
    if (push := data.get("push")) is not None:
        data["push"] = e.PushSettings(**push)
    return e.DeclaredTarget(**data)


_NESTED: Final[Mapping[str, Mapping[str, Callable[[Any], Any]]]] = {
    "DeploymentDeclared": {
        "targets": lambda targets: tuple(_declared_target(target) for target in targets),
        "retry": lambda retry: e.RetryPolicy(**retry),
    },
    "CommandCreated": {
        "params": lambda body: e.Body(**body),
        "retry": lambda retry: e.RetryPolicy(**retry),
        "trace": lambda trace: e.TraceContext(**trace),
    },
    "UploadCompleted": {"params": lambda body: e.Body(**body)},
    "CommandSucceeded": {"response": lambda body: e.Body(**body)},
    "CommandFailed": {"body": lambda body: e.Body(**body)},
    "PayloadStored": dict.fromkeys(("params", "response", "body"), lambda body: e.Body(**body)),
    "TokenCreated": {
        "deployments": tuple,
        "targets": lambda targets: tuple(Target(**target) for target in targets),
    },
}
"""Fields that hold a record, and how it is read."""


def encode(decision: Decision) -> bytes:
    """The bytes to store for a decision."""
    stored: dict[str, Any] = {
        "v": VERSION,
        "id": decision.id,
        "at": decision.at,
        "by": _plain(decision.by),
    }
    if decision.prev is not None:
        stored["prev"] = decision.prev
    stored["events"] = [{"type": type(event).__name__, **_plain(event)} for event in decision.events]
    return orjson.dumps(stored)


def _read(payload: bytes) -> dict[str, Any]:
    try:
        stored: dict[str, Any] = orjson.loads(payload)
        version = stored["v"]
        while version < VERSION:
            stored = UPCASTERS[version](stored)
            version += 1
    except (ValueError, KeyError, TypeError) as error:
        raise JournalCorrupt("A stored message is not a decision") from error
    if version > VERSION:
        raise JournalCorrupt(
            f"A stored message has schema version {version}; this program reads up to {VERSION}."
            " A newer arc_es wrote it: run that version or a later one."
        )
    return stored


def _event(data: dict[str, Any]) -> Event:
    name = data.pop("type")
    nested = _NESTED.get(name)
    if nested is not None:
        for field, read in nested.items():
            if field in data:
                data[field] = read(data[field])
    event: Event = EVENT_TYPES[name](**data)
    return event


def decode(payload: bytes) -> Decision:
    """The decision in stored bytes.

    Raises:
        JournalCorrupt: they are no decision, or a newer version's.
    """
    stored = _read(payload)
    try:
        events = tuple([_event(data) for data in stored["events"]])
        return Decision(stored["id"], stored["at"], Principal(**stored["by"]), events, stored.get("prev"))
    except (AttributeError, KeyError, TypeError) as error:
        raise JournalCorrupt(f"A stored decision has an unknown shape: {error}") from error


def decode_recorded(position: int, key: Key, payload: bytes) -> Recorded:
    """What projections fold, without the parts that only an auditor reads. Raises as `decode`."""
    stored = _read(payload)
    try:
        return Recorded(position, key, stored["at"], tuple([_event(data) for data in stored["events"]]))
    except (AttributeError, KeyError, TypeError) as error:
        raise JournalCorrupt(f"Message {position} has an unknown shape: {error}") from error


def inline_base64(payload: bytes) -> str:
    """The base64 text of the one body that lies inside a stored decision.

    Raises:
        JournalCorrupt: there is none, though the state says so.
    """
    for event in _read(payload)["events"]:
        for name in ("params", "response", "body"):
            body = event.get(name)
            if body is not None and "base64" in body:
                text: str = body["base64"]
                return text
    raise JournalCorrupt("A stored decision does not hold the body that it should")


def digest(payload: bytes) -> str:
    """SHA-256 in hex: of a stored message it is the `prev` of the next one in its history."""
    return hashlib.sha256(payload).hexdigest()
