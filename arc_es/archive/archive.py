"""The segments of a data dir, and a catalog of what is where in them.

The catalog is an SQLite file that can be made again from the segments; a segment that is not in it yet is added when
the archive is opened. Several processes may read; one writes. All methods block for about as long as a disk read takes.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from arc_es.archive.segment import (
    SUFFIX,
    ArchiveDamaged,
    Place,
    Record,
    Segment,
    parsed,
    read_frame,
    read_whole,
    write,
)
from arc_es.domain.recorded import CommandKey
from arc_es.ports import Message

FOLDER: Final = "archive"
"""In the data dir."""
CATALOG: Final = "catalog.sqlite"
CACHE_BYTES: Final = 8 * 1024 * 1024
"""Of lines that were read lately."""
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS segments (n INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS replaced (name TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS commands (
    n INTEGER PRIMARY KEY,
    deployment_id TEXT NOT NULL,
    command_id TEXT NOT NULL,
    segment INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    line INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    is_purged INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS by_id ON commands (command_id);
CREATE TABLE IF NOT EXISTS messages (
    position INTEGER PRIMARY KEY,
    command INTEGER NOT NULL,
    is_event INTEGER NOT NULL
);
"""
_PLACES: Final = (
    "SELECT messages.position, segments.name, offset, length, line, sha256 FROM messages"
    " JOIN commands ON commands.n = messages.command JOIN segments ON segments.n = commands.segment WHERE "
)

_NEWEST: Final = "commands.n = (SELECT max(command) FROM messages) LIMIT 1"
Found = tuple[int, str, int, int, int, str]
"""A position and where its command is: segment, offset, length, line, digest."""


