"""When commands next change by themselves: a heap by time with lazy deletion.

`_armed` is the truth; a heap entry counts only if `_armed` has exactly its time. Whatever else is in the heap is
garbage, thrown away when met, or all at once when it is more than half of the heap.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import Final

from arc_es.domain.ids import Micros
from arc_es.domain.state import next_due
from projections.change import Change, Row

_SLACK: Final = 64
"""So much garbage is not worth a compaction."""


class DueProjection:
    """The earliest time first."""

    def __init__(self) -> None:
        self._armed: dict[str, Micros] = {}
        self._taken: dict[str, Micros] = {}
        self._heap: list[tuple[Micros, str]] = []

    def next_at(self) -> Micros | None:
        """The earliest time at which something is due, None if nothing ever is."""
        heap = self._heap
        while heap:
            at, command_id = heap[0]
            if self._armed.get(command_id) == at:
                return at
            heappop(heap)
        return None

    def take_due(self, now: Micros, count: int) -> list[str]:
        """Remove and return up to `count` commands that are due; they come back by `put_back` or by an event."""
        taken: list[str] = []
        while len(taken) < count and (at := self.next_at()) is not None and at <= now:
            command_id = heappop(self._heap)[1]
            self._taken[command_id] = self._armed.pop(command_id)
            taken.append(command_id)
        return taken

    def put_back(self, command_ids: Iterable[str]) -> None:
        """Offer commands again whose Tick could not be stored; those that an event changed meanwhile are left alone."""
        for command_id in command_ids:
            at = self._taken.pop(command_id, None)
            if at is not None:
                self._arm(command_id, at)

    def apply(self, change: Change) -> None:
        """Follow one change."""
        command_id = change.row.command_id
        due_at = next_due(change.after)
        if self._taken:
            self._taken.pop(command_id, None)
        if due_at is None:
            self._armed.pop(command_id, None)
        elif self._armed.get(command_id) != due_at:
            self._arm(command_id, due_at)

    def _arm(self, command_id: str, at: Micros) -> None:
        """Only here the heap grows, so only here it is looked at."""
        self._armed[command_id] = at
        heap = self._heap
        heappush(heap, (at, command_id))
        if len(heap) > 2 * len(self._armed) + _SLACK:
            self._remake_heap()

    def _remake_heap(self) -> None:
        self._heap = [(at, command_id) for command_id, at in self._armed.items()]
        heapify(self._heap)

    def fill(self, live: Iterable[Row]) -> None:
        """Start over with these rows: what is due say their states alone, so nothing of it is dumped."""
        due = ((row.command_id, next_due(row.state)) for row in live)
        self._armed = {command_id: at for command_id, at in due if at is not None}
        self._remake_heap()
