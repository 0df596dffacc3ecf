"""From a wanted page to rows: one ordered walk for each thing that the caller may see, merged as far as needed.

A walk goes along one index and stops when the page is full, so a page costs as much as it is long, however many
commands there are. Walks of several deployments or targets (a token may name some) are merged in order.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final, cast

from arc_es.domain.ids import Micros
from arc_es.index.rows import summary_from
from arc_es.index.schema import COLUMNS
from arc_es.summaries import ENDED, Find, Page, Place, Summary

_COLUMNS: Final = ", ".join(f"c.{name}" for name in COLUMNS)


def page_of(connection: sqlite3.Connection, find: Find) -> Page:
    """The page, and the position that it shows, from one state of the index. Raises sqlite3.Error."""
    connection.execute("BEGIN")
    try:
        (position,) = connection.execute("SELECT position FROM meta").fetchone()
        changed: set[str] = set()
        found = tuple(islice(_visible(connection, find, changed), find.limit + 1))
    finally:
        connection.execute("ROLLBACK")
    shown, more = found[: find.limit], len(found) > find.limit
    behind = Place(shown[-1].created_at, shown[-1].command_id, find.as_of) if more else None
    return Page(shown, behind, position if find.as_of is None else find.as_of, frozenset(changed))


def _visible(connection: sqlite3.Connection, find: Find, changed: set[str]) -> Iterator[Summary]:
    """The commands of a list, in order; those that have changed since its moment are put into `changed`."""
    walks = [_walk(connection, changed, *statement_of(find, *part)) for part in parts_of(find)]
    merged: Iterable[Summary] = walks[0] if len(walks) == 1 else heapq.merge(*walks, key=_rank, reverse=_is_down(find))
    covers = find.reach.covers
    for summary in merged:
        if covers is None or covers(summary.deployment_id, summary.target_id, summary.target_type):
            yield summary


def _walk(connection: sqlite3.Connection, changed: set[str], statement: str, values: list[Any]) -> Iterator[Summary]:
    cursor = connection.execute(statement, values)
    try:
        for *row, is_changed in cursor:
            summary = summary_from(row)
            if is_changed:
                changed.add(summary.command_id)
            yield summary
    finally:
        cursor.close()


def _rank(summary: Summary) -> tuple[int, str]:
    return summary.created_at, summary.command_id


def _is_down(find: Find) -> bool:
    return find.order == "desc"


def parts_of(find: Find) -> list[tuple[str | None, str | None]]:
    """Deployment and target id of each walk; None: any."""
    deployments = _allowed(find.deployment_id, find.reach.deployments)
    targets = _allowed(find.target_id, find.reach.target_ids)
    return [(deployment, target) for deployment in deployments for target in targets]


def _allowed(wanted: str | None, allowed: frozenset[str] | None) -> list[str | None]:
    if allowed is None:
        return [wanted]
    if wanted is None:
        return cast("list[str | None]", sorted(allowed))
    return [wanted] if wanted in allowed else []


def statement_of(find: Find, deployment_id: str | None, target_id: str | None) -> tuple[str, list[Any]]:
    """One walk: a statement and its values."""
    conditions: list[str] = []
    values: list[Any] = []

    def need(condition: str, *given: Any) -> None:
        conditions.append(condition)
        values.extend(given)

    driven, created, n = "commands c", "c.created_at", "c.n"
    others = find.labels
    if find.labels:
        # CROSS JOIN: SQLite takes the tables in this order, and so walks along the label.
        driven, created, n = "labels l CROSS JOIN commands c ON c.n = l.n", "l.created_at", "l.n"
        need("l.key = ? AND l.value = ?", *find.labels[0])
        others = find.labels[1:]
    for column, wanted in (
        ("deployment_id", deployment_id),
        ("target_id", target_id),
        ("state", _state_of_column(find)),
        ("command", find.command),
        ("origin", find.origin),
    ):
        if wanted is not None:
            need(f"c.{column} = ?", wanted)
    is_changed = _as_of_now(find, need) if find.as_of is None else _as_of(find, find.as_of, need)
    for label in others:
        label_of_it = f"o.created_at = {created} AND o.n = {n}"
        need(f"EXISTS (SELECT 1 FROM labels o WHERE o.key = ? AND o.value = ? AND {label_of_it})", *label)  # noqa: S608
    low, high = _times(find)
    if low is not None:
        need(f"{created} >= ?", low)
    if high is not None:
        need(f"{created} <= ?", high)
    if find.after is not None:
        way = "<" if _is_down(find) else ">"
        need(f"({created} {way} ? OR c.id {way} ?)", find.after.created_at, find.after.command_id)
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    order = find.order.upper()
    text = f"SELECT {_COLUMNS}, {is_changed} FROM {driven}{where} ORDER BY {created} {order}, c.id {order}"  # noqa: S608 - our names
    return text, values


def _state_of_column(find: Find) -> str | None:
    """The state that a row must be in now."""
    if find.origin is not None and find.state == "FAILED":  # one says the other
        return None
    return find.state if find.as_of is None or find.state in ENDED else None


def _as_of_now(find: Find, need: Callable[..., None]) -> str:
    if find.redriven is not None:
        need(f"c.redriven_as IS {'NOT ' if find.redriven else ''}NULL")
    return "0"


def _as_of(find: Find, position: int, need: Callable[..., None]) -> str:
    """What must hold of a command so that it may have been in the list then; and what says that it has changed.

    A command that had ended by then is as it was, unless it was redriven: late answers are not in lists. A plus keeps
    SQLite from walking along what only filters.
    """
    need("+c.n <= ?", position)
    had_ended = f"c.answer_at BETWEEN 1 AND {position:d}"
    if find.state in ENDED or find.origin is not None:
        need(had_ended)
    elif find.state is not None:
        need(f"NOT {had_ended} AND (c.version > {position:d} OR +c.state = ?)", find.state)
    if find.redriven is not None:
        need("c.redriven_as IS NOT NULL" if find.redriven else f"(c.redriven_as IS NULL OR c.version > {position:d})")
    return f"c.version > {position:d} AND NOT ({had_ended} AND c.redriven_as IS NULL)"


def _times(find: Find) -> tuple[Micros | None, Micros | None]:
    """The first and the last time of creation that a walk meets. One bound a side, so that SQLite starts there."""
    low = find.created_after
    high = None if find.created_before is None else find.created_before - 1
    if find.after is not None:
        at = find.after.created_at
        if _is_down(find):
            high = at if high is None else min(high, at)
        else:
            low = at if low is None else max(low, at)
    return low, high


def deployment_of(connection: sqlite3.Connection, command_id: str) -> str | None:
    """The deployment of a command, None if the index does not have it. Raises sqlite3.Error."""
    row = connection.execute("SELECT deployment_id FROM commands WHERE id = ?", (command_id,)).fetchone()
    return None if row is None else str(row[0])
