"""The journal on NATS JetStream. See design section 3 and 5."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson
import trio

from arc_es.domain.recorded import CommandKey, Key
from arc_es.journal.follow import Cursor, follow
from arc_es.journal.pump import Pump
from arc_es.journal.room import Room
from arc_es.journal.stream import api, error_number
from arc_es.journal.subjects import ERASURES, EVENTS, STREAM, bodies_subject, event_subject, key_of, key_of_body
from arc_es.journal.watch import Disk, StreamWatch
from arc_es.nats_bridge import Bridge
from arc_es.nats_frames import Incoming, status_of
from arc_es.nats_streams import overwrite, stored_message
from arc_es.ports import Append, AppendOutcome, Handle, JournalClosed, JournalUnavailable, Message

READ_WINDOW: Final = 64
"""Reads under way together; each may bring the largest message."""
HISTORY_PAGE: Final = 256
HISTORY_PAGE_BYTES: Final = 8 * 1024 * 1024

DIRECT_GET: Final = f"$JS.API.DIRECT.GET.{STREAM}"
EVERYTHING: Final = ">"
"""The one filter whose last message the server finds at once; with any other it looks at each subject."""
HEADER_SEQUENCE: Final = "Nats-Sequence"
HEADER_SUBJECT: Final = "Nats-Subject"


class JetStreamJournal:
    """A `Journal` in the stream ARC. Made by `open_journal`."""

    def __init__(self, bridge: Bridge, pump: Pump, watch: StreamWatch, room: Room) -> None:
        self._bridge = bridge
        self._pump = pump
        self._watch = watch
        self._room = room
        self._closed = False
        self._cursor: Cursor | None = None

    @property
    def available(self) -> bool:
        followed = self._cursor is None or self._cursor.fed
        return self._bridge.available and self._watch.checked and followed and not self._closed

    @property
    def spacious(self) -> bool:
        return self._room.spacious

    def reserve_for(self, live: Callable[[], int]) -> None:
        self._room.live = live

    def close(self) -> None:
        """Refuse further use."""
        self._closed = True

    async def append(self, appends: Sequence[Append]) -> list[AppendOutcome]:
        return await self._pump.append(appends)

    async def read(self, positions: Sequence[int]) -> list[bytes | None]:
        await self._check()
        payloads: list[bytes | None] = []
        for start in range(0, len(positions), READ_WINDOW):
            window = positions[start : start + READ_WINDOW]
            answers = await self._bridge.ask([(DIRECT_GET, orjson.dumps({"seq": at})) for at in window])
            for at, answer in zip(window, answers, strict=True):
                payloads.append(await self._read_leader(at) if status_of(answer) else answer.data)
        return payloads

    async def _read_leader(self, position: int) -> bytes | None:
        """A replica may not have the message yet; the leader has."""
        stored = await self._stored({"seq": position}) if position > 0 else None
        return None if stored is None else _data(stored)

    async def last(self, key: Key) -> Message | None:
        await self._check()
        stored = await self._stored({"last_by_subj": event_subject(key)})
        return None if stored is None else Message(stored["seq"], key, _data(stored))

    async def history(self, key: Key) -> list[Message]:
        """Pages from any replica up to the leader's last message; from the leader what a replica does not have yet."""
        last = await self.last(key)
        messages: list[Message] = []
        subject = event_subject(key)
        at = 0
        while last is not None and at < last.position:
            page = await self._page(subject, at, HISTORY_PAGE, HISTORY_PAGE_BYTES)
            if not page:
                raise JournalUnavailable("The history changed while it was read")
            messages += page
            at = page[-1].position
        return messages

    async def page(self, after: int, limit: int, bytes_max: int) -> list[Message]:
        await self._check()
        return await self._page(EVENTS, after, limit, bytes_max)

    async def _page(
        self, subject: str, after: int, limit: int, bytes_max: int, whose: Callable[[str], Key] = key_of
    ) -> list[Message]:
        """Messages from any replica, or else, since it may not have the next one yet, that one from the leader."""
        request = {"seq": after + 1, "next_by_subj": subject, "batch": limit, "max_bytes": bytes_max}
        answers = await self._bridge.collect(
            DIRECT_GET, orjson.dumps(request), is_last=lambda answer: status_of(answer) is not None
        )
        if len(answers) > 1:
            return [_message(answer, whose) for answer in answers[:-1]]
        stored = await self._stored({"seq": after + 1, "next_by_subj": subject})
        return [] if stored is None else [Message(stored["seq"], whose(stored["subject"]), _data(stored))]

    async def purge(self, key: CommandKey, before: int) -> None:
        await self._check()
        for subject in (event_subject(key), bodies_subject(key)):
            await overwrite(self._bridge, STREAM, subject, before)

    async def erasures(self, after: int) -> list[Message]:
        await self._check()
        return await self._page(ERASURES, after, HISTORY_PAGE, HISTORY_PAGE_BYTES, key_of_body)

    async def end(self) -> int:
        await self._check()
        stored = await self._stored({"last_by_subj": EVERYTHING})
        if stored is None or not stored["subject"].startswith(EVENTS.rstrip(">")):
            stored = await self._stored({"last_by_subj": EVENTS})  # empty, or the last event was deleted
        return 0 if stored is None else int(stored["seq"])

    async def identity(self) -> str:
        await self._check()
        info = await api(self._bridge, f"STREAM.INFO.{STREAM}")
        if error_number(info):
            raise JournalUnavailable("The stream cannot be looked at")
        return str(info["created"])

    async def follow(self, after: int, handle: Handle) -> None:
        self._check_open()
        self._cursor = Cursor(self._bridge, self._watch, after, handle)
        await follow(self._bridge, self._cursor)

    async def _check(self) -> None:
        self._check_open()
        await self._watch.wait_checked()

    def _check_open(self) -> None:
        if self._closed:
            raise JournalClosed("The journal is closed")

    async def _stored(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """A message from the stream's leader, None if there is none."""
        return await stored_message(self._bridge, STREAM, request)


def _data(stored: Mapping[str, Any]) -> bytes:
    return base64.b64decode(stored.get("data", ""))


def _message(answer: Incoming, whose: Callable[[str], Key]) -> Message:
    headers = answer.headers or {}
    return Message(int(headers[HEADER_SEQUENCE]), whose(headers[HEADER_SUBJECT]), answer.data)


@asynccontextmanager
async def open_journal(
    bridge: Bridge, *, room: Room | None = None, disk: Disk | None = None
) -> AsyncGenerator[JetStreamJournal, None]:
    """The journal on a bridge whose stream exists (`stream.ensure_stream`). Appends that wait at the end get one.

    room: kept up to date here; others may share it. disk: where our own server stores; None: it is somebody else's.

    Raises:
        JournalMismatch: in a group, while the body runs: the stream was replaced under it.
    """
    room = room or Room()
    watch = StreamWatch(bridge, room, disk)
    pump = Pump(bridge, room, watch)
    journal = JetStreamJournal(bridge, pump, watch, room)
    failure: Exception | None = None
    await watch.look()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.watch)
        nursery.start_soon(watch.run)
        try:
            yield journal
        except Exception as error:  # noqa: BLE001 - raised again below, so that the nursery does not wrap it
            failure = error
        finally:
            journal.close()
            pump.close()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
