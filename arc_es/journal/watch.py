"""Watching the stream: is it still the one that we know, and how full is it.

A server may come back with another store: an older copy, or none. What was applied here is then not what the journal
holds, and no answer may be made of it. So after each connection, before anything is read or written, the stream is
looked at; and now and then while the connection lasts.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import trio

from arc_es.journal.room import Bound, Room
from arc_es.journal.stream import api, error_number
from arc_es.journal.subjects import STREAM
from arc_es.nats_bridge import REQUEST_SECONDS, Bridge
from arc_es.ports import JournalMismatch, JournalUnavailable

LOOK_SECONDS: Final = 5.0
"""Between two looks when little happens."""
LOOK_SECONDS_MIN: Final = 0.2
"""Between two looks when much happens near a limit."""
UNANSWERED_MAX: Final = 2
"""Groups of appends in a row left unanswered by a server that answers all else: it does not write any more."""
BEHIND_SECONDS_MAX: float = 15.0
"""How long a stream with replicas may seem to have lost messages: a deposed leader does not know it yet."""

log = logging.getLogger("arc_es.nats")


@dataclass(frozen=True, slots=True)
class Disk:
    """Where our own server stores. bytes_max: its max_file_store. free_bytes: asks the file system.

    restart: has the server end and start again.
    """

    bytes_max: int
    free_bytes: Callable[[], int]
    restart: Callable[[], None] | None = None


class StreamWatch:
    """Made by `open_journal`, which runs `run`."""

    def __init__(self, bridge: Bridge, room: Room, disk: Disk | None = None) -> None:
        self._bridge = bridge
        self._room = room
        self._disk = disk
        self._created = ""
        self._checked = trio.Event()
        self._look_now = trio.Event()
        self._behind_since: float | None = None
        self._spacious = True
        self._unanswered = 0
        self.known_end = 0
        """The highest position that we know to be stored."""
        self.known: tuple[int, bytes] = (0, b"")
        """The last event message that was followed: its position and what it says."""
        bridge.on_lost(self._lost)

    @property
    def checked(self) -> bool:
        """Whether this connection leads to the stream that we know."""
        return self._checked.is_set()

    async def wait_checked(self) -> None:
        """Wait until the stream behind this connection is known to be ours. Raises JournalUnavailable."""
        if self.checked:
            return
        if self._bridge.available:
            with trio.move_on_after(REQUEST_SECONDS):
                await self._checked.wait()
        if not self.checked:
            raise JournalUnavailable("The stream could not be looked at yet")

    def appended(self, size_bytes: int) -> None:
        """So much is being appended."""
        self._room.appended(size_bytes)
        if self._room.stale:
            self._look_now.set()

    def answered(self, *, answered: bool) -> None:
        """A group of appends has got its answers, or will not get them."""
        self._unanswered = 0 if answered else self._unanswered + 1
        if self._unanswered >= UNANSWERED_MAX:
            self._look_now.set()

    def _lost(self) -> None:
        self._unanswered = 0
        self._checked = trio.Event()
        self._look_now.set()

    async def run(self) -> None:
        """Look for ever.

        Raises:
            JournalMismatch: the stream is another one than before, or lost what it had stored.
        """
        while True:
            await self._bridge.wait_available()
            await self.look()
            with trio.move_on_after(LOOK_SECONDS if self.checked else LOOK_SECONDS_MIN):
                await self._look_now.wait()
                await trio.sleep(LOOK_SECONDS_MIN)

    async def look(self) -> None:
        """Look once. Raises as `run`; a stream that cannot be looked at is not `checked`."""
        self._look_now = trio.Event()
        checked, known = self._checked, self.known
        known_end = max(self.known_end, known[0])
        try:
            info = await api(self._bridge, f"STREAM.INFO.{STREAM}")
            if error_number(info):
                return
            if not checked.is_set() and not await self._is_ours(info, known, known_end):
                return
            if info["created"] != self._created:
                raise JournalMismatch(_replaced(f"made at {info['created']}, not at {self._created}"))
            self._room.looked(await self._bounds(info))
        except JournalUnavailable:
            return
        self._tell()
        self._thaw()
        checked.set()  # of the connection that was asked; there may be another by now

    async def _is_ours(self, info: dict[str, Any], known: tuple[int, bytes], known_end: int) -> bool:
        self._created = self._created or info["created"]
        last = info["state"]["last_seq"]
        if last < known_end:
            return self._behind(f"it ends at {last}, but {known_end} was stored", info["config"]["num_replicas"])
        self._behind_since = None
        position, payload = known
        if position:
            answer = await api(self._bridge, f"STREAM.MSG.GET.{STREAM}", {"seq": position})
            stored = answer.get("message")  # none: an operator deleted it
            if stored is not None and base64.b64decode(stored.get("data", "")) != payload:
                raise JournalMismatch(_replaced(f"message {position} is another one"))
        return True

    def _behind(self, why: str, replicas: int) -> bool:
        now = trio.current_time()
        if self._behind_since is None:
            self._behind_since = now
        if replicas == 1 or now - self._behind_since >= BEHIND_SECONDS_MAX:
            raise JournalMismatch(_replaced(why))
        return False

    async def _bounds(self, info: dict[str, Any]) -> list[Bound]:
        return [*_stream_bound(info), *await self._store_bounds(info)]

    async def _store_bounds(self, info: dict[str, Any]) -> list[Bound]:
        """What all streams of the account share, the body store's with ours."""
        try:
            account = await api(self._bridge, "INFO")
        except JournalUnavailable:  # this user may not ask
            return []
        if error_number(account):
            return []
        used, most = account["storage"], account["limits"]["max_storage"]
        replicas = info["config"]["num_replicas"]
        bounds = [Bound(most // replicas, used // replicas, hard=True)] if most > 0 else []
        if self._disk is not None:
            bounds.append(Bound(self._disk.bytes_max, used, hard=True))
            bounds.append(Bound(used + self._disk.free_bytes(), used, hard=True))
        return bounds

    def _thaw(self) -> None:
        """nats-server freezes a stream that it once could not write, until it is started again (2.15.1)."""
        restart = self._disk.restart if self._disk is not None else None
        if restart is not None and self._unanswered >= UNANSWERED_MAX and self._room.fits(0):
            log.warning("nats-server answers, but stores nothing any more: it is started again")
            self._unanswered = 0
            restart()

    def _tell(self) -> None:
        spacious = self._room.spacious
        if spacious != self._spacious:
            log.warning(
                "The journal has room for new commands again"
                if spacious
                else "The journal is nearly full: new commands are refused, those that live may come to an end"
            )
        self._spacious = spacious


def _stream_bound(info: dict[str, Any]) -> Iterator[Bound]:
    if info["config"]["max_bytes"] > 0:
        yield Bound(info["config"]["max_bytes"], info["state"]["bytes"])


def _replaced(why: str) -> str:
    return (
        f"The stream {STREAM} is not the one that this service has followed: {why}. The service ends, because what it"
        " knows is not what the journal holds. Was a backup restored under it? Start it again."
    )
