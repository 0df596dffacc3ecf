"""Which of the nodes on one journal tries a thing first, so that they do not fight for it.

Nothing here decides what is right: the expected version of an append does. It only decides who waits a moment. Each
node tells the others, over and over, that it lives and for which queues agents ask it; whoever is not heard for a while
is gone. What is said wrongly, late or not at all costs a conflict, or a short delay.
"""

from __future__ import annotations

import math
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from zlib import crc32

import orjson
import trio

from arc_es.domain.ids import OPERATOR, Micros
from arc_es.domain.state import Route

BEAT_SECONDS: Final = 1.0
"""How often a node says that it lives."""
SILENT_SECONDS_MAX: Final = 3.0
"""A node that was not heard for so long is gone."""
ASKED_SECONDS: Final = 2.5
"""So long after an agent asked, a node counts as one that is asked for this queue."""
QUEUES_TOLD_MAX: Final = 1_000
"""Queues that one message tells of. Of the others is told when something changes."""
POLLS_REMEMBERED_MAX: Final = 100_000

Queue = tuple[str, str | None]
"""Deployment and target; None: all targets of the deployment."""


@dataclass(slots=True)
class Asked:
    """What is known of one queue at one node: how many agents wait, when one asked last, and which."""

    waiting: int = 0
    at: Micros = 0
    agent: str | None = None
    until: float = -math.inf
    """When this is too old to count."""


@dataclass(slots=True)
class _Node:
    """Another node."""

    until: float
    queues: dict[int, Asked] = field(default_factory=dict)

    def knows(self, number: int, now: float) -> bool:
        """Whether it is asked for a queue, as far as we know."""
        found = self.queues.get(number)
        return found is not None and found.until >= now


class Peers:
    """One of a node. tell: takes what the others shall hear; until somebody sets it, there are none."""

    def __init__(self) -> None:
        self.node = secrets.token_hex(6)
        self.tell: Callable[[bytes], None] = lambda message: None
        self._mine: OrderedDict[int, Asked] = OrderedDict()
        self._others: dict[str, _Node] = {}
        self._polls: OrderedDict[int, Asked] = OrderedDict()

    # --- what happens here

    def asked(self, queue: Queue, at: Micros, agent: str | None) -> None:
        """An agent has asked for work."""
        found = self._known(_number(queue))
        is_news = found.until < trio.current_time()
        found.at, found.agent, found.until = at, agent, trio.current_time() + ASKED_SECONDS
        if is_news and self._others:
            self._tell([_number(queue)])

    def waits(self, queue: Queue, count: int) -> None:
        """So many agents wait for a queue now."""
        found = self._known(_number(queue))
        is_news = (found.waiting == 0) is not (count == 0)
        found.waiting = count
        if is_news and self._at_others(queue):  # nobody else wants to know
            self._tell([_number(queue)])

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            self.beat()
            await trio.sleep(BEAT_SECONDS)

    def beat(self) -> None:
        """Say that this node lives, and which queues it is asked for; forget who does not."""
        now = trio.current_time()
        self._others = {name: node for name, node in self._others.items() if node.until >= now}
        for node in self._others.values():
            node.queues = {number: found for number, found in node.queues.items() if found.until >= now}
        self._tell([number for number, found in self._mine.items() if found.waiting or found.until >= now])

    def leave(self) -> None:
        """Say that this node is about to end, and nothing more after that."""
        self.tell(orjson.dumps({"node": self.node, "gone": True}))
        self.tell = lambda message: None

    def _known(self, number: int) -> Asked:
        found = self._mine.get(number)
        if found is None:
            found = self._mine[number] = Asked()
            while len(self._mine) > POLLS_REMEMBERED_MAX:
                self._mine.popitem(last=False)
        return found

    def _tell(self, numbers: list[int]) -> None:
        queues = [
            (number, found.waiting, found.at, found.agent)
            for number in numbers[-QUEUES_TOLD_MAX:]
            if (found := self._mine.get(number)) is not None
        ]
        self.tell(orjson.dumps({"node": self.node, "queues": queues}))

    # --- what is heard of others

    def heard(self, message: bytes) -> None:
        """A node has told something; our own voice is ignored."""
        told = orjson.loads(message)
        name = told["node"]
        if name == self.node:
            return
        if told.get("gone"):
            self._others.pop(name, None)
            return
        now = trio.current_time()
        is_new = name not in self._others
        node = self._others.setdefault(name, _Node(now))
        node.until = now + SILENT_SECONDS_MAX
        news = [number for number, *_ in told["queues"] if number in self._mine and not node.knows(number, now)]
        for number, waiting, at, agent in told["queues"]:
            node.queues[number] = found = Asked(waiting, at, agent, now + ASKED_SECONDS)
            self._polls[number] = found
            self._polls.move_to_end(number)
        while len(self._polls) > POLLS_REMEMBERED_MAX:
            self._polls.popitem(last=False)
        if is_new:
            self.beat()  # it knows nothing of us
        elif news:
            self._tell(news)  # it did not want to know before

    @property
    def alone(self) -> bool:
        """Whether there is no other node, as far as we know."""
        return not self._others

    def waiting(self, queue: Queue) -> int:
        """How many agents wait for a queue at other nodes."""
        return sum(found.waiting for found in self._at_others(queue))

    def last_asked(self, queue: Queue) -> Asked | None:
        """When an agent asked last for a queue at another node."""
        return self._polls.get(_number(queue))

    def _at_others(self, queue: Queue) -> list[Asked]:
        number, now = _number(queue), trio.current_time()
        return [
            found
            for node in self._others.values()
            if (found := node.queues.get(number)) is not None and found.until >= now <= node.until
        ]

    # --- who goes first

    def is_first(self, command_id: str) -> bool:
        """Whether this node is the first of all to try something with a command."""
        now = trio.current_time()
        return self._is_first(command_id, [name for name, node in self._others.items() if node.until >= now])

    def leases_first(self, command_id: str, route: Route) -> bool:
        """Whether this node is the first of those that are asked for a command's queue to lease it."""
        if not self._others:
            return True
        return self._is_first(command_id, self._asked_for(route, waiting=False))

    def others_wait(self, command_id: str, route: Route, *, here: bool) -> bool:
        """Whether agents wait for a command at another node that is to hand it out first; here: some wait here, too."""
        if not self._others:
            return False
        waiting = self._asked_for(route, waiting=True)
        return bool(waiting) and not (here and self._is_first(command_id, waiting))

    def _asked_for(self, route: Route, *, waiting: bool) -> list[str]:
        numbers = [_number((route.deployment_id, route.target_id))]
        if route.target_id != OPERATOR:
            numbers.append(_number((route.deployment_id, None)))
        now = trio.current_time()
        return [
            name
            for name, node in self._others.items()
            if node.until >= now and any(_counts(node.queues.get(number), now, waiting) for number in numbers)
        ]

    def _is_first(self, command_id: str, others: list[str]) -> bool:
        names = sorted((self.node, *others))
        return names[crc32(command_id.encode()) % len(names)] == self.node


def _counts(found: Asked | None, now: float, waiting: bool) -> bool:  # noqa: FBT001 - by position, it is called a lot
    return found is not None and found.until >= now and (found.waiting > 0 or not waiting)


def _number(queue: Queue) -> int:
    """A queue as messages name it. Two with one number are taken for one: a hint that is not quite right."""
    deployment_id, target_id = queue
    return crc32(f"{deployment_id}\0{target_id or ''}".encode())
