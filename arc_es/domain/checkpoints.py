"""What a checkpoint is once it is stored."""

from __future__ import annotations

from dataclasses import dataclass

from arc_es.domain.ids import Micros


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint as it was stored. position: of the message that holds it. covered: that of the last it covers."""

    size: int
    note: str
    at: Micros
    position: int
    covered: int
