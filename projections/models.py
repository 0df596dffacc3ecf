"""All projections, fed in one place: `status` folds a decision, the others read what it changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from arc_es.domain.events import CommandErased, Event
from arc_es.domain.leases import CancelledLease
from arc_es.domain.recorded import CommandKey, DeploymentKey, Key, LogKey, PayloadKey, Recorded, TokenKey
from arc_es.domain.state import TERMINAL
from projections.cancelled import CancelledProjection
from projections.change import Change
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

_ENDED: Final = frozenset(TERMINAL)


class Projections:
    """The read models of one node. Not a source of truth: everything here is folded from the journal.

    finished_max: ended commands that are kept in memory, once `findable` says that they can be found elsewhere; None:
    all. on_change and on_late tell who does that: of each change, and of what happens to commands that are gone.
    on_controlled tells whoever hands commands out that a deployment was paused, limited, or let go on; on_cancelled
    tells whoever can reach the holder of a lease that its command was cancelled; on_erased, after all that, names every
    command whose private parts are to be known no more.
    """

    def __init__(self, finished_max: int | None = None) -> None:
        self.on_change: Callable[[Change, Sequence[Event]], None] = lambda change, events: None
        self.on_late: Callable[[str, Recorded], None] = lambda command_id, recorded: None
        self.on_cancelled: Callable[[CancelledLease], None] = lambda lease: None
        self.on_controlled: Callable[[str], None] = lambda deployment_id: None
        self.on_erased: Callable[[CommandKey, int], None] = lambda key, position: None
        self._finished_max = finished_max
        self._replaying = False
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
            self._apply_other(key, recorded)
            self.stats.apply(recorded, None)
            return None
        change = self.status.apply(key, recorded)
        self.stats.apply(recorded, change)
        if change is None:
            self.on_late(key.command_id, recorded)
            self._tell_erased(key, recorded)
            return None
        cancelled = self.cancelled.apply(change)
        if cancelled is not None:
            self.on_cancelled(cancelled)
        self.idempotency.apply(change)
        route = change.after.facts.route
        if change.before is None:
            self.deployments.learn(route)
        self.on_change(change, recorded.events)
        if type(change.after) in _ENDED:
            self._tell_erased(key, recorded)
            self.status.evict()
        queues = self.pushes if route.delivery == "push" else self.pending
        if self._replaying:
            queues.learn(change)
            return None
        self.due.apply(change)
        return queues.apply(change)

    def _tell_erased(self, key: CommandKey, recorded: Recorded) -> None:
        if type(recorded.events[-1]) is CommandErased:
            self.cancelled.erase(key.command_id)
            self.on_erased(key, recorded.position)

    def _apply_other(self, key: Key, recorded: Recorded) -> None:
        """What is about no command."""
        if isinstance(key, DeploymentKey):
            self._follow_deployment(key, recorded)
        elif isinstance(key, PayloadKey):
            self.payloads.apply_recorded(key, recorded)
        elif isinstance(key, TokenKey):
            self.tokens.apply_recorded(key, recorded)
        elif isinstance(key, LogKey):
            self.checkpoints.apply_recorded(key, recorded)

    def _follow_deployment(self, key: DeploymentKey, recorded: Recorded) -> None:
        name = key.deployment_id
        before = self.deployments.get(name).controls
        self.deployments.apply_recorded(key, recorded)
        controls = self.deployments.get(name).controls
        if controls is not before:
            for queues in (self.pending, self.pushes):
                queues.control(name, controls)
            self.on_controlled(name)

    # --- replays

    def begin_replay(self, messages: int) -> None:
        """So many messages come before anybody asks; until `end_replay`, queues and due times may be wrong.

        They follow from the states that the commands then have, so following each change would be wasted, unless the
        messages are few.
        """
        self._replaying = messages > len(self.status)

    def end_replay(self) -> None:
        """Make up for what was left out."""
        if self._replaying:
            self._replaying = False
            self._fill()

    def _fill(self) -> None:
        live = self.status.live()
        self.pending.fill(row for row in live if row.state.facts.route.delivery != "push")
        self.pushes.fill(row for row in live if row.state.facts.route.delivery == "push")
        self.due.fill(live)

    # --- snapshots

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
            if hasattr(part, "load") or hasattr(part, "fill"):
                vars(getattr(self, name)).update(vars(part))
        self.status.on_evicted = self.idempotency.evict
        self.findable(findable)

    def _load(self, pieces: Iterable[tuple[str, Plain]]) -> None:
        rest: dict[str, Plain] = {}
        for name, piece in pieces:
            if name == "status":
                self.status.load(piece)
            else:
                rest[name] = piece
        self.status.load_finished(rest["finished"])
        self.pending.load(rest["pending"])
        self.pushes.load(rest["pushes"])
        self._fill()
        self.cancelled.load(rest["cancelled"])
        self.idempotency.load(rest["idempotency"], self.status.get)
        self.deployments.load(rest["deployments"])
        for name, controls in self.deployments.controls():
            for queues in (self.pending, self.pushes):
                queues.control(name, controls)
        self.payloads.load(rest["payloads"])
        self.tokens.load(rest["tokens"])
        self.checkpoints.load(rest["checkpoints"])
        self.stats.load(rest["stats"])

    def findable(self, position: int) -> None:
        """Everything up to this position can be found elsewhere: what ended long ago need not stay in memory."""
        self.status.findable = max(self.status.findable, position)
        self.status.evict()
