"""Decisions to bytes and back: JSON by orjson, with a schema version and strict reading.

A stored message is one or two lines. The first is public: `{"v", "id", "at", "by", "prev"?, "private"?, "events":
[{"type", …}]}`. The second is private: `{"events"?: [{…}], "by"?, "salt"}`, the same fields, of which `PRIVATE` says
which they are. `private` is the SHA-256 of the second line, and `digest` is that of the first one only: so the second
can be erased, and every chain, tree and signature still holds. The salt makes that digest say nothing of what is gone.

Field names are those of the event classes; a field that has its default is left out. To change a shape: raise
`VERSION`, add an upcaster from the old version, add golden files under `tests/domain/golden/`, and keep the old ones.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from operator import attrgetter
from typing import Any, Final

import orjson

from arc_es.codec_read import BODIES, EventReader, NotPlain
from arc_es.domain import events as e
from arc_es.domain.events import Event
from arc_es.domain.ids import Target
from arc_es.domain.recorded import SERVICE, Agent, Decision, Key, Principal, Recorded
from arc_es.ports import JournalCorrupt
from arc_es.randomness import token_bytes

VERSION: Final = 2
_SALT_BYTES: Final = 16
_STUB: Final = b'{"digest":"'
_DIGEST_CHARS: Final = 64

EVENT_TYPES: Final[Mapping[str, type[Any]]] = {
    cls.__name__: cls
    for cls in (
        e.DeploymentDeclared,
        e.TargetObserved,
        e.DeliveryPaused,
        e.DeliveryResumed,
        e.ConcurrencyLimited,
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
        e.CommandRedriven,
        e.CommandArchived,
        e.CommandErased,
        e.PayloadStored,
        e.TokenCreated,
        e.TokenRevoked,
        e.CheckpointKeyAdded,
        e.CheckpointSigned,
    )
}
"""Every event class ever stored, by its stored name."""

UPCASTERS: Final[Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]] = {1: lambda stored: stored}
"""From version n to n + 1, on the public object. Version 1 had one line with everything in it."""

PRIVATE: Final[Mapping[type[Any], frozenset[str]]] = {
    Principal: frozenset({"address", "user_agent", "request_id", "agent"}),
    e.Body: frozenset({"sha256", "base64"}),
    e.DeliveryPaused: frozenset({"reason"}),
    e.CommandCreated: frozenset({"idempotency_key", "params_digest", "labels", "trace"}),
    e.CommandLeased: frozenset({"agent"}),
    e.DeliveryFailed: frozenset({"reason"}),
    e.CommandFailed: frozenset({"message", "details", "sha256"}),
    e.LateResponseRecorded: frozenset({"sha256"}),
    e.PayloadStored: frozenset({"message", "details", "sha256"}),
}
"""What is stored in the second line, beside the same of the bodies in an event. An unsalted digest of a short text
tells the text to who guesses it, so digests are private, too."""
_BLANK: Final[Mapping[str, Mapping[str, str]]] = {
    "DeliveryFailed": {"reason": ""},
    "CommandFailed": {"message": ""},
    "LateResponseRecorded": {"sha256": ""},
}
"""What private fields without a default are once they are erased; of a body it is the digest."""


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


_RECORDS: Final = (e.Body, e.RetryPolicy, e.TraceContext, e.PushSettings, e.DeclaredTarget, Principal, Agent, Target)
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

_READER: Final = EventReader(VERSION, EVENT_TYPES.values(), PRIVATE, _NESTED)


def _values_of(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda record: tuple(getattr(record, name) for name in names)


_ATOMS: Final = (str, int, float, bool)
_SHAPES: Final[Mapping[type[Any], tuple[Callable[[Any], tuple[Any, ...]], tuple[tuple[str, Any, bool], ...]]]] = {
    cls: (
        _values_of([name for name, _ in columns]),
        tuple((name, default, name in PRIVATE.get(cls, ())) for name, default in columns),
    )
    for cls, columns in _FIELDS.items()
}
"""Of each record how to get all fields at once, and of each field its name, its default, and whether it is private."""


def _split(record: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The public and the private fields of a record, storable."""
    values_of, columns = _SHAPES[type(record)]
    public: dict[str, Any] = {}
    private: dict[str, Any] = {}
    for (name, default, hidden), item in zip(columns, values_of(record), strict=True):
        if item is default or item == default:
            continue
        if type(item) is e.Body:
            public[name], private[name] = _split(item)
        else:
            (private if hidden else public)[name] = item if type(item) in _ATOMS else _plain(item)
    return public, private


class _LastPrincipal:
    """Whoever was split last: what one request does to many commands is all done by one principal."""

    def __init__(self) -> None:
        self._by = SERVICE
        self._split = _split(SERVICE)

    def split(self, by: Principal) -> tuple[dict[str, Any], dict[str, Any]]:
        """As `_split`; nobody may change what it returns."""
        if by is not self._by:
            self._by, self._split = by, _split(by)
        return self._split


_last_principal: Final = _LastPrincipal()


def _in_two(decision: Decision) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """What comes before the events in the first line, the events there, and the second line without its salt."""
    by, private_by = _last_principal.split(decision.by)
    head: dict[str, Any] = {"v": VERSION, "id": decision.id, "at": decision.at, "by": by}
    if decision.prev is not None:
        head["prev"] = decision.prev
    events: list[dict[str, Any]] = []
    hidden: list[dict[str, Any]] = []
    for event in decision.events:
        public, private = _split(event)
        events.append({"type": type(event).__name__, **public})
        hidden.append(private)
    second: dict[str, Any] = {"events": hidden} if any(hidden) else {}
    if private_by:
        second["by"] = private_by
    return head, events, second


