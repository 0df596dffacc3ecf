"""The folded state of every command, and which command a live lease holds."""

from __future__ import annotations

from arc_es.domain.errors import ImpossibleHistory
from arc_es.domain.recorded import CommandKey, Recorded
from arc_es.domain.state import TERMINAL, Leased, State, fold
from projections.change import Change, Row


class StatusProjection:
    """command id -> row, lease id -> command id."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._holders: dict[str, str] = {}

    def get(self, command_id: str) -> Row | None:
        """The row of a command, None if there is no such command. It changes when the next decision is applied."""
        return self._rows.get(command_id)

    def holder_of(self, lease_id: str) -> str | None:
        """The id of the command that is held under this live lease; leases of pushes are not public and not here."""
        return self._holders.get(lease_id)

    def __len__(self) -> int:
        return len(self._rows)

    def apply(self, key: CommandKey, recorded: Recorded) -> Change:
        """Fold one decision about a command.

        Raises:
            ImpossibleHistory: the decision was applied before, or contradicts the transition table. Nothing changed.
        """
        position = recorded.position
        row = self._rows.get(key.command_id)
        before = None if row is None else row.state
        if position <= (0 if row is None else row.version):
            raise ImpossibleHistory(f"Message {position} of {key.command_id} is applied twice or out of order")
        after = fold(before, recorded.events, recorded.at)  # type: ignore[arg-type]  # the table refuses other events
        if after is None:
            raise ImpossibleHistory(f"Message {position} of {key.command_id} holds no events")
        if row is None:
            row = self._rows[key.command_id] = Row(key.command_id, after, position, 0, 0)
        else:
            row.state = after
            row.version = position
        if row.params_at == 0 and after.facts.params_place is not None:
            row.params_at = position
        if row.answer_at == 0 and isinstance(after, TERMINAL):
            row.answer_at = position
        self._follow_lease(row.command_id, before, after)
        return Change(row, before, after, position, recorded.at)

    def _follow_lease(self, command_id: str, before: State | None, after: State) -> None:
        if type(before) is Leased:
            del self._holders[before.lease_id]
        if type(after) is Leased:
            self._holders[after.lease_id] = command_id
