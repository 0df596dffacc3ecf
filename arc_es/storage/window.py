"""Messages to JetStream with a few under way at a time, each acknowledged once it is on disk."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import orjson
import trio

from arc_es.nats_bridge import Bridge
from arc_es.nats_frames import NO_RESPONDERS, Incoming, status_of
from arc_es.ports import BodyStoreError, BodyStoreFull, JournalUnavailable

UNDER_WAY_MAX: Final = 4
"""Of one flow."""
UNDER_WAY_TOGETHER_MAX: Final = 8
"""Of all flows: they share the connection with the journal, whose appends must not wait long behind them."""
ACK_SECONDS: Final = 10.0
"""How long nothing may be acknowledged while something is under way."""
FULL: Final = {10077, 10047, 10002, 10023}
"""store failed (`discard: new`), storage exceeded, account limit exceeded, insufficient resources"""


class Window:
    """A flow of messages, in order. Use it as a context; what is not acknowledged at its end is ignored.

    After a failure what was sent may be stored or not; nothing is sent twice. turns: shared by all flows, see
    `UNDER_WAY_TOGETHER_MAX`.
    """

    def __init__(self, bridge: Bridge, turns: trio.CapacityLimiter) -> None:
        self._bridge = bridge
        self._turns = turns
        self._inboxes: set[str] = set()
        self._held: set[object] = set()  # turns
        self._failure: BodyStoreError | None = None
        self._moved = trio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for inbox in self._inboxes:
            self._bridge.forget(inbox)
        for turn in list(self._held):
            self._end_turn(turn)

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send one message, as soon as there is room for it.

        Raises:
            BodyStoreFull: no room for this message, or one before it.
            BodyStoreError: NATS is gone, slow, or refused this message or one before it.
        """
        await self._until_fewer_than(UNDER_WAY_MAX)
        turn = await self._take_turn()
        try:
            await self._bridge.call(partial(self._send, turn, subject, payload, headers))
        except JournalUnavailable as error:
            raise BodyStoreError(str(error)) from error

    async def acknowledged(self) -> None:
        """Wait until all messages are stored. Raises as `publish`."""
        await self._until_fewer_than(1)

    async def _until_fewer_than(self, count: int) -> None:
        while self._failure is None and len(self._inboxes) >= count:
            self._moved = trio.Event()
            with trio.move_on_after(ACK_SECONDS):
                await self._moved.wait()
            if not self._moved.is_set():
                raise BodyStoreError("NATS did not say in time whether it stored a part of the body")
        if self._failure is not None:
            raise self._failure

    async def _take_turn(self) -> object:
        turn = object()
        with trio.move_on_after(ACK_SECONDS):
            await self._turns.acquire_on_behalf_of(turn)
            self._held.add(turn)
            return turn
        raise BodyStoreError("Too many bodies are on their way to NATS, or it is too slow")

    def _end_turn(self, turn: object) -> None:
        if turn in self._held:  # one acknowledgement may come after all is over
            self._held.remove(turn)
            self._turns.release_on_behalf_of(turn)

    # --- inside the bridge's loop

    def _send(self, turn: object, subject: str, payload: bytes, headers: Mapping[str, str] | None) -> None:
        inbox = ""

        def take(message: Incoming | None) -> None:
            self._bridge.forget(inbox)
            self._inboxes.discard(inbox)
            self._end_turn(turn)
            self._failure = self._failure or _failure(message)
            self._moved.set()

        inbox = self._bridge.expect(take)
        self._inboxes.add(inbox)
        self._bridge.publish(subject, payload, reply=inbox, headers=headers)


def _failure(answer: Incoming | None) -> BodyStoreError | None:
    """What an acknowledgement complains of; None if the message is stored."""
    if answer is None:
        return BodyStoreError("The connection to NATS was lost")
    if not answer.data:
        lost = "The bucket has no leader, or JetStream is off"
        return BodyStoreError(lost if status_of(answer) == NO_RESPONDERS else f"NATS answered {status_of(answer)}")
    acknowledgement: dict[str, Any] = orjson.loads(answer.data)
    error = acknowledgement.get("error")
    if error is None:
        return None
    text = f"{error.get('description', 'no description')} ({error.get('err_code', 0)})"
    if error.get("err_code") in FULL:
        return BodyStoreFull(f"The body store is full: {text}. Raise body_store_bytes_max, or free disk space.")
    return BodyStoreError(f"NATS refused a part of the body: {text}")
