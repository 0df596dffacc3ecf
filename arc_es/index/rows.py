"""From what changed to rows of the index: few statements for many commands.

Python's lock is given up and taken back around each statement, which costs up to 5 ms beside a busy thread. So a
statement writes as many rows as SQLite lets it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any, Final, NamedTuple, Protocol

from arc_es.domain.ids import Micros
from arc_es.domain.state import PUBLIC_STATE, TERMINAL, Leased, State, attempt_of
from arc_es.index.schema import COLUMNS
from arc_es.summaries import Summary, Traces, origin_of, redriven_as
from arc_es.views import Row

PIECES: Final = (256, 32, 4, 1)
"""Rows of one statement; few different numbers, so that SQLite compiles few statements."""

Values = tuple[Any, ...]


class Change(Protocol):
    """What one decision, made at `at` and stored at `position`, did to the command of `row`."""

    @property
    def row(self) -> Row: ...
    @property
    def before(self) -> State | None: ...
    @property
    def position(self) -> int: ...
    @property
    def at(self) -> Micros: ...


@dataclass(slots=True)
class Entry:
    """A command that changed since the last batch. born_at: its first message if that is among the changes, else 0."""

    row: Row
    born_at: int
    traces: Traces = field(default_factory=Traces)

    def merge_older(self, older: Entry) -> None:
        """Take over what an entry said that could not be written."""
        self.born_at = self.born_at or older.born_at
        mine, theirs = self.traces, older.traces
        mine.dispatched_at = theirs.dispatched_at if mine.dispatched_at is None else mine.dispatched_at
        mine.agent = theirs.agent if mine.agent is None else mine.agent
        mine.response_bytes = theirs.response_bytes if mine.response_bytes is None else mine.response_bytes
        mine.error = theirs.error if mine.error is None else mine.error


class Late(NamedTuple):
    """The version of an ended command after something happened to it, and what it was redriven as, if that was it."""

    version: int
    redriven_as: str | None
    command_id: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction writes.

    late: what happened to ended commands that are not in memory any more. erased: versions and ids of erased ones.
    """

    commands: list[Values]
    labels: list[Values]
    late: list[Late]
    erased: list[tuple[int, str]]
    position: int
    digest: str


def values_of(entry: Entry) -> Values:
    """The columns of one row: what `summary_of` says, without making a summary of each for a replay."""
    row, traces = entry.row, entry.traces
    state = row.state
    facts = state.facts
    route, options = facts.route, facts.options
    held = state if isinstance(state, Leased) else None
    code, message = traces.error or (None, None)
    return (
        entry.born_at or row.version,
        row.command_id,
        route.deployment_id,
        route.target_id,
        route.target_type,
        route.command,
        PUBLIC_STATE[type(state)],
        attempt_of(state),
        facts.created_at,
        traces.dispatched_at,
        state.ended_at if isinstance(state, TERMINAL) else None,
        facts.deadline,
        options.not_before,
        options.priority,
        json.dumps(options.labels) if options.labels else None,
        code,
        message,
        facts.params_size,
        traces.response_bytes,
        None if held is None else held.lease_id,
        None if held is None else held.expires_at,
        traces.agent,
        origin_of(state),
        options.redrive_of,
        redriven_as(state),
        row.version,
        row.params_at,
        row.answer_at,
    )


def labels_of(entry: Entry) -> Iterator[Values]:
    """The labels of a new command; they never change."""
    if entry.born_at:
        facts = entry.row.state.facts
        for key, value in facts.options.labels:
            yield key, value, facts.created_at, entry.born_at


def summary_from(values: Sequence[Any]) -> Summary:
    """The summary in one row."""
    named = dict(zip(COLUMNS, values, strict=True))
    labels = named["labels"]
    return Summary(
        command_id=named["id"],
        deployment_id=named["deployment_id"],
        target_id=named["target_id"],
        target_type=named["target_type"],
        command=named["command"],
        state=named["state"],
        attempt=named["attempt"],
        created_at=named["created_at"],
        dispatched_at=named["dispatched_at"],
        completed_at=named["completed_at"],
        deadline=named["deadline"],
        not_before=named["not_before"],
        priority=named["priority"],
        labels=tuple((key, value) for key, value in json.loads(labels)) if labels else (),
        error=None if named["error_code"] is None else (named["error_code"], named["error_message"]),
        request_bytes=named["request_bytes"],
        response_bytes=named["response_bytes"],
        lease_id=named["lease_id"],
        lease_expires_at=named["lease_expires_at"],
        agent=named["agent"],
        origin=named["origin"],
        redrive_of=named["redrive_of"],
        redriven_as=named["redriven_as"],
    )


_SETTLED: Final = frozenset(
    {"n", "id", "deployment_id", "target_id", "target_type", "command", "created_at", "labels", "redrive_of"}
)
_ONCE_SAID: Final = ("dispatched_at", "agent", "response_bytes", "error_code", "error_message")
"""Columns that a change that says nothing of them leaves as they are."""


@lru_cache(maxsize=len(PIECES))
def _upsert(rows: int) -> str:
    places = ",".join(["(" + ",".join("?" * len(COLUMNS)) + ")"] * rows)
    updates = ",".join(
        f"{name}=coalesce(excluded.{name},{name})" if name in _ONCE_SAID else f"{name}=excluded.{name}"
        for name in COLUMNS
        if name not in _SETTLED
    )
    return f"INSERT INTO commands VALUES {places} ON CONFLICT (id) DO UPDATE SET {updates}"  # noqa: S608 - our names


@lru_cache(maxsize=len(PIECES))
def _insert_labels(rows: int) -> str:
    return "INSERT OR IGNORE INTO labels VALUES " + ",".join(["(?,?,?,?)"] * rows)  # noqa: S608 - our names


def _pieces(rows: list[Values]) -> Iterator[list[Values]]:
    at = 0
    for size in PIECES:
        while len(rows) - at >= size:
            yield rows[at : at + size]
            at += size


_UPDATE_LATE: Final = "UPDATE commands SET version = ?, redriven_as = coalesce(?, redriven_as) WHERE id = ?"


def _erase(connection: sqlite3.Connection, command_id: str) -> None:
    """Forget what is private about a command."""
    found = connection.execute("SELECT n, created_at, labels FROM commands WHERE id = ?", (command_id,)).fetchone()
    if found is None:
        return
    n, created_at, labels = found
    connection.executemany(
        "DELETE FROM labels WHERE key = ? AND value = ? AND created_at = ? AND n = ?",
        [(key, value, created_at, n) for key, value in json.loads(labels or "[]")],
    )
    message = "CASE WHEN error_code IS NULL THEN NULL ELSE '' END"
    connection.execute(
        f"UPDATE commands SET labels = NULL, agent = NULL, error_message = {message} WHERE n = ?",  # noqa: S608 - ours
        (n,),
    )


def write(connection: sqlite3.Connection, batch: Batch) -> None:
    """One transaction: all of it, with the position. Raises sqlite3.Error, and nothing was written."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for piece in _pieces(batch.commands):
            connection.execute(_upsert(len(piece)), tuple(chain.from_iterable(piece)))
        for piece in _pieces(batch.labels):
            connection.execute(_insert_labels(len(piece)), tuple(chain.from_iterable(piece)))
        if batch.late:
            connection.executemany(_UPDATE_LATE, batch.late)
        for _, command_id in batch.erased:
            _erase(connection, command_id)
        connection.execute("UPDATE meta SET position = ?, digest = ?", (batch.position, batch.digest))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
