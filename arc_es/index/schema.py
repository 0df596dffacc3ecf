"""The tables of the index, and opening a file that may be anything: what is not ours, or not whole, is made anew.

Rowids are positions in the journal, so commands are added at the end and all secondary indexes stay small: an entry is
the filtered column, the time of creation and a rowid. Commands created in the same microsecond are put in order by
their ids when they are read.
"""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FILE: Final = "commands.sqlite"
DAMAGED: Final = "damaged"
"""A file of this name beside it: the index was found damaged and is to be made anew at the next start."""

COLUMNS: Final = (
    "n",
    "id",
    "deployment_id",
    "target_id",
    "target_type",
    "command",
    "state",
    "attempt",
    "created_at",
    "dispatched_at",
    "completed_at",
    "deadline",
    "not_before",
    "priority",
    "labels",
    "error_code",
    "error_message",
    "request_bytes",
    "response_bytes",
    "lease_id",
    "lease_expires_at",
    "agent",
    "origin",
    "redrive_of",
    "redriven_as",
    "version",
    "params_at",
    "answer_at",
)

TABLES: Final = """
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    fingerprint TEXT NOT NULL,
    stream TEXT NOT NULL,
    position INTEGER NOT NULL,
    digest TEXT NOT NULL
);
CREATE TABLE commands (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    deployment_id TEXT NOT NULL,
    target_id TEXT NOT NULL,
    target_type TEXT,
    command TEXT NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    dispatched_at INTEGER,
    completed_at INTEGER,
    deadline INTEGER,
    not_before INTEGER,
    priority INTEGER NOT NULL,
    labels TEXT,
    error_code TEXT,
    error_message TEXT,
    request_bytes INTEGER,
    response_bytes INTEGER,
    lease_id TEXT,
    lease_expires_at INTEGER,
    agent TEXT,
    origin TEXT,
    redrive_of TEXT,
    redriven_as TEXT,
    version INTEGER NOT NULL,
    params_at INTEGER NOT NULL,
    answer_at INTEGER NOT NULL
);
CREATE INDEX by_age ON commands (created_at);
CREATE INDEX by_deployment ON commands (deployment_id, created_at);
CREATE INDEX by_deployment_state ON commands (deployment_id, state, created_at);
CREATE INDEX by_deployment_target ON commands (deployment_id, target_id, created_at);
CREATE INDEX by_target ON commands (target_id, created_at);
CREATE INDEX by_command ON commands (command, created_at);
CREATE INDEX by_state ON commands (state, created_at);
CREATE INDEX by_origin ON commands (origin, created_at) WHERE origin IS NOT NULL;
CREATE INDEX by_deployment_origin ON commands (deployment_id, origin, created_at) WHERE origin IS NOT NULL;
CREATE TABLE labels (
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (key, value, created_at, n)
) WITHOUT ROWID;
"""

FINGERPRINT: Final = hashlib.sha256((TABLES + repr(COLUMNS)).encode()).hexdigest()[:16]
"""Another one: another version of arc_es wrote the index."""

_HEADER_BYTES: Final = 100
_PAGE_BYTES_MAX: Final = 65_536


@dataclass(frozen=True, slots=True)
class Stand:
    """Up to where an index has followed which stream. digest: of the message at `position`; "" at 0."""

    stream: str
    position: int
    digest: str


def connect(path: Path | None) -> sqlite3.Connection:
    """A connection that may be used by one thread after the other; None: in memory."""
    connection = sqlite3.connect(
        ":memory:" if path is None else path, timeout=5, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA cache_size = -16000")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        connection.execute("PRAGMA secure_delete = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def scrub(path: Path) -> bool:
    """Empty the log beside an index, where pages are as they were before; False: somebody reads in it, try again."""
    connection = connect(path)
    try:
        (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy
    finally:
        connection.close()


def create(connection: sqlite3.Connection, stream: str) -> None:
    """The empty tables of an index that follows this stream."""
    connection.executescript(TABLES)
    connection.execute("INSERT INTO meta VALUES (1, ?, ?, 0, '')", (FINGERPRINT, stream))


def stand_of(connection: sqlite3.Connection) -> Stand | None:
    """How far it is; None: it is no index of this version. Raises sqlite3.Error: it cannot be read."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not {"meta", "commands", "labels"} <= tables:
        return None
    row = connection.execute("SELECT fingerprint, stream, position, digest FROM meta").fetchone()
    return Stand(*row[1:]) if row is not None and row[0] == FINGERPRINT else None


def is_whole(path: Path) -> bool:
    """Whether the file is as long as it says; SQLite itself would only notice when it comes to what is missing."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
        size = path.stat().st_size
    except FileNotFoundError:
        return False
    if len(header) < _HEADER_BYTES:
        return False
    page_bytes: int = struct.unpack(">H", header[16:18])[0]
    pages: int = struct.unpack(">I", header[28:32])[0]
    return size >= pages * (_PAGE_BYTES_MAX if page_bytes == 1 else page_bytes)


def remove(path: Path) -> None:
    """Forget an index, whatever is there."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()
