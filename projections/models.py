"""All projections, fed in one place: `status` folds a decision, the others read what it changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from arc_es.domain.events import Event
from arc_es.domain.leases import CancelledLease
from arc_es.domain.recorded import CommandKey, DeploymentKey, LogKey, PayloadKey, Recorded, TokenKey
from arc_es.domain.state import TERMINAL
from projections.cancelled import CancelledProjection
from projections.change import Change, Row
from projections.checkpoints import CheckpointsProjection
from projections.deployments import DeploymentsProjection
from projections.due import DueProjection
from projections.idempotency import IdempotencyProjection
from projections.payloads import PayloadsProjection
from projections.pending import PendingProjection
from projections.plain import Plain
from projections.stats import StatsProjection
from projections.status import StatusProjection
from projections.tokens import TokensProjection


class Projections:
    """The read models of one node. Not a source of truth: everything here is folded from the journal.

    finished_max: ended commands that are kept in memory, once `findable` says that they can be found elsewhere; None:
    all. on_change and on_late tell who does that: of each change, and of what happens to commands that are gone.
    on_cancelled tells whoever can reach the holder of a lease that its command was cancelled.
    """

    def __init__(self, finished_max: int | None = None) -> None:
        self.on_change: Callable[[Change, Sequence[Event]], None] = lambda change, events: None
        self.on_late: Callable[[str, Recorded], None] = lambda command_id, recorded: None
        self.on_cancelled: Callable[[CancelledLease], None] = lambda lease: None
        self._finished_max = finished_max
        self.status = StatusProjection(finished_max)
        self.pending = PendingProjection()
        self.pushes = PendingProjection()
        self.due = DueProjection()
        self.cancelled = CancelledProjection()
        self.idempotency = IdempotencyProjection()
        self.status.on_evicted = self.idempotency.evict
        self.deployments = DeploymentsProjection()
        self.payloads = PayloadsProjection()
        self.tokens = TokensProjection()
        self.checkpoints = CheckpointsProjection()
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
            elif isinstance(key, LogKey):
                self.checkpoints.apply_recorded(key, recorded)
            self.stats.count(len(recorded.events))
            return None
        change = self.status.apply(key, recorded)
        self.stats.count(len(recorded.events))
        if change is None:
            self.on_late(key.command_id, recorded)
            return None
        self.stats.apply(change)
        self.due.apply(change)
        cancelled = self.cancelled.apply(change)
        if cancelled is not None:
            self.on_cancelled(cancelled)
        self.idempotency.apply(change)
        self.deployments.apply(change)
        self.on_change(change, recorded.events)
        if isinstance(change.after, TERMINAL):
            self.status.evict()
        pushed = change.after.facts.route.delivery == "push"
        return self.pushes.apply(change) if pushed else self.pending.apply(change)

    def dump(self) -> Iterator[tuple[str, Plain]]:
        """Everything as named pieces of plain data; the same for all folds of the same decisions.

        What follows from the states of the commands is not in it, nor what only this process knows, such as
        reservations. Nothing may be applied before the last piece was taken.
        """
        for piece in self.status.dump():
            yield "status", piece
        yield "finished", self.status.dump_finished()
        yield "pending", self.pending.dump()
        yield "pushes", self.pushes.dump()
        yield "cancelled", self.cancelled.dump()
        yield "idempotency", self.idempotency.dump()
        yield "deployments", self.deployments.dump()
        yield "payloads", self.payloads.dump()
        yield "tokens", self.tokens.dump()
        yield "checkpoints", self.checkpoints.dump()
        yield "stats", self.stats.dump()

    def load(self, pieces: Iterable[tuple[str, Plain]]) -> None:
        """Take in all that was dumped, in its order; only into new projections. What fails has no effect."""
        loaded = Projections(self._finished_max)
        loaded._load(pieces)
        findable = self.status.findable
        for name, part in vars(loaded).items():
            if hasattr(part, "load"):
                vars(getattr(self, name)).update(vars(part))
        self.status.on_evicted = self.idempotency.evict
        self.findable(findable)

    def _load(self, pieces: Iterable[tuple[str, Plain]]) -> None:
        live: list[Row] = []
        rest: dict[str, Plain] = {}
        for name, piece in pieces:
            if name == "status":
                live += self.status.load(piece)
            else:
                rest[name] = piece
        self.status.load_finished(rest["finished"])
        pushed = [row for row in live if row.state.facts.route.delivery == "push"]
        pulled = [row for row in live if row.state.facts.route.delivery != "push"]
        self.pending.load(rest["pending"], pulled)
        self.pushes.load(rest["pushes"], pushed)
        self.due.load(live)
        self.cancelled.load(rest["cancelled"])
        self.idempotency.load(rest["idempotency"], self.status.get)
        self.deployments.load(rest["deployments"])
        self.payloads.load(rest["payloads"])
        self.tokens.load(rest["tokens"])
        self.checkpoints.load(rest["checkpoints"])
        self.stats.load(rest["stats"])

    def findable(self, position: int) -> None:
        """Everything up to this position can be found elsewhere: what ended long ago need not stay in memory."""
        self.status.findable = max(self.status.findable, position)
        self.status.evict()
