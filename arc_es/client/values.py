"""Typed values as JSON and back: dataclasses by their fields, pydantic and msgspec by what their classes can do.

Neither library is imported: a class of msgspec's is only there if msgspec has been imported already.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import orjson

_UNTYPED: Final = (Any, object, inspect.Parameter.empty, TypeVar)
_FROM_TEXT: Final[dict[Any, Callable[[str], Any]]] = {
    datetime: datetime.fromisoformat,
    date: date.fromisoformat,
    time: time.fromisoformat,
    UUID: UUID,
    Decimal: Decimal,
    Path: Path,
}


class Unfit(ValueError):
    """JSON does not fit the type that was asked for; the message says where."""


def encode(value: Any) -> bytes:
    """A value as bytes: bytes as they are, everything else as JSON.

    Raises:
        TypeError: it cannot be JSON.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS)


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if hasattr(value, "__struct_fields__"):
        return sys.modules["msgspec"].to_builtins(value)
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, Decimal | Path):
        return str(value)
    raise TypeError  # orjson names the type


def decode(raw: bytes, wanted: Any, where: str = "params") -> Any:
    """A value of the wanted type from bytes.

    Args:
        raw: JSON, unless bytes are wanted.
        wanted: a type annotation; Any, or none, for whatever the JSON holds.
        where: what the message calls it.

    Raises:
        Unfit: it is no JSON, or does not fit.
    """
    if wanted is bytes:
        return raw
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Unfit(f"{where}: not JSON: {error}") from error
    return build(value, wanted, where)


def build(value: Any, wanted: Any, where: str) -> Any:
    """What JSON says, as the wanted type. Raises Unfit."""
    if wanted in _UNTYPED or isinstance(wanted, TypeVar):
        return value
    origin = get_origin(wanted)
    if origin is not None:
        return _build_generic(value, wanted, origin, where)
    if hasattr(wanted, "model_validate") or hasattr(wanted, "__struct_fields__"):
        return _by_library(value, wanted, where)
    if dataclasses.is_dataclass(wanted):
        return _build_dataclass(value, wanted, where)
    if typing.is_typeddict(wanted):
        wanted = dict
    if wanted in _FROM_TEXT or (isinstance(wanted, type) and issubclass(wanted, enum.Enum)):
        try:
            return _FROM_TEXT.get(wanted, wanted)(value)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise Unfit(f"{where}: {value!r:.100} is no {wanted.__name__}") from error
    return _build_plain(value, wanted, where)


def _build_plain(value: Any, wanted: Any, where: str) -> Any:
    if wanted is None or wanted is type(None):
        fits = value is None
    elif wanted is float:
        fits = isinstance(value, float | int) and not isinstance(value, bool)
    elif wanted is int:
        fits = isinstance(value, int) and not isinstance(value, bool)
    else:
        fits = isinstance(wanted, type) and isinstance(value, wanted)
    if not fits:
        raise Unfit(f"{where}: {value!r:.100} is no {getattr(wanted, '__name__', wanted)}")
    return float(value) if wanted is float else value


def _by_library(value: Any, wanted: Any, where: str) -> Any:
    """Classes of pydantic and msgspec know how to read themselves, and both raise kinds of ValueError."""
    try:
        if hasattr(wanted, "model_validate"):
            return wanted.model_validate(value)
        return sys.modules["msgspec"].convert(value, wanted)
    except ValueError as error:
        raise Unfit(f"{where}: {error}") from error


def _build_dataclass(value: Any, wanted: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise Unfit(f"{where}: {value!r:.100} is no object")
    hints = get_type_hints(wanted)
    found: dict[str, Any] = {}
    for field in dataclasses.fields(wanted):
        if not field.init:
            continue
        if field.name in value:
            found[field.name] = build(value[field.name], hints[field.name], f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise Unfit(f"{where}.{field.name} is missing")
    return wanted(**found)


def _build_generic(value: Any, wanted: Any, origin: Any, where: str) -> Any:
    choices = get_args(wanted)
    if origin in (Union, types.UnionType):
        return _build_union(value, choices, where)
    if origin is Literal:
        if value not in choices:
            raise Unfit(f"{where}: {value!r:.100} is none of {list(choices)}")
        return value
    if origin is typing.Annotated:
        return build(value, choices[0], where)
    if issubclass(origin, Mapping):
        pairs = _build_plain(value, dict, where).items()
        return {build(name, choices[0], where): build(one, choices[1], f"{where}.{name}") for name, one in pairs}
    if issubclass(origin, Collection):
        return _build_collection(_build_plain(value, list, where), choices, origin, where)
    return build(value, origin, where)


def _build_collection(values: list[Any], choices: tuple[Any, ...], origin: Any, where: str) -> Any:
    if origin is tuple and choices[-1:] != (...,):
        if len(values) != len(choices):
            raise Unfit(f"{where}: {len(values)} values instead of {len(choices)}")
        kinds: Sequence[Any] = choices
    else:
        kinds = [choices[0]] * len(values)
    built = [build(one, kind, f"{where}[{n}]") for n, (one, kind) in enumerate(zip(values, kinds, strict=True))]
    return built if not isinstance(origin, type) or inspect.isabstract(origin) else origin(built)


def _build_union(value: Any, choices: Sequence[Any], where: str) -> Any:
    problems: list[str] = []
    for choice in choices:
        try:
            return build(value, choice, where)
        except Unfit as problem:
            problems.append(str(problem))
    raise Unfit("; ".join(problems))
