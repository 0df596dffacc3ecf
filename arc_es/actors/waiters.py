"""The waiting room of long-polling agents: first come, first served; one command wakes one waiter.

A command is handed over, not announced: it is reserved for the waiter it wakes, and if that one is gone by then, it is
offered on to the next.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final

import trio

from arc_es.actors.stepping_in import SteppingIn
from arc_es.domain import limits
from arc_es.domain.ids import OPERATOR
from arc_es.domain.state import Route
from arc_es.ports import Clock, Overloaded
from arc_es.views import PendingView, Row, StatusView

LEFT_SECONDS: Final = 0.1
"""How long a node that is to lease a command first has for it: much more than an append takes."""


class TargetOverloaded(Overloaded):
    """One target's agents ask for more than their share; the rest of the service has room."""


@dataclass(eq=False, slots=True)
class Waiter:
    """One waiting agent and the targets it waits for; None: all pull targets of the deployment (first generation).

    has_news: there is something else to tell the agent than what it waits for.
    """

    deployment_id: str
    targets: tuple[str | None, ...]
    ticket: int
    woken: trio.Event = field(default_factory=trio.Event)
    handed: list[str] = field(default_factory=list)
    has_news: bool = False


Queue = tuple[str, str | None]


class Waiters:
    """All waiting agents, by deployment and target, in order of arrival."""

    def __init__(
        self,
        pending: PendingView,
        status: StatusView,
        clock: Clock,
        waiters_max: int = limits.WAITERS_MAX,
        waiters_per_target_max: int = limits.WAITERS_PER_TARGET_MAX,
    ) -> None:
        self._pending = pending
        self._status = status
        self._clock = clock
        self._waiters_max = waiters_max
        self._waiters_per_target_max = waiters_per_target_max
        self._queues: dict[Queue, OrderedDict[int, Waiter]] = {}
        self.left_to_others = SteppingIn(LEFT_SECONDS)
        """What agents at another node are to have first."""
        self.on_change: Callable[[Queue, int], None] = lambda queue, waiting: None
        """Told how many wait for a queue, whenever that changes."""
        self._inside: set[int] = set()  # tickets
        self._tickets = 0

    def __len__(self) -> int:
        return len(self._inside)

    def waiting(self, deployment_id: str, target_id: str) -> int:
        """How many agents wait for exactly this target."""
        return len(self._queues.get((deployment_id, target_id), ()))

    def any_waits(self, route: Route) -> bool:
        """Whether an agent waits for what goes this way."""
        return self._first(route.deployment_id, route.target_id) is not None

    def join(self, deployment_id: str, *targets: str | None) -> Waiter:
        """Queue up at the end. Raises Overloaded when the room is full, TargetOverloaded when a queue is too long."""
        longest = max((len(self._queues.get((deployment_id, target), ())) for target in targets), default=0)
        if longest >= self._waiters_per_target_max:
            raise TargetOverloaded("Too many agents are waiting for this target")
        if len(self._inside) >= self._waiters_max:
            raise Overloaded("Too many agents are waiting")
        self._tickets += 1
        waiter = Waiter(deployment_id, targets, self._tickets)
        self._enqueue(waiter)
        return waiter

    def rejoin(self, waiter: Waiter) -> None:
        """Go back to one's old place, having left it, after a wake-up that brought nothing."""
        waiter.woken = trio.Event()
        for queue in self._enqueue(waiter):
            earlier = [*takewhile(lambda ticket: ticket < waiter.ticket, queue)]
            for ticket in (waiter.ticket, *reversed(earlier)):
                queue.move_to_end(ticket, last=False)

    def leave(self, waiter: Waiter) -> None:
        """Stop waiting; what was handed over and not used must be given back with `give_back`."""
        self._remove(waiter)

    def offer(self, command_id: str) -> None:
        """A command has become leasable: hand it to whoever came first."""
        row = self._status.get(command_id)
        if row is not None and self._queues:
            route = row.state.facts.route
            self._hand_over(route.deployment_id, route.target_id)

    def reopened(self, deployment_id: str) -> None:
        """Targets of a deployment may be open again: hand over what they have, as long as somebody waits for it."""
        for target_id in [target for deployment, target in self._queues if deployment == deployment_id]:
            while self._hand_over(deployment_id, target_id):
                pass

    def _hand_over(self, deployment_id: str, target_id: str | None) -> bool:
        """Hand the best command of a target, None: of the whole deployment, to whoever came first."""
        waiter = self._first(deployment_id, target_id)
        if waiter is None:
            return False
        queue = None if None in waiter.targets else target_id
        only = self.is_ours if self.left_to_others else None
        taken = self._pending.take(deployment_id, queue, 1, self._clock.now(), only)
        if taken:
            self._remove(waiter)
            waiter.handed.extend(taken)
            waiter.woken.set()
        return bool(taken)

    def is_ours(self, row: Row) -> bool:
        """Whether a command is not left to another node now."""
        return row.command_id not in self.left_to_others

    def give_back(self, command_ids: Iterable[str]) -> None:
        """Return reserved commands to the queue and offer them on."""
        ids = list(command_ids)
        self._pending.give_back(ids)
        for command_id in ids:
            self.offer(command_id)

    def _enqueue(self, waiter: Waiter) -> list[OrderedDict[int, Waiter]]:
        names = [(waiter.deployment_id, target) for target in waiter.targets]
        queues = [self._queues.setdefault(name, OrderedDict()) for name in names]
        for name, queue in zip(names, queues, strict=True):
            queue[waiter.ticket] = waiter
            self.on_change(name, len(queue))
        self._inside.add(waiter.ticket)
        return queues

    def _remove(self, waiter: Waiter) -> None:
        if waiter.ticket not in self._inside:
            return
        self._inside.remove(waiter.ticket)
        for target in waiter.targets:
            name = (waiter.deployment_id, target)
            queue = self._queues[name]
            del queue[waiter.ticket]
            self.on_change(name, len(queue))
            if not queue:
                del self._queues[name]

    def _first(self, deployment_id: str, target_id: str | None) -> Waiter | None:
        exact = self._queues.get((deployment_id, target_id))
        whole = self._queues.get((deployment_id, None)) if target_id != OPERATOR else None  # it never gets those
        heads = [next(iter(queue.values())) for queue in (exact, whole) if queue]
        return min(heads, key=lambda waiter: waiter.ticket, default=None)
