"""Immutable values that are made by the million."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(cls: type[T]) -> type[T]:
    """A slotted dataclass that the type checker holds frozen, equal and hashable by its fields.

    Not frozen at run time: `frozen=True` sets each field through `object.__setattr__`, which makes a new object about
    four times slower, and making events and states is most of what a replay does.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def record(cls: type[T]) -> type[T]:
    """A `value` whose fields are given by name: the form of everything that is stored."""
    return dataclass(slots=True, unsafe_hash=True, kw_only=True)(cls)
