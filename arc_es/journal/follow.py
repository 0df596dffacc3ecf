"""Following the stream: an ordered push consumer of our own.

The consumer lives in the server's memory and acknowledges nothing. It numbers what it delivers; a number left out, a
silence longer than the heartbeat allows, or a lost connection ends it, and the next one starts after the last message
that was handled. So nothing is left out and nothing comes twice.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterable
from typing import Any, Final

import trio

from arc_es.journal.stream import NANOSECONDS, api, error_number
from arc_es.journal.subjects import COMMAND_SUBJECT, EVENTS, STREAM, command_key, key_of
from arc_es.journal.watch import StreamWatch
from arc_es.nats_bridge import Bridge
from arc_es.nats_frames import CRLF, STATUS, Incoming
from arc_es.ports import Handle, JournalUnavailable

HEARTBEAT_SECONDS: float = 2.0
SILENCE_SECONDS: float = 3 * HEARTBEAT_SECONDS
"""A consumer that says nothing for so long is gone."""
INACTIVE_SECONDS: Final = 30
"""After this long without us the server forgets the consumer."""
RETRY_SECONDS: Final = 0.1

CONTROL: Final = "100"
HEADER_STALLED: Final = "Nats-Consumer-Stalled"
HEADER_LAST_CONSUMER: Final = "Nats-Last-Consumer"
ACK_TOKENS_V1: Final = 9
"""Tokens of `$JS.ACK.<stream>.<consumer>.<tries>.<position>.<number>.<time>.<pending>`; newer: two more before."""

log = logging.getLogger("arc_es.nats")


def _frame_of(consumer: str) -> re.Pattern[bytes]:
    """The first line of a frame in which this consumer delivers a message about a command.

    Groups: deployment, command, position, number, size of the headers, size of all.
    """
    ack = rb"\$JS\.ACK\.(?:[^. ]+\.[^. ]+\.)?%b\.%b\.1\.(\d+)\.(\d+)\.[^ ]+" % (STREAM.encode(), consumer.encode())
    return re.compile(rb"HMSG %b \d+ %b (\d+) (\d+)\r\n" % (COMMAND_SUBJECT, ack))


class Cursor:
    """How far a follower is. One consumer after the other feeds it.

    A replay brings millions of messages that are as they should be: `_run` takes those, many at once. Whatever is not,
    or is no event of a command, is left to `_take`.
    """

    def __init__(self, bridge: Bridge, watch: StreamWatch, after: int, handle: Handle) -> None:
        self._bridge = bridge
        self._watch = watch
        self._handle = handle
        self.position = after
        self.failure: Exception | None = None
        self.fed = False
        """Whether there is a consumer now."""
        self._fresh()

    def _fresh(self) -> None:
        self._number = 0
        self._heard = True
        self.ended = trio.Event()

    async def run_consumer(self) -> None:
        """Have a consumer feed us until it ends. Raises JournalUnavailable if there can be none now."""
        self._fresh()
        await self._watch.wait_checked()
        name = secrets.token_hex(8)
        self._match = _frame_of(name).match
        subjects: list[str] = []  # filled inside the loop, even if we are cancelled meanwhile
        try:
            await self._bridge.call(lambda: subjects.append(self._bridge.listen(self._take, self._run)))
            answer = await api(self._bridge, f"CONSUMER.CREATE.{STREAM}.{name}", self._config(name, subjects[0]))
            if error_number(answer):
                raise JournalUnavailable(f"No consumer: {answer['error'].get('description')}")
            self.fed = True
            while not self.ended.is_set() and self._heard:
                self._heard = False
                with trio.move_on_after(SILENCE_SECONDS):
                    await self.ended.wait()
        finally:
            self.fed = False
            self.ended.set()
            self._bridge.soon(lambda: self._end(name, subjects))

    def _end(self, name: str, subjects: Iterable[str]) -> None:
        for subject in subjects:
            self._bridge.unlisten(subject)
        self._bridge.publish(f"$JS.API.CONSUMER.DELETE.{STREAM}.{name}", b"")

    def _config(self, name: str, subject: str) -> dict[str, Any]:
        config = {
            "name": name,
            "deliver_subject": subject,
            "filter_subject": EVENTS,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self.position + 1,
            "ack_policy": "none",
            "replay_policy": "instant",
            "max_deliver": 1,
            "flow_control": True,
            "idle_heartbeat": int(HEARTBEAT_SECONDS * NANOSECONDS),
            "inactive_threshold": INACTIVE_SECONDS * NANOSECONDS,
            "mem_storage": True,
            "num_replicas": 1,
        }
        return {"stream_name": STREAM, "config": config, "action": "create"}

    def _run(self, buffer: bytes, start: int) -> int:
        match, handle, buffered = self._match, self._handle, len(buffer)
        at, number, position, data = start, self._number, 0, b""
        try:
            while not self.ended.is_set() and (found := match(buffer, at)) is not None:
                deployment, command, place, count, head, size = found.groups()
                begin = found.end()
                end = begin + int(size)
                if end + len(CRLF) > buffered or int(count) != number + 1:
                    break
                payload = buffer[begin + int(head) : end]
                handle(int(place), command_key(deployment, command), payload)
                at, number, position, data = end + len(CRLF), number + 1, int(place), payload
        except Exception as error:  # noqa: BLE001 - `follow` raises it
            self.failure = error
            self.ended.set()
        if position:
            self._number, self.position, self._heard = number, position, True
            self._watch.known = position, data
        return at

    def _take(self, message: Incoming | None) -> None:
        if message is None:
            self.ended.set()
            return
        if self.ended.is_set():
            return
        self._heard = True
        if not message.data:
            self._control(message)
            return
        tokens = message.reply.split(".")
        at = 5 if len(tokens) == ACK_TOKENS_V1 else 7
        self._number += 1
        if int(tokens[at + 1]) != self._number:
            self.ended.set()
            return
        position = int(tokens[at])
        try:
            self._handle(position, key_of(message.subject), message.data)
        except Exception as error:  # noqa: BLE001 - `follow` raises it
            self.failure = error
            self.ended.set()
            return
        self.position = position
        self._watch.known = position, message.data

    def _control(self, message: Incoming) -> None:
        """Answer flow control at once, and see from heartbeats whether the last messages were lost."""
        headers = message.headers or {}
        if headers.get(STATUS) != CONTROL:
            self.ended.set()
            return
        reply = message.reply or headers.get(HEADER_STALLED, "")
        if reply:
            self._bridge.publish(reply, b"")
        if int(headers.get(HEADER_LAST_CONSUMER, self._number)) != self._number:
            self.ended.set()


async def follow(bridge: Bridge, cursor: Cursor) -> None:
    """See `ports.Journal.follow`."""
    reported = ""
    while True:
        await bridge.wait_available()
        try:
            await cursor.run_consumer()
            reported = ""
        except JournalUnavailable as trouble:
            if str(trouble) != reported:  # appends may still work, and then nothing else tells of it
                log.warning("Cannot follow the stream, will try again: %s", trouble)
            reported = str(trouble)
        if cursor.failure is not None:
            raise cursor.failure
        await trio.sleep(RETRY_SECONDS)
