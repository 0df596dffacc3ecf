"""How much room a journal has left, and whether new commands may have some of it.

What is started must be able to end. So new commands are refused while there is still room for leases, renewals and
answers of those that live: the head-room. The body store that shares the room leaves it, too. See
docs/decisions/head-room.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from arc_es.ports import BodyKind

HEADROOM_SHARE: Final = 1 / 10
"""Of the limit."""
HEADROOM_SHARE_BYTES_MAX: Final = 1024**3
REOPEN: Final = 5 / 4
"""New commands are taken again when this much more than the head-room is left: no flapping at the edge."""
LIVE_BYTES: Final = 4_096
"""What a command may still need: to be leased (some 0.8 KB), and a small answer."""
LEFT_BY_BODIES: Final[Mapping[BodyKind, float]] = {"params": 1, "response": 1 / 2}
"""How much of the head-room large bodies leave; an answer ends a command, so it may have some."""
MARGIN_SHARE: Final = 1 / 20
MARGIN_BYTES_MAX: Final = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class Bound:
    """Something that may fill up. hard: it must never be reached, because what happens there is not clean; and it is
    shared with the body store."""

    limit_bytes: int
    used_bytes: int
    hard: bool = False

    @property
    def left_bytes(self) -> int:
        """May be negative: a limit that was lowered."""
        return self.limit_bytes - self.used_bytes

    @property
    def margin_bytes(self) -> int:
        """How near we go."""
        return min(int(self.limit_bytes * MARGIN_SHARE), MARGIN_BYTES_MAX) if self.hard else 0


class Room:
    """What is left below the bounds. Appends are counted as they go, so that nobody need ask after each.

    headroom_bytes: what new commands must leave; -1: a share of the limit, or what the live commands need if that is
    more.
    """

    def __init__(self, headroom_bytes: int = -1) -> None:
        self._headroom_bytes = headroom_bytes
        self._bounds: tuple[Bound, ...] = ()
        self._appended_bytes = self._beside_bytes = 0
        self._spacious = True
        self.live: Callable[[], int] = lambda: 0
        """How many commands have not come to an end."""

    def looked(self, bounds: Iterable[Bound]) -> None:
        """This is how things stand, with all that was appended up to now."""
        self._bounds = tuple(bounds)
        self._appended_bytes = self._beside_bytes = 0

    def appended(self, size_bytes: int) -> None:
        """So much was appended since."""
        self._appended_bytes += size_bytes

    def take_beside(self, size_bytes: int, kind: BodyKind) -> bool:
        """Whether the body store may store so much of a body in the same room; if so, it counts as stored."""
        share = LEFT_BY_BODIES[kind]
        live = self.live()
        shared = [bound for bound in self._bounds if bound.hard]
        if any(self._left(bound) - size_bytes < share * self._headroom(bound, live) for bound in shared):
            return False
        self._beside_bytes += size_bytes
        return True

    @property
    def stale(self) -> bool:
        """Whether what was appended since is so much of what was left that somebody should look."""
        return any(4 * self._appended_bytes > bound.left_bytes for bound in self._bounds)

    def fits(self, size_bytes: int) -> bool:
        """Whether so much may be appended at all. It may be stored twice: a batch is staged before it is committed."""
        return all(not bound.hard or self._left(bound) >= 2 * size_bytes for bound in self._bounds)

    @property
    def spacious(self) -> bool:
        """See `ports.Journal.spacious`."""
        factor = 1 if self._spacious else REOPEN
        live = self.live()
        self._spacious = all(self._left(bound) >= factor * self._headroom(bound, live) for bound in self._bounds)
        return self._spacious

    def _left(self, bound: Bound) -> int:
        stored_since = self._appended_bytes + (self._beside_bytes if bound.hard else 0)
        return bound.left_bytes - bound.margin_bytes - stored_since

    def _headroom(self, bound: Bound, live: int) -> float:
        if self._headroom_bytes >= 0:
            return self._headroom_bytes
        return max(min(bound.limit_bytes * HEADROOM_SHARE, HEADROOM_SHARE_BYTES_MAX), live * LIVE_BYTES)
