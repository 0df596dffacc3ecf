"""The signed state of the log: its keys, and the checkpoint over most of it."""

from __future__ import annotations

from dataclasses import astuple
from typing import Final

from arc_es.domain.checkpoints import SignedCheckpoint
from arc_es.domain.errors import ImpossibleHistory
from arc_es.domain.events import CheckpointKeyAdded, CheckpointSigned
from arc_es.domain.recorded import LogKey, Recorded
from projections.plain import Plain

DAYS_KEPT: Final = 3
"""Histories whose versions are kept, the newest: clocks of nodes differ by less than a day."""


class CheckpointsProjection:
    """Name of the log, announcements of keys, latest checkpoint, versions of the histories about the log."""

    def __init__(self) -> None:
        self.origin: str | None = None
        self.key_notes: tuple[str, ...] = ()
        self.latest: SignedCheckpoint | None = None
        self._keys_version = 0
        self._days: dict[str, int] = {}

    def version(self, name: str) -> int:
        """The version of the history of the keys, or of the checkpoints of a day that is not over."""
        return self._keys_version if name == "keys" else self._days.get(name, 0)

    def apply_recorded(self, key: LogKey, recorded: Recorded) -> None:
        """Fold one decision about the log.

        Raises:
            ImpossibleHistory: the decision was applied before, or holds an event that is not about the log.
        """
        if recorded.position <= self.version(key.name):
            raise ImpossibleHistory(f"Message {recorded.position} of the log is applied twice or out of order")
        for event in recorded.events:
            if isinstance(event, CheckpointKeyAdded):
                self.origin = self.origin or event.origin
                self.key_notes = (*self.key_notes, event.note)
            elif isinstance(event, CheckpointSigned):
                if self.latest is None or event.size >= self.latest.size:
                    self.latest = SignedCheckpoint(
                        event.size, event.note, recorded.at, recorded.position, event.position
                    )
            else:
                raise ImpossibleHistory(f"{type(event).__name__} cannot happen to the log")
        if key.name == "keys":
            self._keys_version = recorded.position
        else:
            self._days.pop(key.name, None)
            self._days[key.name] = recorded.position
            while len(self._days) > DAYS_KEPT:
                del self._days[next(iter(self._days))]

    def dump(self) -> Plain:
        """Everything as plain data."""
        latest = None if self.latest is None else astuple(self.latest)
        return self.origin, self.key_notes, latest, self._keys_version, dict(self._days)

    def load(self, data: Plain) -> None:
        """Take in what was dumped."""
        self.origin, self.key_notes, latest, self._keys_version, self._days = data
        self.latest = None if latest is None else SignedCheckpoint(*latest)
