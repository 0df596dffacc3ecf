"""Erasing: what is private about a command goes for good, and the log still proves the rest.

1. `CommandErased` is stored in the history, at the version that was read, and with it, as one message right before it,
   the public part of all earlier messages. From here on nobody on any node is told what is private.
2. The earlier messages and the bodies beside them are overwritten in the stream, one by one.
3. Bodies in the body store are deleted.
4. Segments of the archive that hold the command are written anew without it.
5. Index and snapshots of this node are freed of it.

What is cut off after the first step is finished by the next round, here or on another node; each step may be repeated.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import trio

from arc_es.actors.commit import Committer
from arc_es.actors.follower import Follower
from arc_es.archive.archiver import bodies_beside
from arc_es.archive.erased import BYTES_MAX, remains_of
from arc_es.archive.journal import ArchivedJournal
from arc_es.codec import decode, digest, encode
from arc_es.domain.decide import decide
from arc_es.domain.errors import InvalidStateTransition
from arc_es.domain.events import Body
from arc_es.domain.intents import Erase
from arc_es.domain.recorded import CommandKey, Decision, Principal
from arc_es.domain.state import State, fold
from arc_es.ports import (
    Append,
    BodyStore,
    BodyStoreError,
    Clock,
    Conflict,
    JournalError,
    JournalUnavailable,
    Message,
    Overloaded,
    Slot,
)
from arc_es.summaries import CommandIndex

ROUND_SECONDS: Final = 60.0
"""Between two tries to finish what was begun."""
CONFLICTS_MAX: Final = 20
GONE_SECONDS_MAX: Final = 10.0
"""How long who asks for an erasure waits until everything is gone."""
GRACE_SECONDS: Final = 3.0
"""On a stream that other nodes may follow."""

log = logging.getLogger("arc_es.archive")


async def _no_snapshots(position: int) -> None:
    """There are none."""


class Eraser:
    """Erases commands, and finishes what was begun.

    leads: whether this process does what one process of a data dir does for all of them; each has an index of its own.
    grace_seconds: how long to wait before anything is deleted, so that other nodes that are on their way through the
    log have taken notice. done: a file of this node that keeps how far the rounds have come. forget_snapshots,
    forget_shared: remove those that were made before a position.
    """

    def __init__(  # noqa: PLR0913 - only the composition root calls it
        self,
        journal: ArchivedJournal,
        store: BodyStore,
        index: CommandIndex,
        follower: Follower,
        clock: Clock,
        *,
        append_seconds_max: float,
        done: Path | None = None,
        leads: bool = True,
        grace_seconds: float = 0.0,
    ) -> None:
        self._journal = journal
        self._store = store
        self._index = index
        self._follower = follower
        self._clock = clock
        self._committer = Committer(journal, append_seconds_max)
        self._file = done
        self._leads = leads
        self._grace_seconds = grace_seconds
        self._one_round = trio.Lock()
        self._woken = trio.Event()
        self._finished = trio.Event()
        self._done = 0
        self.forget_snapshots: Callable[[int], Awaitable[None]] = _no_snapshots
        self.forget_shared: Callable[[int], Awaitable[None]] = _no_snapshots

    # --- the event

    async def erase(self, key: CommandKey, reason: str, by: Principal) -> None:
        """Have a command erased, if it was not before. The rest is done by the rounds; see `gone`.

        Raises:
            InvalidStateTransition: it has not ended.
            JournalError: it could not be stored, or nobody knows.
        """
        for _ in range(CONFLICTS_MAX):
            append = await self._decided(key, reason, by)
            if append is None:
                return
            outcome = (await self._committer.commit([append]))[0]
            if isinstance(outcome, int):
                await self._follower.reached(outcome)
                return
            if not isinstance(outcome, Conflict):
                raise outcome
            await self._follower.caught_up_with(key)
        raise JournalUnavailable("Too many writers at once on one command")

    async def _decided(self, key: CommandKey, reason: str, by: Principal) -> Append | None:
        history = await self._journal.history(key)
        decisions = [decode(message.payload) for message in history]
        state: State | None = None
        for decision in decisions:
            state = fold(state, decision.events, decision.at)  # type: ignore[arg-type]  # of a command
        left = remains_of(history, bodies_beside(history, decisions))
        now = self._clock.now()
        events = decide(Erase(reason=reason, messages=len(history), unproven=left.unproven), state, now)
        if not events:
            return None
        raw = left.encode()
        if len(raw) > BYTES_MAX:
            raise InvalidStateTransition(f"{len(history)} messages are too many to be erased")
        made = Decision(uuid.uuid4().hex, now, by, events, digest(history[-1].payload))
        return Append(key, history[-1].position, made.id, encode(made), raw, "erased")

    # --- the rounds

    def wake(self) -> None:
        """Something was erased, here or on another node."""
        self._woken.set()

    async def gone(self, key: CommandKey) -> bool:
        """Whether everything is gone, from the stream and from this node; answers within `GONE_SECONDS_MAX`."""
        await self._journal.prepare()
        position = self._journal.erased.at(key.command_id)
        if position is None:
            return False
        self.wake()
        with trio.move_on_after(GONE_SECONDS_MAX):
            while self._done < position:
                await self._finished.wait()
        return self._done >= position

    async def run(self) -> None:
        """Finish what was begun, for ever; what fails now is done the next time."""
        await self._begin()
        while True:
            self._woken = trio.Event()
            try:
                await self.once()
            except (JournalError, BodyStoreError, Overloaded, OSError) as trouble:
                log.warning("Not all that was erased is gone yet, will try again: %s", trouble)
            with trio.move_on_after(ROUND_SECONDS):
                await self._woken.wait()

    async def _begin(self) -> None:
        """Where the rounds before have come to, if that was in this stream."""
        if self._file is None:
            return
        while True:
            try:
                stream = await self._journal.identity()
            except JournalUnavailable:
                await trio.sleep(ROUND_SECONDS)
            else:
                self._done = await trio.to_thread.run_sync(_done_in, self._file, stream)
                return

    async def once(self) -> None:
        """Finish everything that was begun.

        Raises:
            JournalError, BodyStoreError, Overloaded: something of it cannot be done now.
            OSError: a file cannot be written or removed.
        """
        async with self._one_round:
            await self._journal.prepare()
            todo = [(key, position) for key, position in self._journal.erased.all() if position > self._done]
            if not todo:
                return
            await trio.sleep(self._grace_seconds)
            if self._leads:
                for key, position in todo:
                    await self._finish(key, position)
            last = todo[-1][1]
            await self._index.scrub(last)
            if self._leads:
                await self.forget_snapshots(last)
                await self.forget_shared(last)
            await self._note_done(last)

    async def _finish(self, key: CommandKey, position: int) -> None:
        await self._journal.purge(key, position - 1)
        for name in _stored_bodies(key, self._journal.erased.history(key)):
            await self._store.delete(name, overwrite=True)
        async with self._journal.writing_files:
            if self._journal.archive.exists:
                await trio.to_thread.run_sync(self._journal.archive.forget, key.command_id)

    async def _note_done(self, position: int) -> None:
        if self._file is not None and self._leads:
            stream = await self._journal.identity()
            await trio.to_thread.run_sync(_write_done, self._file, stream, position)
        self._done = position
        finished, self._finished = self._finished, trio.Event()
        finished.set()


def _stored_bodies(key: CommandKey, left: Sequence[Message]) -> Iterator[str]:
    """The names under which bodies of a command may be in the body store."""
    for message in left:
        for event in decode(message.payload).events:
            bodies = (getattr(event, name, None) for name in ("params", "response", "body"))
            yield from (body.ref for body in bodies if isinstance(body, Body) and body.ref is not None)
    yield Slot(key.command_id, "params").path
    yield Slot(key.command_id, "response").path


def _done_in(path: Path, stream: str) -> int:
    """The position in a file, 0 if there is none: then everything is looked at once more, which does no harm."""
    try:
        found, position = path.read_text("utf-8").rsplit(maxsplit=1)
        return int(position) if found == stream else 0
    except (FileNotFoundError, ValueError):
        return 0


def _write_done(path: Path, stream: str, position: int) -> None:
    draft = path.with_suffix(".part")
    with draft.open("w", encoding="utf-8") as file:
        file.write(f"{stream} {position}\n")
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
