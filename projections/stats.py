"""Counts over everything."""

from __future__ import annotations

from typing import Any, Final

from arc_es.domain.recorded import Recorded
from arc_es.domain.state import PUBLIC_STATE, TERMINAL
from projections.change import Change
from projections.plain import Plain

_LIVE: Final = tuple(state for state in PUBLIC_STATE if state not in TERMINAL)


class StatsProjection:
    """How many decisions and events there were, and how many commands are in each state."""

    def __init__(self) -> None:
        self.messages = 0
        """Decisions applied, those of deployments included."""
        self.events = 0
        """Events applied, those of deployments included."""
        self._commands: dict[type[Any], int] = dict.fromkeys(PUBLIC_STATE, 0)

    def by_state(self) -> dict[str, int]:
        """Number of commands in each public state; every state is there."""
        counts = dict.fromkeys(PUBLIC_STATE.values(), 0)
        for state, count in self._commands.items():
            counts[PUBLIC_STATE[state]] += count
        return counts

    def live(self) -> int:
        """Number of commands that have not come to an end."""
        return sum([self._commands[state] for state in _LIVE])

    def apply(self, recorded: Recorded, change: Change | None) -> None:
        """Count one decision, and what it changed about a command, if anything."""
        self.messages += 1
        self.events += len(recorded.events)
        if change is not None:
            commands = self._commands
            if change.before is not None:
                commands[type(change.before)] -= 1
            commands[type(change.after)] += 1

    def dump(self) -> Plain:
        """All counts as plain data."""
        return self.messages, self.events, [*self._commands.values()]

    def load(self, data: Plain) -> None:
        """Take in what was dumped."""
        self.messages, self.events, counts = data
        self._commands = dict(zip(PUBLIC_STATE, counts, strict=True))
