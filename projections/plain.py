"""What projections hold as plain data, and back: `dump` gives only what `marshal` can write, `load` makes it again.

Single records go by `plain` and `made`; what there are millions of goes in columns (`packed` and `unpacked`), because
a column costs a few steps of C code where a record costs a few lines of Python.

The same contents always give the same plain data: digests of two dumps say whether two folds agree.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import repeat
from typing import Any, Final, TypeAlias, TypeVar

from arc_es.domain import events as e
from arc_es.domain.deployments import Controls, Deployment, Pause
from arc_es.domain.ids import Target
from arc_es.domain.payloads import Payload
from arc_es.domain.state import shared_route
from arc_es.domain.tokens import Grant, Token

T = TypeVar("T")

Plain: TypeAlias = Any
"""None, numbers, texts, bytes, and tuples, lists and dicts of them."""

_WORDS_MAX: Final = 256
"""So many different values are numbered by one byte each."""


# --- records

_RECORDS: Final = (
    e.RetryPolicy,
    e.TraceContext,
    e.PushSettings,
    e.DeclaredTarget,
    e.DeploymentDeclared,
    Pause,
    Controls,
    Deployment,
    Target,
    Payload,
    Grant,
    Token,
)


def _maker(cls: type[Any]) -> Callable[..., Any]:
    names = [entry.name for entry in fields(cls) if entry.init]
    return lambda *values: cls(**dict(zip(names, values, strict=True)))


_MAKERS: Final[Mapping[str, Callable[..., Any]]] = {
    "tuple": lambda *items: items,
    "frozenset": lambda *items: frozenset(items),
    "Route": shared_route,
    **{cls.__name__: _maker(cls) for cls in _RECORDS},
}


def plain(value: Any) -> Plain:
    """A record, and all that is in it, as plain data."""
    if is_dataclass(value):
        inside = (plain(getattr(value, entry.name)) for entry in fields(value) if entry.init)
        return (type(value).__name__, *inside)
    if isinstance(value, tuple):
        return ("tuple", *map(plain, value))
    if isinstance(value, frozenset):
        return ("frozenset", *sorted(map(plain, value), key=repr))
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    return value


def made(data: Plain) -> Any:
    """What `plain` was given."""
    if isinstance(data, tuple):
        return _MAKERS[data[0]](*map(made, data[1:]))
    if isinstance(data, dict):
        return {name: made(item) for name, item in data.items()}
    return data


# --- columns


def packed(values: Sequence[Any]) -> Plain:
    """A column: one value for all, numbered values, machine integers, or a list, whichever comes first."""
    if not values:
        return ("list", [])
    distinct = dict.fromkeys(values)
    if len(distinct) == 1:
        return ("same", values[0], len(values))
    if len(distinct) <= _WORDS_MAX:
        numbers = dict(zip(distinct, range(_WORDS_MAX), strict=False))
        return ("words", [*distinct], bytes(map(numbers.__getitem__, values)))
    if set(map(type, values)) == {int}:
        try:
            return ("ints", array("q", values).tobytes())
        except OverflowError:
            pass
    return ("list", list(values))


def unpacked(column: Plain) -> Iterable[Any]:
    """The values of a column, in order."""
    kind, data, *more = column
    if kind == "same":
        return repeat(data, more[0])
    if kind == "words":
        return map(data.__getitem__, more[0])
    if kind == "ints":
        numbers = array("q")
        numbers.frombytes(data)
        return numbers
    values: list[Any] = data
    return values


def numbered(values: Sequence[Any], as_plain: Callable[[Any], Plain]) -> Plain:
    """A column of records of which many are one and the same: each different one once, and their numbers."""
    identities = list(map(id, values))
    numbers: dict[Plain, int] = {}
    by_identity = {
        identity: numbers.setdefault(as_plain(value), len(numbers))
        for identity, value in dict(zip(identities, values, strict=True)).items()
    }
    return ([*numbers], packed(list(map(by_identity.__getitem__, identities))))


def unnumbered(column: Plain, make: Callable[[Plain], Any]) -> Iterator[Any]:
    """What `numbered` was given; equal ones are one object."""
    distinct, numbers = column
    return map([make(data) for data in distinct].__getitem__, unpacked(numbers))


def objects(cls: type[T], count: int, columns: Mapping[str, Iterable[Any]]) -> list[T]:
    """So many objects of a slotted class, with their fields from columns.

    Without calls of `__init__`: a field of all objects is set in one loop that runs in C, which is faster by a third.
    """
    made_objects: list[T] = list(map(object.__new__, repeat(cls, count)))
    for name, values in columns.items():
        deque(map(getattr(cls, name).__set__, made_objects, values), maxlen=0)
    return made_objects
