"""The hash chain of one history: each message names the digest of the one before it, the first one none."""

from __future__ import annotations

from collections.abc import Iterable

from arc_es.codec import digest
from arc_es.domain.recorded import Decision
from arc_es.ports import Message


def broken_at(history: Iterable[tuple[Message, Decision]]) -> int | None:
    """The position of the first message that does not follow from the one before it; None if the chain holds."""
    before: str | None = None
    for message, decision in history:
        if decision.prev != before:
            return message.position
        before = digest(message.payload)
    return None
