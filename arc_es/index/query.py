"""From a wanted page to rows: one ordered walk for each thing that the caller may see, merged as far as needed.

A walk goes along one index and stops when the page is full, so a page costs as much as it is long, however many
commands there are. Walks of several deployments or targets (a token may name some) are merged in order.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, cast

from arc_es.domain.ids import Micros
from arc_es.index.rows import summary_from
from arc_es.index.schema import COLUMNS
from arc_es.summaries import Find, Page, Place, Summary

_COLUMNS: Final = ", ".join(f"c.{name}" for name in COLUMNS)


def page_of(connection: sqlite3.Connection, find: Find) -> Page:
    """The page, and the position that it shows, from one state of the index. Raises sqlite3.Error."""
    connection.execute("BEGIN")
    try:
        (position,) = connection.execute("SELECT position FROM meta").fetchone()
        found = tuple(islice(_visible(connection, find), find.limit + 1))
    finally:
        connection.execute("ROLLBACK")
    if len(found) <= find.limit:
        return Page(found, None, position)
    shown = found[: find.limit]
    return Page(shown, Place(shown[-1].created_at, shown[-1].command_id), position)


def _visible(connection: sqlite3.Connection, find: Find) -> Iterator[Summary]:
    walks = [_walk(connection, *statement_of(find, *part)) for part in parts_of(find)]
    merged: Iterable[Summary] = walks[0] if len(walks) == 1 else heapq.merge(*walks, key=_rank, reverse=_is_down(find))
    covers = find.reach.covers
    for summary in merged:
        if covers is None or covers(summary.deployment_id, summary.target_id, summary.target_type):
            yield summary


def _walk(connection: sqlite3.Connection, statement: str, values: list[Any]) -> Iterator[Summary]:
    cursor = connection.execute(statement, values)
    try:
        for row in cursor:
            yield summary_from(row)
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
        ("state", None if find.origin is not None and find.state == "FAILED" else find.state),  # one says the other
        ("command", find.command),
        ("origin", find.origin),
    ):
        if wanted is not None:
            need(f"c.{column} = ?", wanted)
    if find.redriven is not None:
        need(f"c.redriven_as IS {'NOT ' if find.redriven else ''}NULL")
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
    text = f"SELECT {_COLUMNS} FROM {driven}{where} ORDER BY {created} {order}, c.id {order}"  # noqa: S608 - our names
    return text, values


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