class Archive:
    """All that was archived in a folder, which is made with the first segment; None: nothing ever is.

    Raises ArchiveDamaged.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = Path(os.devnull) if folder is None else folder
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.RLock()
        self._names: set[str] = set()
        self._frames: OrderedDict[tuple[str, int], list[bytes]] = OrderedDict()
        self._bytes = 0

    def open(self) -> None:
        """See that every segment is there and in the catalog; a catalog that cannot be used is made again.

        Raises:
            ArchiveDamaged: a segment is missing or damaged.
            OSError: the catalog cannot be written.
        """
        if not any(self._folder.glob(f"*{SUFFIX}")) and not (self._folder / CATALOG).exists():
            return
        with self._lock:
            try:
                self._connect()
                known = self._known()
            except sqlite3.OperationalError as error:  # may pass, and another process may be using it
                raise ArchiveDamaged(f"{self._folder / CATALOG} cannot be opened: {error}") from error
            except sqlite3.DatabaseError:
                self.close()
                for suffix in ("", "-wal", "-shm"):
                    with suppress(FileNotFoundError):
                        (self._folder / (CATALOG + suffix)).unlink()
                self._connect()
                known = set()
            there = {path.name for path in self._folder.glob(f"*{SUFFIX}")}
            for name in sorted(there - known):
                self._enter(name, read_whole(self._folder / name))
            self._known()
            for name in sorted(self._there() - there):
                raise ArchiveDamaged(f"{self._folder / name} is missing: it holds commands that are nowhere else")
            self._remove_replaced()

    def close(self) -> None:
        """Use no more."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _connect(self) -> None:
        self._connection = _connected(self._folder / CATALOG)

    @contextmanager
    def _catalog(self) -> Iterator[sqlite3.Connection | None]:
        """The catalog, None as long as nothing was archived."""
        with self._lock:
            try:
                if self._connection is None and self.exists:
                    self._connect()
                yield self._connection
            except sqlite3.Error as error:
                raise ArchiveDamaged(f"{self._folder / CATALOG} cannot be used: {error}") from error

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with self._catalog() as catalog:
            return [] if catalog is None else catalog.execute(query, values).fetchall()

    def _there(self) -> set[str]:
        """The names of all segments in the catalog."""
        return {name for (name,) in self._rows("SELECT name FROM segments")}

    def _known(self) -> set[str]:
        """The same, and those that were replaced."""
        self._names = {name for (name,) in self._rows("SELECT name FROM segments UNION SELECT name FROM replaced")}
        return self._names

    # --- writing

    def add(self, records: Sequence[Record]) -> tuple[str, list[str]]:
        """Write a segment and read it back; its name, and the digest of each record.

        Raises:
            OSError: it cannot be written.
            ArchiveDamaged: what was written cannot be read.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = write(self._folder, records)
        back = read_whole(path)
        if [record for _, record in back.content] != list(records):
            raise ArchiveDamaged(f"{path} does not hold what was written to it")
        self._enter(path.name, back)
        return path.name, [place.sha256 for place, _ in back.content]

    def forget(self, command_id: str) -> None:
        """Write the segments that hold a command anew, without it, and remove the old ones.

        Cut off at any step, it is finished by the next call or the next `open`.

        Raises:
            OSError: a file cannot be written, or not be removed.
        """
        held = "SELECT DISTINCT name FROM segments JOIN commands ON segment = segments.n WHERE command_id = ?"
        for (name,) in self._rows(held, command_id):
            self._without(name, command_id)
        with self._lock:  # nobody is about to read them
            self._remove_replaced()

    def _without(self, name: str, command_id: str) -> None:
        old = read_whole(self._folder / name)
        records = [record for _, record in old.content if record.key.command_id != command_id]
        replaces = (name, *old.replaces)
        if records:
            path = write(self._folder, records, replaces)
            self._enter(path.name, read_whole(path))
        else:
            with self._writing() as catalog:
                self._replace(catalog, replaces)
        with self._lock:
            self._frames.clear()
            self._bytes = 0
        self._known()

    def _remove_replaced(self) -> None:
        """Remove files that another one is in place of."""
        there = self._there()
        for (name,) in self._rows("SELECT name FROM replaced"):
            if name not in there:
                (self._folder / name).unlink(missing_ok=True)

    def _enter(self, name: str, segment: Segment) -> None:
        """Put a segment into the catalog in place of those that it replaces, whole or not at all."""
        with self._writing() as catalog:
            purged = self._replace(catalog, [other for other in segment.replaces if other != name])
            if not catalog.execute("SELECT 1 FROM segments WHERE name = ?", (name,)).fetchone():
                self._insert(catalog, name, segment.content)
            catalog.executemany("UPDATE commands SET is_purged = 1 WHERE command_id = ?", purged)
        self._names.update((name, *segment.replaces))

    @staticmethod
    def _replace(catalog: sqlite3.Connection, names: Iterable[str]) -> list[tuple[str]]:
        """Take segments out of the catalog; returns the ids of which nothing was left to do."""
        purged: list[tuple[str]] = []
        for name in names:
            of_it = "(SELECT commands.n FROM commands JOIN segments ON segments.n = segment WHERE name = ?)"
            purged += catalog.execute(f"SELECT command_id FROM commands WHERE is_purged AND n IN {of_it}", (name,))  # noqa: S608
            catalog.execute(f"DELETE FROM messages WHERE command IN {of_it}", (name,))  # noqa: S608 - no text of others
            catalog.execute(f"DELETE FROM commands WHERE n IN {of_it}", (name,))  # noqa: S608 - no text of others
            catalog.execute("DELETE FROM segments WHERE name = ?", (name,))
            catalog.execute("INSERT OR IGNORE INTO replaced VALUES (?)", (name,))
        return purged

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, on a connection of its own: who reads meanwhile does not wait for it."""
        try:
            with closing(_connected(self._folder / CATALOG)) as catalog:
                catalog.execute("BEGIN IMMEDIATE")
                yield catalog
                catalog.execute("COMMIT")
        except sqlite3.Error as error:
            raise ArchiveDamaged(f"{self._folder / CATALOG} cannot be written: {error}") from error

    @staticmethod
    def _insert(catalog: sqlite3.Connection, name: str, content: Iterable[tuple[Place, Record]]) -> None:
        segment = catalog.execute("INSERT INTO segments (name) VALUES (?)", (name,)).lastrowid
        for place, record in content:
            command = catalog.execute(
                "INSERT INTO commands (deployment_id, command_id, segment, offset, length, line, sha256)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*record.key, segment, place.offset, place.length, place.line, place.sha256),
            ).lastrowid
            entries = [(at, command, 1) for at, _ in record.messages] + [(at, command, 0) for at, _ in record.bodies]
            catalog.executemany("INSERT OR REPLACE INTO messages VALUES (?, ?, ?)", entries)

    def purged(self, keys: Iterable[CommandKey]) -> None:
        """Remember that these are in the stream no more."""
        with self._writing() as catalog:
            catalog.executemany(
                "UPDATE commands SET is_purged = 1 WHERE command_id = ?", [(key.command_id,) for key in keys]
            )

    # --- reading

    def is_purged(self, command_id: str) -> bool:
        """Whether nothing is left to do for a command."""
        return bool(self._rows("SELECT 1 FROM commands WHERE command_id = ? AND is_purged", command_id))

    @property
    def exists(self) -> bool:
        """Whether anything was ever archived."""
        return self._connection is not None or (self._folder / CATALOG).exists()

    def need(self, name: str) -> None:
        """See that a segment is here. Raises ArchiveDamaged."""
        if name not in self._names and name not in self._known():
            raise ArchiveDamaged(f"{self._folder / name} is missing: it holds commands that are nowhere else")

    def newest(self) -> Record | None:
        """The command that was put into the catalog last."""
        with self._lock:
            found = self._rows(_PLACES + _NEWEST)
            return self._record(found[0]) if found else None

    def message(self, position: int) -> bytes | None:
        """What the message or body at a position says, None if it is not in the archive."""
        with self._lock:
            found = self._rows(_PLACES + "messages.position = ?", position)
            if not found:
                return None
            record = self._record(found[0])
            return dict((*record.messages, *record.bodies))[position]

    def history(self, key: CommandKey) -> list[Message]:
        """The event messages of a command, in order."""
        where = "is_event AND deployment_id = ? AND command_id = ? ORDER BY messages.position"
        with self._lock:
            return list(self._messages(self._rows(_PLACES + where, *key)))

    def events(self, after: int, before: int, limit: int) -> list[Message]:
        """The first event messages between two positions, in order."""
        where = "is_event AND messages.position > ? AND messages.position < ? ORDER BY messages.position LIMIT ?"
        with self._lock:
            return list(self._messages(self._rows(_PLACES + where, after, before, limit)))

    def _messages(self, found: Iterable[Found]) -> Iterator[Message]:
        records: dict[str, tuple[CommandKey, dict[int, bytes]]] = {}
        for entry in found:
            sha256 = entry[-1]
            if sha256 not in records:
                record = self._record(entry)
                records[sha256] = record.key, dict(record.messages)
            key, messages = records[sha256]
            yield Message(entry[0], key, messages[entry[0]])

    def _record(self, found: Found) -> Record:
        _, name, offset, length, number, sha256 = found
        lines = self._frame(name, offset, length)
        line = lines[number] if number < len(lines) else b""
        if hashlib.sha256(line).hexdigest() != sha256:
            raise ArchiveDamaged(f"{self._folder / name} is damaged: line {number} at {offset} is another one now")
        return parsed(line)

    def _frame(self, name: str, offset: int, length: int) -> list[bytes]:
        lines = self._frames.pop((name, offset), None)
        if lines is None:
            lines = read_frame(self._folder / name, offset, length)
            self._bytes += sum(map(len, lines))
        self._frames[name, offset] = lines
        while self._bytes > CACHE_BYTES and len(self._frames) > 1:
            self._bytes -= sum(map(len, self._frames.popitem(last=False)[1]))
        return lines


def _connected(path: Path) -> sqlite3.Connection:
    """A connection to a catalog, which is made if it is not there. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    try:
        path.chmod(0o600)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_TABLES)
    except BaseException:
        connection.close()
        raise
    return connection
