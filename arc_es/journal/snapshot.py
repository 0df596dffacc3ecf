"""A whole stream as bytes, and back: JetStream's own STREAM.SNAPSHOT and STREAM.RESTORE, which nats-py does not have.

Source: ADR-63 and `server/jetstream_api.go` of nats-server 2.15. The server sends chunks to a subject of ours, a few at
a time, more as we answer each; an empty one is the end. A restore goes the same way round.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any, Final

import orjson
import trio

from arc_es.journal.stream import api, error_number
from arc_es.nats_bridge import Bridge
from arc_es.nats_frames import STATUS, Incoming
from arc_es.ports import JournalUnavailable

CHUNK_SECONDS_MAX: Final = 30.0
"""How long the server may take for the next chunk."""
RESTORE_SECONDS_MAX: Final = 1_800.0
"""How long the server may take with one chunk, and to finish: it may fsync each of many thousand messages."""
CHUNK_BYTES: Final = 512 * 1024
"""Of a snapshot."""
PIECE_BYTES: Final = 32 * 1024
"""Of a restore. nats-server gives up on a piece that takes it 5 s, and pieces are compressed: one may be thousands of
messages."""
END_OF_FILE: Final = "204"


class SnapshotError(Exception):
    """The server cannot make or take the snapshot; the message says why."""


async def stream_names(bridge: Bridge) -> list[str]:
    """All streams of the account. Raises JournalUnavailable."""
    names: list[str] = []
    while True:
        answer = await api(bridge, "STREAM.NAMES", {"offset": len(names)})
        if error_number(answer):
            raise JournalUnavailable(f"The streams cannot be listed: {answer['error'].get('description')}")
        page = answer.get("streams") or []
        names += page
        if not page or len(names) >= answer["total"]:
            return names


class _Chunks:
    """Chunks that have arrived."""

    def __init__(self) -> None:
        self._queue: deque[Incoming | None] = deque()
        self._more = trio.Event()

    def take(self, message: Incoming | None) -> None:
        self._queue.append(message)
        self._more.set()

    async def next(self, seconds_max: float) -> Incoming:
        """The next one. Raises JournalUnavailable."""
        with trio.move_on_after(seconds_max):
            while not self._queue:
                await self._more.wait()
                self._more = trio.Event()
        message = self._queue.popleft() if self._queue else None
        if message is None:
            raise JournalUnavailable("NATS stopped answering in the middle of it")
        return message


async def take_snapshot(bridge: Bridge, stream: str, write: Callable[[bytes], Awaitable[None]]) -> dict[str, Any]:
    """Hand the snapshot of a stream to `write`, chunk after chunk; returns its config, and its state at the beginning.

    What is stored while it goes on may or may not be in it.

    Raises:
        SnapshotError: the server refused, or could not read what it stores.
        JournalUnavailable: the server does not answer (any more).
    """
    chunks = _Chunks()
    subject = await bridge.call(lambda: bridge.listen(chunks.take))
    try:
        wanted = {"deliver_subject": subject, "no_consumers": True, "chunk_size": CHUNK_BYTES}
        answer = await api(bridge, f"STREAM.SNAPSHOT.{stream}", wanted)
        if error_number(answer):
            raise SnapshotError(f"stream {stream}: {answer['error'].get('description')}")
        while (chunk := await chunks.next(CHUNK_SECONDS_MAX)).data:
            await write(chunk.data)
            bridge.soon(_flow(bridge, chunk.reply))
        headers = chunk.headers or {}
        if headers.get(STATUS, END_OF_FILE) != END_OF_FILE:
            raise SnapshotError(f"stream {stream}: {headers.get('Description', headers[STATUS])}")
    finally:
        bridge.soon(lambda: bridge.unlisten(subject))
    return {"config": answer["config"], "state": answer["state"]}


def _flow(bridge: Bridge, reply: str) -> Callable[[], None]:
    return lambda: bridge.publish(reply, b"") if reply else None


async def restore_snapshot(
    bridge: Bridge, config: dict[str, Any], state: dict[str, Any], chunks: AsyncIterable[bytes]
) -> dict[str, Any]:
    """Make a stream from what `take_snapshot` gave; returns its state. `chunks`: pieces of `PIECE_BYTES`.

    Raises:
        SnapshotError: the server refused: there is such a stream, no room, or the bytes are damaged.
        JournalUnavailable: the server does not answer (any more).
    """
    stream = config["name"]
    answer = await api(bridge, f"STREAM.RESTORE.{stream}", {"config": config, "state": state})
    if error_number(answer):
        raise SnapshotError(f"stream {stream}: {answer['error'].get('description')}")
    subject = answer["deliver_subject"]
    async for chunk in chunks:
        taken = await _ask_patiently(bridge, subject, chunk)
        if taken.data:
            _checked(stream, taken)
    return _checked(stream, await _ask_patiently(bridge, subject, b""))  # nothing: that was all


def _checked(stream: str, message: Incoming) -> dict[str, Any]:
    answer = orjson.loads(message.data)
    if error_number(answer):
        raise SnapshotError(f"stream {stream}: {answer['error'].get('description')}")
    state: dict[str, Any] = answer.get("state", {})
    return state


async def _ask_patiently(bridge: Bridge, subject: str, payload: bytes) -> Incoming:
    """As `Bridge.ask`, for answers that take long. Raises JournalUnavailable."""
    answers = _Chunks()

    def send() -> str:
        inbox = bridge.expect(answers.take)
        bridge.publish(subject, payload, reply=inbox)
        return inbox

    inbox = await bridge.call(send)
    try:
        return await answers.next(RESTORE_SECONDS_MAX)
    finally:
        bridge.forget(inbox)


async def pieces(file: Any) -> AsyncIterator[bytes]:
    """An open file, binary, in pieces of `PIECE_BYTES`."""
    while piece := await trio.to_thread.run_sync(file.read, PIECE_BYTES):
        yield piece
