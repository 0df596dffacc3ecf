"""The rows of all commands as pieces of plain data, each a table of columns for each state, and back.

To make the objects again is most of what a restart costs, and most commands are finished and never asked for again. So
those stay in columns, a piece together, until one of the piece is wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from itertools import islice
from operator import attrgetter
from typing import Any, Final

from arc_es.domain.state import (
    NO_OPTIONS,
    Dispatched,
    Expired,
    Facts,
    Failed,
    Leased,
    Options,
    Pending,
    PendingUpload,
    Succeeded,
)
from projections.change import Row
from projections.plain import Plain, made, numbered, objects, packed, plain, unnumbered, unpacked

PIECE_ROWS: Final = 512
"""What is made at once when one finished command of a piece is asked for: about a millisecond."""

_STATES: Final[Mapping[str, type[Any]]] = {
    "U": PendingUpload,
    "P": Pending,
    "L": Leased,
    "D": Dispatched,
    "S": Succeeded,
    "F": Failed,
    "E": Expired,
}
LIVE: Final = frozenset("UPLD")
_LETTER_OF: Final = {cls: letter for letter, cls in _STATES.items()}


def _names(cls: type[Any], *apart: str) -> tuple[str, ...]:
    return tuple(entry.name for entry in fields(cls) if entry.name not in apart)


_FIELDS: Final = {letter: _names(cls, "facts") for letter, cls in _STATES.items()}
_FACTS: Final = _names(Facts, "route", "options")
_ROW: Final = _names(Row, "command_id", "state")
_OPTIONS: Final = _names(Options)
_TRACE_AT: Final = _OPTIONS.index("trace")
_options_of: Final = attrgetter(*_OPTIONS)


def pieces(rows: Iterable[Row]) -> Iterator[Plain]:
    """All rows, in order, a piece at a time."""
    rest = iter(rows)
    while piece := list(islice(rest, PIECE_ROWS)):
        yield _packed_rows(piece)


def _packed_rows(rows: list[Row]) -> Plain:
    letters = [_LETTER_OF[type(row.state)] for row in rows]
    groups: dict[str, list[Row]] = {letter: [] for letter in _STATES}
    for letter, row in zip(letters, rows, strict=True):
        groups[letter].append(row)
    return "".join(letters), {letter: _table(letter, group) for letter, group in groups.items() if group}


def _column(name: str, of: list[Any]) -> list[Any]:
    return list(map(attrgetter(name), of))


def _table(letter: str, rows: list[Row]) -> Plain:
    states = _column("state", rows)
    facts = _column("facts", states)
    return {
        "ids": "\n".join(_column("command_id", rows)),
        "row": {name: packed(_column(name, rows)) for name in _ROW},
        "state": {name: packed(_column(name, states)) for name in _FIELDS[letter]},
        "facts": {name: packed(_column(name, facts)) for name in _FACTS},
        "route": numbered(_column("route", facts), plain),
        "options": numbered(_column("options", facts), _plain_options),
    }


def _plain_options(options: Options) -> Plain:
    values = _options_of(options)
    if options.trace is None:
        return values
    return (*values[:_TRACE_AT], plain(options.trace), *values[_TRACE_AT + 1 :])


def _options(values: Plain) -> Options:
    if values[_TRACE_AT] is not None:
        values = (*values[:_TRACE_AT], made(values[_TRACE_AT]), *values[_TRACE_AT + 1 :])
    options = Options(*values)
    return NO_OPTIONS if options == NO_OPTIONS else options


class Cold:
    """The rows of a piece that have come to an end, as they were dumped. Most of them are never asked for."""

    __slots__ = ("_tables",)

    def __init__(self, tables: Mapping[str, Plain]) -> None:
        self._tables = tables

    def rows(self) -> list[Row]:
        """All of them, made anew."""
        return [row for letter, table in self._tables.items() for row in _rows(letter, table)]


def opened(piece: Plain) -> tuple[list[str], list[Row], Cold]:
    """The ids of a piece, in order, its live rows, and the others."""
    letters, tables = piece
    live = [row for letter, table in tables.items() if letter in LIVE for row in _rows(letter, table)]
    cold = Cold({letter: table for letter, table in tables.items() if letter not in LIVE})
    ids = {letter: table["ids"].split("\n") for letter, table in tables.items()}
    if len(ids) == 1:
        return next(iter(ids.values())), live, cold
    turns = {letter: iter(group) for letter, group in ids.items()}
    return list(map(next, map(turns.__getitem__, letters))), live, cold


def _rows(letter: str, table: Plain) -> list[Row]:
    ids = table["ids"].split("\n")
    count = len(ids)
    columns = {name: unpacked(column) for name, column in table["facts"].items()}
    routes, options = unnumbered(table["route"], made), unnumbered(table["options"], _options)
    facts = objects(Facts, count, {**columns, "route": routes, "options": options})
    columns = {name: unpacked(column) for name, column in table["state"].items()}
    states = objects(_STATES[letter], count, {**columns, "facts": facts})
    columns = {name: unpacked(column) for name, column in table["row"].items()}
    return objects(Row, count, {**columns, "command_id": ids, "state": states})
