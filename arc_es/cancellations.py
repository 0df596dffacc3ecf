"""Telling agents that a command they hold was cancelled: in every answer, and at once if they wait.

Who was told what is remembered here, not stored: after a restart, or by another process, an agent is told once more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

from arc_es.actors.waiters import Waiter
from arc_es.domain.leases import CancelledLease
from arc_es.ports import Clock
from arc_es.views import CancelledView

AGENTS_REMEMBERED_MAX: Final = 100_000
_Agent: TypeAlias = tuple[str, str]
"""Deployment and agent id: what an agent of another deployment calls itself is its own affair."""


class Cancellations:
    """What agents have to be told, and who of them waits."""

    def __init__(self, cancelled: CancelledView, clock: Clock) -> None:
        self._cancelled = cancelled
        self._clock = clock
        self._told: OrderedDict[_Agent, frozenset[str]] = OrderedDict()
        self._waiting: dict[_Agent, set[Waiter]] = {}

    def leases(self, deployment_id: str, agent: str | None, named: Iterable[str] = ()) -> list[CancelledLease]:
        """The leases of cancelled commands that an agent holds, and those of its `named` ones that are."""
        now = self._clock.now()
        mine = [] if agent is None else self._cancelled.of_agent(deployment_id, agent, now)
        found = {lease.lease_id: lease for lease in mine}
        for lease_id in named:
            lease = self._cancelled.get(lease_id, now)
            if lease is not None:
                found[lease_id] = lease
        return [*found.values()]

    def has_news(self, deployment_id: str, agent: str | None) -> bool:
        """Whether there is something that an agent was not told yet."""
        if agent is None:
            return False
        told = self._told.get((deployment_id, agent), frozenset())
        return any(lease.lease_id not in told for lease in self.leases(deployment_id, agent))

    def told(self, deployment_id: str, agent: str | None) -> None:
        """Whatever there is to tell an agent was told."""
        if agent is None:
            return
        told = frozenset(lease.lease_id for lease in self.leases(deployment_id, agent))
        self._told.pop((deployment_id, agent), None)
        if told:
            self._told[deployment_id, agent] = told
            if len(self._told) > AGENTS_REMEMBERED_MAX:
                self._told.popitem(last=False)

    @contextmanager
    def awaited_by(self, waiter: Waiter, agent: str | None) -> Iterator[None]:
        """Inside it, the waiter is woken when there is news for its agent."""
        if agent is None:
            yield
            return
        waiting = self._waiting.setdefault((waiter.deployment_id, agent), set())
        waiting.add(waiter)
        try:
            yield
        finally:
            waiting.discard(waiter)
            if not waiting:
                self._waiting.pop((waiter.deployment_id, agent), None)

    def note(self, lease: CancelledLease) -> None:
        """The command of a lease was cancelled."""
        if lease.agent is not None:
            for waiter in self._waiting.get((lease.deployment_id, lease.agent), ()):
                waiter.has_news = True
                waiter.woken.set()
