"""The folded state of every command that is live or ended lately, and which command a live lease holds.

Of those that have ended only the last `finished_max` stay, and what cannot be found elsewhere yet. To a command that
has ended only a late response can happen, or that it is redriven, archived or erased, which changes nothing that
anybody else has to know. So what passes by is let pass; whoever wants the command reads its whole history, and puts the
row back with `restore`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from arc_es.domain.errors import ImpossibleHistory
from arc_es.domain.events import CommandArchived, CommandErased, CommandRedriven, LateResponseRecorded
from arc_es.domain.recorded import CommandKey, Recorded
from arc_es.domain.state import TERMINAL, Leased, evolve
from projections.change import Change, Row
from projections.plain import Plain
from projections.rows import Cold, opened, pieces

_LATE: Final = (LateResponseRecorded, CommandRedriven, CommandArchived, CommandErased)


class StatusProjection:
    """command id -> row, lease id -> command id. finished_max: ended commands that are kept; None: all."""

    def __init__(self, finished_max: int | None = None) -> None:
        self._rows: dict[str, Row | Cold] = {}
        self._holders: dict[str, str] = {}
        self._finished_max = finished_max
        self._finished: deque[str] = deque()
        self._awaited: dict[str, list[int]] = {}
        self.findable = 0
        """Up to this position everything can be found elsewhere, and need not stay."""
        self.on_evicted: Callable[[Row], None] = lambda row: None

    def get(self, command_id: str) -> Row | None:
        """The row of a command, None if it is not in memory. It changes when the next decision is applied."""
        row = self._rows.get(command_id)
        return self._warmed(command_id, row) if type(row) is Cold else row  # type: ignore[return-value]  # not Cold

    def _warmed(self, command_id: str, cold: Cold) -> Row:
        """The row of a command that was cold; its neighbours become warm with it."""
        found: Row | None = None
        for row in cold.rows():
            if self._rows.get(row.command_id) is cold:
                self._rows[row.command_id] = row
            if row.command_id == command_id:
                found = row
        assert found is not None, "a cold piece knows its ids"
        return found

    def holder_of(self, lease_id: str) -> str | None:
        """The id of the command that is held under this live lease; leases of pushes are not public and not here."""
        return self._holders.get(lease_id)

    def held(self) -> Iterator[Row]:
        """The rows of all commands that a receiver holds."""
        return (row for command_id in self._holders.values() if (row := self.get(command_id)) is not None)

    def items(self) -> Iterator[tuple[str, Row]]:
        """Ids and rows of all commands in memory."""
        return ((command_id, row) for command_id in self._rows if (row := self.get(command_id)) is not None)

    def live(self) -> list[Row]:
        """The rows of all commands that have not ended."""
        return [row for row in self._rows.values() if type(row) is Row and not isinstance(row.state, TERMINAL)]

    def __len__(self) -> int:
        return len(self._rows)

    def apply(self, key: CommandKey, recorded: Recorded) -> Change | None:
        """Fold one decision about a command; None if it has ended and is not in memory any more.

        Raises:
            ImpossibleHistory: the decision was applied before, or contradicts the transition table. Nothing changed.
        """
        command_id = key.command_id
        row = self.get(command_id)
        if row is None:
            if self._finished_max is not None and _is_late(recorded):
                if command_id in self._awaited:
                    self._awaited[command_id].append(recorded.position)
                return None
            before = None
            row = self._rows[command_id] = _folded(command_id, None, recorded)
        else:
            before = row.state
            _folded(command_id, row, recorded)
        after = row.state
        if row.answer_at == recorded.position and self._finished_max is not None:
            self._finished.append(command_id)
        if type(before) is Leased:
            del self._holders[before.lease_id]
        if type(after) is Leased:
            self._holders[after.lease_id] = row.command_id
        return Change(row, before, after, recorded.position, recorded.at)

    # --- what is kept in memory

    def evict(self) -> None:
        """Let go of what ended first, as far as it is too much and can be found."""
        most = self._finished_max
        while most is not None and len(self._finished) > most:
            command_id = self._finished[0]
            row = self._rows[command_id]
            is_cold = type(row) is Cold  # as in the snapshot, which was not ahead of what can be found
            if not is_cold and row.version > self.findable:  # type: ignore[union-attr]
                return
            self._finished.popleft()
            del self._rows[command_id]
            if not is_cold:
                self.on_evicted(row)  # type: ignore[arg-type]

    def await_row(self, command_id: str) -> None:
        """Watch an id that is not in memory for late responses that pass by; each call is ended by one `give_up`."""
        self._awaited.setdefault(command_id, []).append(0)

    def give_up(self, command_id: str) -> None:
        """End one `await_row`."""
        passed = self._awaited[command_id]
        passed.remove(0)
        if 0 not in passed:
            del self._awaited[command_id]

    def restore(self, key: CommandKey, history: Iterable[Recorded]) -> Row | None:
        """Put the row of an ended command back, from its whole history; None: more has passed by, read it again.

        All of the history has been applied, and `await_row` was called before it was read.

        Raises:
            ImpossibleHistory: the command has not ended, so it should be here.
        """
        there = self.get(key.command_id)
        if there is not None:
            return there
        row: Row | None = None
        for recorded in history:
            row = _folded(key.command_id, row, recorded)
        if row is None or not isinstance(row.state, TERMINAL):
            raise ImpossibleHistory(f"{key.command_id} has not ended, and is not in memory")
        if max(self._awaited[key.command_id]) > row.version:
            return None
        self._rows[key.command_id] = row
        self._finished.append(key.command_id)
        self.evict()
        return row

    # --- snapshots

    def dump(self) -> Iterator[Plain]:
        """All rows as plain data, in pieces."""
        return pieces(row for _, row in self.items())

    def dump_finished(self) -> Plain:
        """The ids of the ended commands in memory, in the order in which they leave it."""
        return [*self._finished]

    def load_finished(self, command_ids: Plain) -> None:
        """Take in what was dumped, after all rows. If nobody kept the order, it is that of the creations."""
        if self._finished_max is not None:
            ended = (name for name, row in self._rows.items() if type(row) is Cold)
            self._finished.extend(command_ids or ended)

    def load(self, piece: Plain) -> None:
        """Take a dumped piece in; they come in their order."""
        ids, live, cold = opened(piece)
        self._rows.update(dict.fromkeys(ids, cold))
        self._rows.update([(row.command_id, row) for row in live])
        self._holders.update({row.state.lease_id: row.command_id for row in live if type(row.state) is Leased})


def _folded(command_id: str, row: Row | None, recorded: Recorded) -> Row:
    """The row after one more decision; a row that was there is changed in place. Raises as `apply`."""
    position = recorded.position
    state, version = (None, 0) if row is None else (row.state, row.version)
    if position <= version:
        raise ImpossibleHistory(f"Message {position} of {command_id} is applied twice or out of order")
    for event in recorded.events:
        state = evolve(state, event, recorded.at)  # type: ignore[arg-type]  # what is no command's is refused
    if state is None:
        raise ImpossibleHistory(f"Message {position} of {command_id} holds no events")
    if row is None:
        row = Row(command_id, state, position, 0, 0)
    else:
        row.state = state
        row.version = position
    if row.params_at == 0 and state.facts.params_place is not None:
        row.params_at = position
    if row.answer_at == 0 and isinstance(state, TERMINAL):
        row.answer_at = position
    return row


def _is_late(recorded: Recorded) -> bool:
    return bool(recorded.events) and type(recorded.events[0]) in _LATE