def _new_salt() -> str:
    return urlsafe_b64encode(token_bytes(_SALT_BYTES)).rstrip(b"=").decode()


def encode(decision: Decision, salt: str | None = None) -> bytes:
    """The bytes to store for a decision. salt: 22 characters that nobody can guess; new ones if None."""
    head, events, second = _in_two(decision)
    if not second:
        return orjson.dumps({**head, "events": events})
    line = orjson.dumps({**second, "salt": salt or _new_salt()})
    return b"%b\n%b" % (orjson.dumps({**head, "private": hashlib.sha256(line).hexdigest(), "events": events}), line)


def _public(line: bytes) -> dict[str, Any]:
    try:
        stored: dict[str, Any] = orjson.loads(line)
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


def _whole(payload: bytes) -> dict[str, Any]:
    """Both lines in one object, checked; `private` is left in it only if the second line is erased."""
    public, newline, private = payload.partition(b"\n")
    stored = _public(public)
    if not newline:
        if "private" in stored:
            _make_blank(stored["events"])
        return stored
    if hashlib.sha256(private).hexdigest() != stored.pop("private", None):
        raise JournalCorrupt("The private part of a stored message is not the one that was stored with it")
    hidden = orjson.loads(private)
    if "events" in hidden:
        _merge(stored["events"], hidden["events"])
    stored["by"] |= hidden.get("by", {})
    return stored


def _merge(events: list[dict[str, Any]], private: list[dict[str, Any]]) -> None:
    """Put private fields back where they were."""
    for event, hidden in zip(events, private, strict=True):
        for name, item in hidden.items():
            there = event.get(name)
            event[name] = item if there is None else there | item


def _make_blank(events: list[dict[str, Any]]) -> None:
    """Give events whose private fields are erased those that they cannot be without."""
    for event in events:
        event.update(_BLANK.get(event["type"], {}))
        for name in BODIES:
            if name in event:
                event[name]["sha256"] = ""


def _event(data: dict[str, Any]) -> Event:
    name = data.pop("type")
    nested = _NESTED.get(name)
    if nested is not None:
        for field, read in nested.items():
            if field in data:
                data[field] = read(data[field])
    event: Event = EVENT_TYPES[name](**data)
    return event


def _principal(data: dict[str, Any]) -> Principal:
    if "agent" in data:
        data["agent"] = Agent(**data["agent"])
    return Principal(**data)


def decode(payload: bytes) -> Decision:
    """The decision in stored bytes, whose private part is what it was, or erased.

    Raises:
        JournalCorrupt: they are no decision, or a newer version's, or another private part.
    """
    try:
        stored = _whole(payload)
        events = tuple([_event(data) for data in stored["events"]])
        by = _principal(stored["by"])
        return Decision(stored["id"], stored["at"], by, events, stored.get("prev"), is_erased="private" in stored)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise JournalCorrupt(f"A stored decision has an unknown shape: {error}") from error


def decode_recorded(position: int, key: Key, payload: bytes) -> Recorded:
    """What projections fold, without the parts that only an auditor reads. Raises as `decode`.

    The private part is not compared with its digest here, as the chain is not either: `decode` and `arc-es verify` do.
    """
    try:
        at, events = _READER.read(payload)
        return Recorded(position, key, at, events)
    except NotPlain:
        return _recorded(position, key, payload)


def _recorded(position: int, key: Key, payload: bytes) -> Recorded:
    """The same of any version, erased or not."""
    public, newline, private = payload.partition(b"\n")
    stored = _public(public)
    try:
        if not newline:
            if "private" in stored:
                _make_blank(stored["events"])
        elif private.startswith(b'{"events"'):
            _merge(stored["events"], orjson.loads(private)["events"])
        return Recorded(position, key, stored["at"], tuple([_event(data) for data in stored["events"]]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise JournalCorrupt(f"Message {position} has an unknown shape: {error}") from error


def inline_base64(payload: bytes) -> str:
    """The base64 text of the one body that lies inside a stored decision.

    Raises:
        JournalCorrupt: there is none, though the state says so.
    """
    for event in _whole(payload)["events"]:
        for name in BODIES:
            body = event.get(name)
            if body is not None and "base64" in body:
                text: str = body["base64"]
                return text
    raise JournalCorrupt("A stored decision does not hold the body that it should")


def digest(payload: bytes) -> str:
    """SHA-256 in hex of what a stored message says in public: the `prev` of the next one in its history."""
    return digest_of_public(payload.partition(b"\n")[0])


def digest_of_public(line: bytes) -> str:
    """The digest of a message by its first line: of a stub, the one that it names."""
    if is_stub(line):
        return line[len(_STUB) : len(_STUB) + _DIGEST_CHARS].decode("ascii", "replace")
    return hashlib.sha256(line).hexdigest()


def is_stub(payload: bytes) -> bool:
    """Whether this is what `redacted` left of a message of version 1."""
    return payload.startswith(_STUB)


def redacted(payload: bytes) -> bytes:
    """A stored message without what is private.

    One of version 1 has it in its one line, so it becomes a stub: the digest that it had, and what is public. The chain
    goes on through that digest, but nobody can tell any more whether it was that of these events.
    """
    public = payload.partition(b"\n")[0]
    if _public(public)["v"] != 1:
        return public
    head, events, second = _in_two(decode(public))
    if not second:
        return public
    return orjson.dumps({"digest": digest(public), **head, "private": "", "events": events})
