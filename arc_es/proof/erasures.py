"""What may be missing from a log: private parts of messages that come before a `CommandErased` of the same history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from arc_es.codec import is_stub
from arc_es.domain.events import CommandErased
from arc_es.domain.recorded import Decision

ERASED: Final = b'"type":"CommandErased"'
"""Stands in every message that says so."""


class Erasures:
    """Counts messages without a private part that should have one, until an event accounts for them."""

    def __init__(self) -> None:
        self.erased = 0
        self.unproven = 0
        self._missing: dict[str, list[int]] = {}
        self._stubs: dict[str, int] = {}
        self._problems: list[str] = []

    def missing(self, position: int, subject: str, public: bytes) -> None:
        """A message has no private part, and its public one names one."""
        self._missing.setdefault(subject, []).append(position)
        if is_stub(public):
            self._stubs[subject] = self._stubs.get(subject, 0) + 1

    def event(self, subject: str, decision: Decision) -> None:
        """A decision of a history, which may say that all before it was erased."""
        event = decision.events[-1]
        if not isinstance(event, CommandErased):
            return
        self.erased += len(self._missing.pop(subject, ()))
        stubs = self._stubs.pop(subject, 0)
        self.unproven += stubs
        if stubs > event.unproven:
            self._problems.append(f"{subject} holds a stub in place of a message that was erased otherwise")

    def problems(self) -> Iterator[str]:
        """What nothing accounts for; all messages were seen."""
        yield from self._problems
        for subject, positions in self._missing.items():
            yield (
                f"seq {positions[0]} of {subject}: its private part is missing, though the command was not erased"
                if subject not in self._stubs
                else f"seq {positions[0]} of {subject} holds a stub in place of a message that was not erased"
            )
