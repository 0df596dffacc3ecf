"""Which leases are held on commands that were cancelled: their holders do not know yet, and are told when they ask.

A lease is remembered until it would have ended. What has passed then is forgotten when the next decision comes.
"""

from __future__ import annotations

from dataclasses import replace
from heapq import heappop, heappush

from arc_es.domain.ids import Micros
from arc_es.domain.leases import CancelledLease
from arc_es.domain.state import Failed, Leased
from projections.change import Change
from projections.plain import Plain

_Agent = tuple[str, str]
"""Deployment and agent id."""


class CancelledProjection:
    """lease id -> lease, and the leases of each agent that gave its id."""

    def __init__(self) -> None:
        self._leases: dict[str, CancelledLease] = {}
        self._of_agents: dict[_Agent, dict[str, None]] = {}
        self._ends: list[tuple[Micros, str]] = []

    def get(self, lease_id: str, now: Micros) -> CancelledLease | None:
        """The lease with this id, None if its command was not cancelled while it was held, or it would have ended."""
        lease = self._leases.get(lease_id)
        return None if lease is None or lease.expires_at <= now else lease

    def of_agent(self, deployment_id: str, agent: str, now: Micros) -> list[CancelledLease]:
        """The leases that an agent still holds, as far as it knows, in the order in which they were cancelled."""
        leases = [self._leases[lease_id] for lease_id in self._of_agents.get((deployment_id, agent), ())]
        return [lease for lease in leases if lease.expires_at > now]

    def apply(self, change: Change) -> CancelledLease | None:
        """Follow one change. Returns the lease that its holder has to be told of, if the change made one."""
        if self._ends and self._ends[0][0] <= change.at:
            self._forget(change.at)
        before, after = change.before, change.after
        if type(before) is not Leased or type(after) is not Failed or after.origin != "cancel":
            return None
        lease = CancelledLease(
            before.lease_id, change.command_id, after.facts.route.deployment_id, before.agent, before.expires_at
        )
        self._remember(lease)
        return lease

    def erase(self, command_id: str) -> None:
        """Forget which agents held leases on a command."""
        for lease_id, lease in self._leases.items():
            if lease.command_id == command_id and lease.agent is not None:
                self._forget_agent(lease)
                self._leases[lease_id] = replace(lease, agent=None)

    def _remember(self, lease: CancelledLease) -> None:
        self._leases[lease.lease_id] = lease
        heappush(self._ends, (lease.expires_at, lease.lease_id))
        if lease.agent is not None:
            self._of_agents.setdefault((lease.deployment_id, lease.agent), {})[lease.lease_id] = None

    def _forget(self, now: Micros) -> None:
        while self._ends and self._ends[0][0] <= now:
            lease = self._leases.pop(heappop(self._ends)[1])
            if lease.agent is not None:
                self._forget_agent(lease)

    def _forget_agent(self, lease: CancelledLease) -> None:
        assert lease.agent is not None, "seen by the caller"
        agent = (lease.deployment_id, lease.agent)
        del self._of_agents[agent][lease.lease_id]
        if not self._of_agents[agent]:
            del self._of_agents[agent]

    # --- snapshots

    def dump(self) -> Plain:
        """All leases as plain data, in the order in which they were cancelled."""
        return [
            (lease.lease_id, lease.command_id, lease.deployment_id, lease.agent, lease.expires_at)
            for lease in self._leases.values()
        ]

    def load(self, data: Plain) -> None:
        """Take in what was dumped."""
        for fields in data:
            self._remember(CancelledLease(*fields))
