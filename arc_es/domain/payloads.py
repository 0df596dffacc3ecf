"""What is stored under ids that have no command, for demonstrations and migration (`arc.v1` 2.8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from arc_es.domain.errors import CommandExists
from arc_es.domain.events import PayloadStored


@dataclass(frozen=True, slots=True)
class Payload:
    """What is stored under one id, as digests: enough to recognise a repeated request; None where there is nothing."""

    params: str | None = None
    answer: str | None = None


NO_PAYLOAD: Final = Payload()


def decide_payload(intent: PayloadStored, state: Payload, *, command_exists: bool) -> tuple[PayloadStored, ...]:
    """The events that `intent` produces; `()` when all that it gives is stored already.

    Storing has no choices of its own, so the wanted fact is the intent.

    Raises:
        CommandExists: the id is a command's.
    """
    if command_exists:
        raise CommandExists
    return () if evolve_payload(state, intent) == state else (intent,)


def evolve_payload(state: Payload, event: PayloadStored) -> Payload:
    """What is stored after `event`."""
    params = None if event.params is None else event.params.sha256
    return Payload(params or state.params, _answer(event) or state.answer)


def _answer(event: PayloadStored) -> str | None:
    """The digest of the answer; its kind is part of it, for a result may have the bytes of an error."""
    if event.response is not None:
        return f"success:{event.response.sha256}"
    return None if event.code is None else f"error:{event.sha256}"
