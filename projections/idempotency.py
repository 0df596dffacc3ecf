"""Which command holds an idempotency key. Only what is younger than the window is remembered."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from arc_es.domain.ids import Micros
from arc_es.domain.limits import IDEMPOTENCY_WINDOW
from arc_es.domain.state import Facts
from projections.change import Change, Row


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
        if change.at > self._newest_at:
            self._newest_at = change.at
            if self._by_age:
                self._forget(change.at - IDEMPOTENCY_WINDOW)

    def _forget(self, until: Micros) -> None:
        """Drop what was created at `until` or before; each entry is dropped once, so this costs nothing on average."""
        while self._by_age and (facts := self._by_age[0].state.facts).created_at <= until:
            row = self._by_age.popleft()
            scope = _scope_of(facts)
            holders = self._holders.get(scope, {})
            key = facts.options.idempotency_key
            if key is not None and holders.get(key) is row:
                del holders[key]
                if not holders:
                    del self._holders[scope]
