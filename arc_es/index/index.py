"""Following the projections on disk, a batch at a time, and answering from there.

What changed waits in memory, one entry a command, until the writer takes all of it and the position in one transaction.
Live, nobody ever waits for the writer; a command that it has not written yet stays in memory, so that is what a slow
disk costs. Only the replay at start, which is faster than any disk, waits when `BACKLOG_MAX` commands have changed.

Threads: what waits is touched in trio's thread only; each connection has a lock and is used by one thread after the
other. The twin in memory uses no thread at all.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import trio

from arc_es.codec import digest
from arc_es.domain.events import CommandRedriven, Event
from arc_es.domain.recorded import CommandKey, Recorded
from arc_es.index import query, schema
from arc_es.index.rows import Batch, Change, Entry, Late, labels_of, values_of, write
from arc_es.ports import Journal, JournalUnavailable, Overloaded
from arc_es.summaries import Find, Page

BACKLOG_MAX: Final = 20_000
"""Changed commands that may wait while the journal is replayed."""
GATHER_SECONDS: Final = 0.1
"""How long changes are gathered before they are written, unless somebody waits for them."""
RETRY_SECONDS: Final = 1.0
STALL_SECONDS_MAX: Final = 0.1
"""How long one message of the replay waits for the batch under way."""
REACH_SECONDS_MAX: Final = 5.0
"""How long a list waits until what was applied before it is in the index."""

log = logging.getLogger("arc_es.index")
T = TypeVar("T")


class IndexBehind(Overloaded, JournalUnavailable):
    """The index cannot be read now, or has not come as far as it should; try again later."""


class Index:
    """Made at start, `prepare`d before the replay, and `run` beside the follower; without a folder in memory.

    tip: position and payload of the last message that was applied to the projections.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._held = ExitStack()
        self._file: Path | None = None
        self._writer: sqlite3.Connection
        self._lister: sqlite3.Connection
        self._finder: sqlite3.Connection
        self._past: sqlite3.Connection
        self._listing = trio.Lock()
        self._finding = trio.Lock()
        self._looking_back = trio.Lock()
        self._under_way: threading.Event | None = None
        self._entries: dict[str, Entry] = {}
        self._late: list[Late] = []
        self._erased: list[tuple[int, str]] = []
        self._changed = trio.Event()
        self._wanted = trio.Event()
        self._committed = trio.Event()
        self._stand: schema.Stand = schema.Stand("", 0, "")
        self._trouble = ""
        self.damaged = False
        self.tip: Callable[[], tuple[int, bytes]] = lambda: (0, b"")
        self.on_committed: Callable[[int], None] = lambda position: None

    # --- opening

    async def prepare(self, journal: Journal) -> None:
        """Open what there is if it is of this stream and not ahead of it, or else begin anew.

        Raises:
            JournalUnavailable: which stream this is cannot be told now.
            OSError: the folder cannot be written.
        """
        identity = await journal.identity()
        path = self._path()
        found, why = None, ""
        if path is not None and path.exists():
            found, why = await self._examined(path, identity, journal)
        if found is None:
            if why:
                log.warning("The index of commands is made anew, because %s", why)
            try:
                await self._run(partial(self._create, path, identity))
            except sqlite3.Error as error:
                raise OSError(f"cannot make the index of commands in {self._folder}: {error}") from error
            found = schema.Stand(identity, 0, "")
        self._stand = found
        self._open(path)
        self.on_committed(found.position)

    def _path(self) -> Path | None:
        """Where the index is: ours alone, so somebody else's process on the same folder gets one of its own."""
        if self._folder is None:
            return None
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._held.callback(os.close, fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("Another process uses the index in %s; this one makes one of its own", self._folder)
            return Path(self._held.enter_context(tempfile.TemporaryDirectory(dir=self._folder))) / schema.FILE
        return self._folder / schema.FILE

    async def _examined(self, path: Path, identity: str, journal: Journal) -> tuple[schema.Stand | None, str]:
        """How far the index in a file is, or why it is of no use."""
        stand = await self._run(partial(_stand_in, path))
        if isinstance(stand, str):
            return None, stand
        if stand.stream != identity:
            return None, "it is of another stream"
        if stand.position > await journal.end():
            return None, "it is ahead of the stream"
        if stand.position:
            (payload,) = await journal.read([stand.position])
            if payload is not None and digest(payload) != stand.digest:  # None: the message was purged
                return None, f"message {stand.position} is another one now"
        return stand, ""

    def _create(self, path: Path | None, identity: str) -> None:
        if path is not None:
            schema.remove(path)
        self._writer = schema.connect(path)
        schema.create(self._writer, identity)
        if path is not None:
            self._writer.close()

    def _open(self, path: Path | None) -> None:
        self._file = path
        if path is None:
            self._lister = self._finder = self._past = self._writer
            self._finding = self._looking_back = self._listing
        else:
            self._writer, self._lister, self._finder, self._past = (schema.connect(path) for _ in range(4))

    @property
    def position(self) -> int:
        """Up to where everything is in the index."""
        return self._stand.position

    # --- following

    def note(self, change: Change, events: Iterable[Event]) -> None:
        """A command has changed. What the index has already is skipped."""
        if change.position <= self._stand.position or self.damaged:
            return
        row = change.row
        entry = self._entries.get(row.command_id)
        if entry is None:
            entry = self._entries[row.command_id] = Entry(row, change.position if change.before is None else 0)
        entry.traces.follow(events, change.at)

    def note_late(self, command_id: str, recorded: Recorded) -> None:
        """Something happened to a command that has ended and is not in memory any more."""
        if recorded.position > self._stand.position and not self.damaged:
            event = recorded.events[-1]
            redriven_as = event.redriven_as if isinstance(event, CommandRedriven) else None
            self._late.append(Late(recorded.position, redriven_as, command_id))

    def note_erased(self, key: CommandKey, position: int) -> None:
        """What is private about a command is not to be found any more."""
        if position > self._stand.position and not self.damaged:
            self._erased.append((position, key.command_id))

    def applied(self, ready: bool) -> None:  # noqa: FBT001 - as the follower calls it
        """Whatever was noted has been applied, too. ready: the replay at start is done."""
        if not self._changed.is_set():
            self._changed.set()
        if not ready and len(self._entries) >= BACKLOG_MAX:
            if self._under_way is None:
                self._write_all()
            else:
                self._under_way.wait(STALL_SECONDS_MAX)

    async def run(self) -> None:
        """Write what changed, for ever; then whatever is left, and close."""
        try:
            while True:
                await self._changed.wait()
                if len(self._entries) < BACKLOG_MAX:
                    with trio.move_on_after(GATHER_SECONDS):
                        await self._wanted.wait()
                self._changed, self._wanted = trio.Event(), trio.Event()
                if not await self._write_batch():
                    self._changed.set()
                    await trio.sleep(RETRY_SECONDS)
        finally:
            with trio.CancelScope(shield=True):
                await self.close()

    async def close(self) -> None:
        """Write whatever is left, and end; only `run` does this while others use it."""
        self._write_all()
        self._lister.interrupt()
        self._past.interrupt()
        for lock in {self._listing, self._finding, self._looking_back}:
            await lock.acquire()  # for ever: nobody asks any more
        for connection in (self._lister, self._finder, self._past, self._writer):
            connection.close()
        self._held.close()

    def _taken(self) -> tuple[dict[str, Entry], Batch] | None:
        """All that waits, as rows; None if there is nothing new."""
        position, payload = self.tip()
        if position <= self._stand.position or self.damaged:
            return None
        entries, self._entries = self._entries, {}
        late, self._late = self._late, []
        erased, self._erased = self._erased, []
        rows = [values_of(entry) for entry in entries.values()]
        labels = [label for entry in entries.values() for label in labels_of(entry)]
        return entries, Batch(rows, labels, late, erased, position, digest(payload))

    async def _write_batch(self) -> bool:
        """Write all that waits, in a thread. False: it did not work now."""
        taken = self._taken()
        if taken is None:
            return not self.damaged
        done = self._under_way = threading.Event()
        try:
            await self._run(partial(self._write, taken[1], done))
        except sqlite3.Error as error:
            self._give_back(taken)
            self._troubled(error)
            return False
        except trio.Cancelled:
            self._give_back(taken)
            raise
        finally:
            self._under_way = None
        self._wrote(taken[1])
        return True

    def _write_all(self) -> None:
        """The same at once, in this thread."""
        taken = self._taken()
        if taken is None:
            return
        try:
            write(self._writer, taken[1])
        except sqlite3.Error as error:
            self._give_back(taken)
            self._troubled(error)
        else:
            self._wrote(taken[1])

    def _write(self, batch: Batch, done: threading.Event) -> None:
        try:
            write(self._writer, batch)
        finally:
            done.set()

    def _wrote(self, batch: Batch) -> None:
        if batch.position > self._stand.position:
            self._stand = schema.Stand(self._stand.stream, batch.position, batch.digest)
        self._trouble = ""
        committed, self._committed = self._committed, trio.Event()
        committed.set()
        self.on_committed(self._stand.position)

    def _give_back(self, taken: tuple[dict[str, Entry], Batch]) -> None:
        for command_id, older in taken[0].items():
            newer = self._entries.get(command_id)
            if newer is None:
                self._entries[command_id] = older
            else:
                newer.merge_older(older)
        self._late = taken[1].late + self._late
        self._erased = taken[1].erased + self._erased

    def _troubled(self, error: sqlite3.Error) -> None:
        """Report a trouble once; what cannot pass by itself ends the index until the next start makes it anew."""
        if _is_damage(error) and not self.damaged:
            self.damaged = True
            self._entries.clear()
            log.error("The index of commands is damaged: %s. Lists fail until the service is started again.", error)
            if self._folder is not None:
                (self._folder / schema.DAMAGED).touch()
        elif str(error) != self._trouble:
            log.warning("The index of commands cannot be used now, will try again: %s", error)
        self._trouble = str(error)

    # --- asking

    async def reached(self, position: int) -> None:
        """Wait until everything up to a position is in the index. Raises IndexBehind, after a bounded time."""
        with trio.move_on_after(REACH_SECONDS_MAX):
            while self._stand.position < position and not self.damaged:
                self._wanted.set()
                await self._committed.wait()
        if self._stand.position < position:
            raise IndexBehind("The index of commands has not come so far yet")

    async def scrub(self, position: int) -> None:
        """See that what was erased up to a position is not in the files either. Raises IndexBehind: not yet."""
        await self.reached(position)
        if self._file is None:
            return
        if not await trio.to_thread.run_sync(schema.scrub, self._file):
            raise IndexBehind("The index of commands is busy")

    async def find(self, find: Find) -> Page:
        """A page of a list; one of the past takes longer, and keeps no other waiting. Raises IndexBehind."""
        lock, connection = (self._listing, self._lister) if find.as_of is None else (self._looking_back, self._past)
        async with lock:
            return await self._asked(partial(query.page_of, connection, find))

    async def deployment_of(self, command_id: str) -> str | None:
        """The deployment of a command, None if the index does not have it. Raises IndexBehind."""
        async with self._finding:
            return await self._asked(partial(query.deployment_of, self._finder, command_id))

    async def newest_of(self, first: str, next_of: Callable[[str], str]) -> str:
        """The last one of a chain of command ids that the index has, or `first`. Raises IndexBehind."""
        async with self._finding:
            return await self._asked(partial(_newest_of, self._finder, first, next_of))

    async def _asked(self, ask: Callable[[], T]) -> T:
        if self.damaged:
            raise IndexBehind("The index of commands is damaged")
        try:
            return await self._run(ask)
        except sqlite3.Error as error:
            self._troubled(error)
            raise IndexBehind("The index of commands cannot be read now") from error

    async def _run(self, work: Callable[[], T]) -> T:
        """In a thread, but for the index in memory: a clock of tests does not know that a thread is at work."""
        if self._folder is None:
            await trio.lowlevel.checkpoint()
            return work()
        return await trio.to_thread.run_sync(work)


def _stand_in(path: Path) -> schema.Stand | str:
    marker = path.with_name(schema.DAMAGED)
    if marker.exists():
        marker.unlink()
        return "it was damaged"
    if not schema.is_whole(path):
        return "a part of it is missing"
    try:
        connection = schema.connect(path)
        try:
            return schema.stand_of(connection) or "another version wrote it"
        finally:
            connection.close()
    except sqlite3.Error as error:
        return f"it cannot be read: {error}"


def _newest_of(connection: sqlite3.Connection, first: str, next_of: Callable[[str], str]) -> str:
    newest = first
    candidate = first
    while query.deployment_of(connection, candidate) is not None:
        newest, candidate = candidate, next_of(candidate)
    return newest


def _is_damage(error: sqlite3.Error) -> bool:
    """OperationalError is what may pass: no room, busy, an I/O error. But a missing table will not come back."""
    return isinstance(error, sqlite3.DatabaseError) and (
        not isinstance(error, sqlite3.OperationalError) or "no such" in str(error)
    )
