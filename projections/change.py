"""What one decision changed about one command: folded once by `status`, read by every other projection."""

from __future__ import annotations

from dataclasses import dataclass

from arc_es.domain.ids import Micros
from arc_es.domain.state import State


@dataclass(slots=True, eq=False)
class Row:
    """All that is kept of one command; one object, shared by the projections, updated in place.

    Positions: `version` of its last message, `params_at` and `answer_at` of the messages that hold (or come right
    after) the params and the answer; 0 if there are none yet.
    """

    command_id: str
    state: State
    version: int
    params_at: int
    answer_at: int


@dataclass(slots=True, eq=False)
class Change:
    """The net effect of one whole decision, made at `at`, on the command of `row` (already updated)."""

    row: Row
    before: State | None
    after: State
    position: int
    at: Micros

    @property
    def command_id(self) -> str:
        """The id of the command, as the one string object that all projections share."""
        return self.row.command_id
