"""Which command holds an idempotency key, as far as it is younger than the window and in memory.

Whoever asks for another one meets its command all the same: equal keys make equal ids, and the journal has them all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from arc_es.domain.ids import Micros
from arc_es.domain.limits import IDEMPOTENCY_WINDOW
from arc_es.domain.state import Facts
from projections.change import Change, Row
from projections.plain import Plain

_SLACK: Final = 64
"""So many rows that are gone are not worth a compaction."""


class _Scope(NamedTuple):
    """Keys mean something only inside one of these."""

    deployment_id: str
    target_id: str
    command: str


def _scope_of(facts: Facts) -> _Scope:
    return _Scope(facts.route.deployment_id, facts.route.target_id, facts.route.command)


class IdempotencyProjection:
    """(deployment, target, command, key) -> the newest command created with that key."""

    def __init__(self) -> None:
        self._holders: dict[_Scope, dict[str, Row]] = {}
        self._by_age: deque[Row] = deque()
        self._newest_at: Micros = 0
        self._gone = 0

    def holder(self, deployment_id: str, target_id: str, command: str, key: str) -> str | None:
        """The id of the newest command created with this key, if it is remembered."""
        row = self._holders.get(_Scope(deployment_id, target_id, command), {}).get(key)
        return None if row is None else row.command_id

    def __len__(self) -> int:
        return sum(map(len, self._holders.values()))

    def apply(self, change: Change) -> None:
        """Follow one change."""
        if change.before is None:
            facts = change.after.facts
            key = facts.options.idempotency_key
            if key is not None:
                self._holders.setdefault(_scope_of(facts), {})[key] = change.row
                self._by_age.append(change.row)
        elif change.after.facts.options.is_erased and self._drop(change.row, change.before.facts):
            self._gone += 1
        if change.at > self._newest_at:
            self._newest_at = change.at
            if self._by_age:
                self._forget(change.at - IDEMPOTENCY_WINDOW)

    def _forget(self, until: Micros) -> None:
        """Drop what was created at `until` or before; each entry is dropped once, so this costs nothing on average."""
        while self._by_age and self._by_age[0].state.facts.created_at <= until:
            oldest = self._by_age.popleft()
            self._drop(oldest, oldest.state.facts)

    def evict(self, row: Row) -> None:
        """The command is not in memory any more."""
        if self._drop(row, row.state.facts):
            self._gone += 1
            if 2 * self._gone > len(self._by_age) + _SLACK:
                self._by_age = deque(row for row in self._by_age if self._holds(row, row.state.facts))
                self._gone = 0

    def _holds(self, row: Row, facts: Facts) -> bool:
        return self._holders.get(_scope_of(facts), {}).get(facts.options.idempotency_key or "") is row

    def _drop(self, row: Row, facts: Facts) -> bool:
        """Forget that a command holds the key in `facts`; False if there is none, or it does not hold it any more."""
        key = facts.options.idempotency_key
        if key is None or not self._holds(row, facts):
            return False
        scope = _scope_of(facts)
        del self._holders[scope][key]
        if not self._holders[scope]:
            del self._holders[scope]
        return True

    def dump(self) -> Plain:
        """What is remembered as plain data: the ids of the commands that hold their keys, in order of age."""
        return self._newest_at, [row.command_id for row in self._by_age if self._holds(row, row.state.facts)]

    def load(self, data: Plain, row_of: Callable[[str], Row | None]) -> None:
        """Take in what was dumped. row_of: the row of a command, which the projections share."""
        self._newest_at, command_ids = data
        self._by_age = deque(row for command_id in command_ids if (row := row_of(command_id)) is not None)
        for row in self._by_age:
            facts = row.state.facts
            key = facts.options.idempotency_key
            if key is not None:
                self._holders.setdefault(_scope_of(facts), {})[key] = row
