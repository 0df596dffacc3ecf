"""Which commands wait for a receiver: one best-first queue a target, and one a deployment over all its targets.

A command's rank is one integer, so that heaps compare fast and hold no tuples. Lower is better; priority counts in the
high bits, the command's place (`params_at`) in the low ones. `params_at` never changes, so a command that comes back
from a lease gets its old place. Without a priority, rank and `params_at` are one object: a place costs 8 bytes a heap.

`_ready` and `_resting` are the truth, keyed by place. A heap entry counts only if the truth agrees; everything else in
a heap is garbage, thrown away when met, or all at once when it may be more than half of the heap. So an event that
takes a command out of a queue costs one dict deletion, and nothing ever searches a heap.

A target may be paused, or have as many leases as it may have. Then nothing of it is taken: what the queue of the whole
deployment meets of it is parked beside the target, and comes back one after the other, best first, when it is open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from sys import maxsize
from typing import Final

from arc_es.domain.deployments import Controls
from arc_es.domain.ids import OPERATOR, Micros
from arc_es.domain.queues import QueueCounts
from arc_es.domain.state import Dispatched, Leased, Pending, Route
from projections.change import Change, Row
from projections.plain import Plain

_PLACE_BITS: Final = 48
"""Room for 2**48 positions; with 8 bits of priority above them a rank stays a two-digit Python integer (32 bytes)."""
_PLACE_MASK: Final = (1 << _PLACE_BITS) - 1
PASSED_MAX: Final = 64
"""Commands that one `take` passes over."""
_SLACK: Final = 64
"""So much garbage is not worth a compaction."""
_HELD: Final = frozenset({Leased, Dispatched})
_QUEUED: Final = frozenset({Pending, *_HELD})


def _rank(row: Row) -> int:
    priority = row.state.facts.options.priority
    return row.params_at - (priority << _PLACE_BITS) if priority else row.params_at


class _Queue:
    """Ranks of one target, or of all targets of a deployment but `operator`.

    `ready` counts what is really there; no heap of the queue holds more than `garbage` entries beside it.
    """

    __slots__ = ("garbage", "heaps", "ranks", "ready")

    def __init__(self) -> None:
        self.ranks: list[int] = []
        self.heaps = [self.ranks]
        self.ready = 0
        self.garbage = 0


class _Target(_Queue):
    """One target's queue. `places` orders the same commands by age alone; `whole` is the deployment's queue.

    parked: ranks that are not in the heap of the whole deployment. Of an open target the best one of all is in there.
    """

    __slots__ = ("leased", "leases_max", "parked", "paused", "places", "reserved", "resting", "whole")

    def __init__(self, whole: _Queue | None) -> None:
        super().__init__()
        self.places: list[int] = []
        self.parked: list[int] = []
        self.heaps += (self.places, self.parked)
        self.resting = 0
        self.leased = 0
        self.reserved = 0
        self.paused = False
        self.leases_max: int | None = None
        self.whole = whole

    @property
    def room(self) -> int:
        """How many commands may be taken now."""
        if self.paused:
            return 0
        return maxsize if self.leases_max is None else max(0, self.leases_max - self.leased - self.reserved)


class _Deployment(_Queue):
    __slots__ = ("targets",)

    def __init__(self) -> None:
        super().__init__()
        self.targets: dict[str, _Target] = {}


class PendingProjection:
    """Commands of one kind of delivery in state Pending: ready, or resting until their `available_at`."""

    def __init__(self) -> None:
        self._controls: dict[str, Controls] = {}
        self._clear()

    def _clear(self) -> None:
        self._deployments: dict[str, _Deployment] = {}
        self._ready: dict[int, Row] = {}
        self._reserved: dict[str, Row] = {}
        self._resting: dict[int, Row] = {}
        self._alarms: list[tuple[Micros, int]] = []
        self._unannounced: dict[int, Micros] = {}
        self._excess: set[str] = set()

    # --- what the service asks

    def take(
        self,
        deployment_id: str,
        target_id: str | None,
        count: int,
        now: Micros,
        only: Callable[[Row], bool] | None = None,
    ) -> list[str]:
        """Reserve up to `count` leasable commands; target None means all targets of the deployment but `operator`.

        A taken command is offered to nobody else until it is given back, or leaves the queue by an event. only: passes
        over others, but not over more than `PASSED_MAX`, so that what is best never waits for long.
        """
        self._move_rested(now)
        deployment = self._deployments.get(deployment_id)
        if deployment is None:
            return []
        target = None if target_id is None else deployment.targets.get(target_id)
        if target is not None:
            count = min(count, target.room)
        elif target_id is not None:
            return []
        queue = target or deployment
        taken: list[str] = []
        passed: list[int] = []
        while queue.ranks and len(taken) < count and len(passed) < PASSED_MAX:
            rank = heappop(queue.ranks)
            row = self._ready.get(rank & _PLACE_MASK)
            if row is None:
                continue
            owner = target or self._target(row.state.facts.route)
            if target is None and not owner.room:
                heappush(owner.parked, rank)
            elif only is not None and not only(row):
                passed.append(rank)
            else:
                self._reserve(row, owner, taken)
        for rank in passed:
            heappush(queue.ranks, rank)
        return taken

    def _reserve(self, row: Row, target: _Target, taken: list[str]) -> None:
        """Take what was met, unless it is taken already."""
        if row.command_id not in self._reserved:
            self._reserved[row.command_id] = row
            target.reserved += 1
            taken.append(row.command_id)
        if target.parked:
            self._unpark(target)

    def _unpark(self, target: _Target) -> None:
        """See to it that the best command of an open target can be met in the queue of the whole deployment."""
        while target.parked and target.whole is not None and target.room:
            rank = heappop(target.parked)
            if rank & _PLACE_MASK in self._ready:
                heappush(target.whole.ranks, rank)
                return

    def is_open(self, deployment_id: str, target_id: str) -> bool:
        """Whether something of this target may be taken, as far as it has anything."""
        deployment = self._deployments.get(deployment_id)
        target = None if deployment is None else deployment.targets.get(target_id)
        return target is None or target.room > 0

    def is_excess(self, command_id: str) -> bool:
        """Whether the command is held under a lease that came when its target was paused, or full.

        All who follow the same log agree on that, so it says which of two grants at once is the one too many.
        """
        return command_id in self._excess

    def give_back(self, command_ids: Iterable[str]) -> None:
        """End reservations; commands that are still pending are offered again, at their old place."""
        for command_id in command_ids:
            row = self._reserved.pop(command_id, None)
            if row is not None:
                target = self._target(row.state.facts.route)
                target.reserved -= 1
                self._offer(target, _rank(row))
                self._littered(target)
                self._unpark(target)

    def next_available_at(self) -> Micros | None:
        """When the next resting command becomes leasable; in the past while `wake_delayed` has not told of it."""
        if self._unannounced:
            return next(iter(self._unannounced.values()))
        alarms = self._alarms
        while alarms:
            if self._rests_until(*alarms[0]):
                return alarms[0][0]
            heappop(alarms)
        return None

    def wake_delayed(self, now: Micros) -> list[str]:
        """Make commands leasable whose rest is over, and return their ids.

        Each rest that ends is told of once, even if a `take` came first and saw that it is over: somebody else may be
        waiting for just that command.
        """
        self._move_rested(now)
        woken = [self._ready[place].command_id for place in self._unannounced]
        self._unannounced.clear()
        return woken

    def queues(self, now: Micros) -> list[QueueCounts]:
        """All queues that ever had a command. Reserved commands count as pending."""
        self._move_rested(now)
        return [
            QueueCounts(
                deployment_id,
                target_id,
                target.ready,
                target.resting,
                target.leased,
                self._oldest(target),
                target.paused,
                target.leases_max,
            )
            for deployment_id, deployment in self._deployments.items()
            for target_id, target in deployment.targets.items()
        ]

    def ahead(self, route: Route, priority: int, params_at: int, count_max: int) -> int:
        """How many leasable commands of the same target are taken before this one, counted up to `count_max`.

        A heap has everything better than an entry above it, so only what is counted, and garbage, is looked at.
        """
        mine = params_at - (priority << _PLACE_BITS)
        deployment = self._deployments.get(route.deployment_id)
        target = None if deployment is None else deployment.targets.get(route.target_id)
        ranks = [] if target is None else target.ranks
        found: set[int] = set()
        looks, open_at = _SLACK + 4 * count_max, [0]
        while open_at and looks and len(found) < count_max:
            at = open_at.pop()
            looks -= 1
            if at < len(ranks) and ranks[at] < mine:
                open_at += (2 * at + 1, 2 * at + 2)
                other = self._ready.get(ranks[at] & _PLACE_MASK)
                if other is not None and other.command_id not in self._reserved:
                    found.add(ranks[at])
        return len(found) if looks or not open_at else count_max

    # --- what happens to commands

    def apply(self, change: Change) -> str | None:
        """Follow one change. Returns the id of a command that may be taken from now on: it, or one that had no room."""
        after = change.after
        was, now = type(change.before), type(after)
        if was not in _QUEUED and now not in _QUEUED:
            return None
        row = change.row
        target = self._target(after.facts.route)
        if was is Pending:
            self._leave(row, target)
        elif was in _HELD:
            target.leased -= 1
        if now in _HELD:
            if was is Pending and not self._has_room_by_log(target):
                self._excess.add(row.command_id)
            target.leased += 1
            return None
        if self._excess:
            self._excess.discard(row.command_id)
        if isinstance(after, Pending):
            available_at = after.available_at
            if available_at is None or available_at <= change.at:
                self._enter(row, target)
                if target.parked:
                    self._unpark(target)
                return row.command_id
            self._rest(row, target, available_at)
        return None if target.leases_max is None else self._next_of(target)

    def _has_room_by_log(self, target: _Target) -> bool:
        """Whether one more lease may be: by what is stored alone, not by what only this process has reserved."""
        return not target.paused and (target.leases_max is None or target.leased < target.leases_max)

    def _next_of(self, target: _Target) -> str | None:
        """The best command of a target, if it may be taken now."""
        ranks = target.ranks
        self._unpark(target)
        while ranks and target.room:
            row = self._ready.get(ranks[0] & _PLACE_MASK)
            if row is not None and row.command_id not in self._reserved:
                return row.command_id
            heappop(ranks)
        return None

    # --- what administrators say

    def control(self, deployment_id: str, controls: Controls) -> None:
        """Deliveries of a deployment are controlled like this from now on."""
        self._controls[deployment_id] = controls
        deployment = self._deployments.get(deployment_id)
        if deployment is not None:
            for target_id, target in deployment.targets.items():
                self._obey(target, target_id, controls)

    def _obey(self, target: _Target, target_id: str, controls: Controls) -> None:
        target.paused = controls.pause_of(target_id) is not None
        target.leases_max = controls.leases_max.get(target_id)
        self._unpark(target)

    def _target(self, route: Route) -> _Target:
        deployment = self._deployments.get(route.deployment_id)
        target = None if deployment is None else deployment.targets.get(route.target_id)
        return target or self._queue(route.deployment_id, route.target_id)

    def _queue(self, deployment_id: str, target_id: str) -> _Target:
        deployment = self._deployments.get(deployment_id)
        if deployment is None:
            deployment = self._deployments[deployment_id] = _Deployment()
        target = deployment.targets.get(target_id)
        if target is None:
            whole = None if target_id == OPERATOR else deployment
            target = deployment.targets[target_id] = _Target(whole)
            if (controls := self._controls.get(deployment_id)) is not None:
                self._obey(target, target_id, controls)
        return target

    def _enter(self, row: Row, target: _Target) -> None:
        place = row.params_at
        self._ready[place] = row
        target.ready += 1
        if target.whole is not None:
            target.whole.ready += 1
        heappush(target.places, place)
        self._offer(target, _rank(row))

    def _offer(self, target: _Target, rank: int) -> None:
        heappush(target.ranks, rank)
        if target.whole is not None:
            heappush(target.whole.ranks, rank)

    def _leave(self, row: Row, target: _Target) -> None:
        place = row.params_at
        if self._reserved and self._reserved.pop(row.command_id, None) is not None:
            target.reserved -= 1
        if self._unannounced:
            self._unannounced.pop(place, None)
        if self._ready.pop(place, None) is None:
            del self._resting[place]
            target.resting -= 1
            if len(self._alarms) > 2 * len(self._resting) + _SLACK:
                self._alarms = sorted({alarm for alarm in self._alarms if self._rests_until(*alarm)})
            return
        target.ready -= 1
        if target.whole is not None:
            target.whole.ready -= 1
        self._littered(target)
        if target.parked:
            self._unpark(target)

    def _littered(self, target: _Target) -> None:
        """One more entry in each heap of these queues may be garbage."""
        target.garbage += 1
        if target.garbage > target.ready + _SLACK:
            self._compact(target)
        whole = target.whole
        if whole is not None:
            whole.garbage += 1
            if whole.garbage > whole.ready + _SLACK:
                self._compact(whole)

    def _compact(self, queue: _Queue) -> None:
        queue.garbage = 0
        for heap in queue.heaps:
            heap[:] = sorted({rank for rank in heap if rank & _PLACE_MASK in self._ready})

    def _oldest(self, target: _Target) -> Micros | None:
        places = target.places
        while places:
            row = self._ready.get(places[0])
            if row is not None:
                return row.state.facts.created_at
            heappop(places)
        return None

    # --- snapshots and replays

    def learn(self, change: Change) -> None:
        """Follow one change only as far as `fill` does not make up for it: to the names of the queues."""
        if type(change.after) in _QUEUED and type(change.before) not in _QUEUED:
            self._target(change.after.facts.route)

    def dump(self) -> Plain:
        """The names of all queues as plain data. What is in them say the states of the commands."""
        return [(name, [*deployment.targets]) for name, deployment in self._deployments.items()]

    def load(self, data: Plain) -> None:
        """Take in what was dumped; `fill` is to follow."""
        for deployment_id, target_ids in data:
            for target_id in target_ids:
                self._queue(deployment_id, target_id)

    def fill(self, live: Iterable[Row]) -> None:
        """Start over with these rows in the same queues. What rests is moved when its time is seen to be over."""
        names = self.dump()
        self._clear()
        self.load(names)
        for row in sorted(live, key=lambda row: row.params_at):  # so that nothing ever moves up in a heap
            state = row.state
            if type(state) in _HELD:
                self._target(state.facts.route).leased += 1
            elif isinstance(state, Pending):
                target = self._target(state.facts.route)
                if state.available_at is None:
                    self._enter(row, target)
                else:
                    self._rest(row, target, state.available_at)

    # --- rests

    def _rest(self, row: Row, target: _Target, available_at: Micros) -> None:
        target.resting += 1
        self._resting[row.params_at] = row
        heappush(self._alarms, (available_at, row.params_at))

    def _rests_until(self, available_at: Micros, place: int) -> bool:
        row = self._resting.get(place)
        return row is not None and isinstance(row.state, Pending) and row.state.available_at == available_at

    def _move_rested(self, now: Micros) -> None:
        alarms = self._alarms
        while alarms and alarms[0][0] <= now:
            available_at, place = heappop(alarms)
            if self._rests_until(available_at, place):
                row = self._resting.pop(place)
                target = self._target(row.state.facts.route)
                target.resting -= 1
                self._unannounced[place] = available_at
                self._enter(row, target)
