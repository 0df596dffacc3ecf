"""Events of stored decisions read by their types: one pass of C code over each line, and no dictionary in between.

This reads what is written today, and nothing else: one version, complete, with its private line or in need of none.
Whatever is different (older, newer, erased, damaged) is `NotPlain`, and left to `arc_es.codec`, which reads it step by
step or says what is wrong. For each event class there is a struct of its public fields, told by `type`; one struct has
all private fields; and a function makes the event of both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, Final, Literal, TypeAlias, Union

import msgspec

from arc_es.domain.events import Body, Event

BODIES: Final = ("params", "response", "body")
"""Fields that hold a `Body`, of which a part is private."""

Nested: TypeAlias = Mapping[str, Mapping[str, Callable[[Any], Any]]]
"""By name of an event and a field that holds a record: what makes the record of the stored object."""

NotPlain: Final = (msgspec.MsgspecError, UnicodeDecodeError, AttributeError, TypeError, ValueError)
"""What `EventReader.read` raises of anything that is not in the form that is written today."""


class _PublicBody(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    place: Any
    size: Any
    ref: Any = None


class _PrivateBody(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    sha256: Any
    base64: Any = None


def _body(public: _PublicBody, private: _PrivateBody) -> Body:
    return Body(place=public.place, size=public.size, sha256=private.sha256, base64=private.base64, ref=public.ref)


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


class EventReader:
    """Reads the events of messages of one version. private: which fields of a class are in the second line."""

    def __init__(
        self, version: int, events: Collection[type[Any]], private: Mapping[type[Any], frozenset[str]], nested: Nested
    ) -> None:
        structs = {cls: _public_struct(cls, private.get(cls, frozenset())) for cls in events}
        hidden = {name for cls in events for name in private.get(cls, ())}
        line = msgspec.defstruct(
            "Public",
            [
                ("v", Literal[version]),
                ("at", int),
                ("events", tuple[Union[tuple(structs.values())], ...]),  # type: ignore[misc]  # noqa: UP007 - made here
                ("private", str | None, None),
            ],
            gc=False,
        )
        secrets = msgspec.defstruct(
            "Secrets",
            [(name, Any, None) for name in hidden] + [(name, _PrivateBody | None, None) for name in BODIES],
            gc=False,
            forbid_unknown_fields=True,
        )
        lines = msgspec.defstruct("Private", [("events", tuple[secrets, ...], ())], gc=False)  # type: ignore[valid-type]
        self._public = msgspec.json.Decoder(line).decode
        self._private = msgspec.json.Decoder(lines).decode
        self._nothing = secrets()
        self._make = {
            structs[cls]: _maker(cls, private.get(cls, frozenset()), nested.get(cls.__name__, {})) for cls in events
        }

    def read(self, payload: bytes) -> tuple[int, tuple[Event, ...]]:
        """Time and events of a message. Raises one of `NotPlain`."""
        public, newline, private = payload.partition(b"\n")
        stored: Any = self._public(public)
        events, make = stored.events, self._make
        hidden: Any = ()
        if newline:
            hidden = self._private(private).events  # type: ignore[attr-defined]
        elif stored.private is not None:
            raise TypeError("Its private part is erased")
        if not hidden:
            hidden = (self._nothing,) * len(events)
        if len(events) == len(hidden) == 1:  # nearly always, and faster so
            (event,), (secret,) = events, hidden
            return stored.at, (make[type(event)](event, secret),)
        return stored.at, tuple(
            [make[type(event)](event, secret) for event, secret in zip(events, hidden, strict=True)]
        )


def _public_struct(cls: type[Any], private: frozenset[str]) -> type[msgspec.Struct]:
    """The public fields of an event; what is in them is not checked here, as it is not elsewhere."""
    public: list[Any] = []
    for field in fields(cls):
        if field.name not in private:
            kind = _PublicBody | None if field.name in BODIES else Any
            default = _default(field)
            public.append((field.name, kind) if default is MISSING else (field.name, kind, default))
    return msgspec.defstruct(
        cls.__name__, public, tag_field="type", tag=cls.__name__, kw_only=True, gc=False, forbid_unknown_fields=True
    )


def _maker(
    cls: type[Any], private: frozenset[str], nested: Mapping[str, Callable[[Any], Any]]
) -> Callable[[Any, Any], Any]:
    """A function of a public and a private struct that makes the event.

    It is compiled from its own text, as dataclasses compile theirs: one call with all arguments spelled out takes half
    the time of any loop over fields.
    """
    names: dict[str, Any] = {"cls": cls, "body": _body, "needed": _needed}
    arguments: list[str] = []
    for field in fields(cls):
        name = field.name
        value = f"private.{name}" if name in private else f"public.{name}"
        if name in BODIES:
            value = f"None if {value} is None else body({value}, private.{name})"
        elif name in nested:
            names[f"make_{name}"] = nested[name]
            value = f"None if {value} is None else make_{name}({value})"
        if name in private:
            default = _default(field)
            if default is MISSING:
                value = f"needed({value})"
            elif default is not None:
                names[f"default_{name}"] = default
                value = f"default_{name} if {value} is None else {value}"
        arguments.append(f"{name}={value}")
    made: Callable[[Any, Any], Any] = eval(f"lambda public, private: cls({', '.join(arguments)})", names)  # noqa: S307 - our names only
    return made


def _needed(value: Any) -> Any:
    if value is None:
        raise TypeError("A private field is not there")
    return value
