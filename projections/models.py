"""All projections, fed in one place: `status` folds a decision, the others read what it changed."""

from __future__ import annotations

from arc_es.domain.recorded import CommandKey, DeploymentKey, PayloadKey, Recorded
from projections.deployments import DeploymentsProjection
from projections.due import DueProjection
from projections.idempotency import IdempotencyProjection
from projections.payloads import PayloadsProjection
from projections.pending import PendingProjection
from projections.stats import StatsProjection
from projections.status import StatusProjection


class Projections:
    """The read models of one node. Not a source of truth: everything here is folded from the journal."""

    def __init__(self) -> None:
        self.status = StatusProjection()
        self.pending = PendingProjection()
        self.due = DueProjection()
        self.idempotency = IdempotencyProjection()
        self.deployments = DeploymentsProjection()
        self.payloads = PayloadsProjection()
        self.stats = StatsProjection()

    def apply(self, recorded: Recorded) -> str | None:
        """Fold one decision; each exactly once, those of one history in order.

        Returns the id of a command that has just become leasable (one that rests is woken by time instead), else None.

        Raises:
            ImpossibleHistory: applied twice, out of order, or against the transition table.
        """
        key = recorded.key
        if not isinstance(key, CommandKey):
            if isinstance(key, DeploymentKey):
                self.deployments.apply_recorded(key, recorded)
            elif isinstance(key, PayloadKey):
                self.payloads.apply_recorded(key, recorded)
            self.stats.count(len(recorded.events))
            return None
        change = self.status.apply(key, recorded)
        self.stats.count(len(recorded.events))
        self.stats.apply(change)
        self.due.apply(change)
        self.idempotency.apply(change)
        self.deployments.apply(change)
        return self.pending.apply(change)
