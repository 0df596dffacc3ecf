"""All projections, fed in one place: `status` folds a decision, the others read what it changed."""

from __future__ import annotations

from arc_es.domain.recorded import CommandKey, DeploymentKey, PayloadKey, Recorded, TokenKey
from projections.deployments import DeploymentsProjection
from projections.due import DueProjection
from projections.idempotency import IdempotencyProjection
from projections.payloads import PayloadsProjection
from projections.pending import PendingProjection
from projections.stats import StatsProjection
from projections.status import StatusProjection
from projections.tokens import TokensProjection


class Projections:
    """The read models of one node. Not a source of truth: everything here is folded from the journal."""

    def __init__(self) -> None:
        self.status = StatusProjection()
        self.pending = PendingProjection()
        self.pushes = PendingProjection()
        self.due = DueProjection()
        self.idempotency = IdempotencyProjection()
        self.deployments = DeploymentsProjection()
        self.payloads = PayloadsProjection()
        self.tokens = TokensProjection()
        self.stats = StatsProjection()

    def apply(self, recorded: Recorded) -> str | None:
        """Fold one decision; each exactly once, those of one history in order.

        Returns the id of a command that may be leased or pushed from now on (one that rests is woken by time instead).

        Raises:
            ImpossibleHistory: applied twice, out of order, or against the transition table.
        """
        key = recorded.key
        if not isinstance(key, CommandKey):
            if isinstance(key, DeploymentKey):
                self.deployments.apply_recorded(key, recorded)
            elif isinstance(key, PayloadKey):
                self.payloads.apply_recorded(key, recorded)
            elif isinstance(key, TokenKey):
                self.tokens.apply_recorded(key, recorded)
            self.stats.count(len(recorded.events))
            return None
        change = self.status.apply(key, recorded)
        self.stats.count(len(recorded.events))
        self.stats.apply(change)
        self.due.apply(change)
        self.idempotency.apply(change)
        self.deployments.apply(change)
        pushed = change.after.facts.route.delivery == "push"
        return self.pushes.apply(change) if pushed else self.pending.apply(change)
