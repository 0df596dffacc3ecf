"""Which connections this process accepts, when several share one listening socket.

One socket, and so one backlog: what waits in it belongs to nobody, and is lost with nobody. Whoever is awake could
accept, and the busiest is awake most often; so a process that has more connections than another lets that one go first,
for a moment only: it may be frozen. A process that is replaying the journal leaves all of them to those that are ready.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final, Protocol

import trio

LET_GO_FIRST_SECONDS: Final = 0.002
"""How long a process with fewer connections has to take one that waits."""
NOT_OURS_SECONDS: Final = 0.02
"""Between two looks of a process that is not ready, while others are, at a connection that waits."""
TAKEN_SECONDS: Final = 0.05
"""When a connection that waited has not come by now, another process has it."""


class Neighbours(Protocol):
    """What processes that serve together see of each other."""

    @property
    def may_accept(self) -> bool:
        """Whether this process is ready, or none is: somebody must answer `/readyz`."""

    @property
    def others_have_fewer(self) -> bool:
        """Whether another one that is ready has fewer connections."""

    @property
    def applied_max(self) -> int:
        """The highest position that one of them has applied, and so may have answered with."""

    def connections(self, count: int) -> None:
        """This process has so many connections now."""

    def applied(self, position: int) -> None:
        """This process has applied everything up to here, and is ready."""

    def leave(self) -> None:
        """This process accepts no more."""


class Alone:
    """There is no other process."""

    may_accept = True
    others_have_fewer = False
    applied_max = 0

    def connections(self, count: int) -> None:
        """Nobody wants to know."""

    def applied(self, position: int) -> None:
        """Nobody wants to know."""

    def leave(self) -> None:
        """Nobody wants to know."""


ALONE: Final = Alone()


class SharedListener(trio.abc.Listener[trio.SocketStream]):
    """Accepts from a socket that others may accept from, too. open_count: how many connections there are now."""

    def __init__(self, listener: socket.socket, neighbours: Neighbours, open_count: Callable[[], int]) -> None:
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        self._neighbours = neighbours
        self._open_count = open_count

    async def accept(self) -> trio.SocketStream:
        """The next connection that is ours. Raises as trio's."""
        while True:
            self._neighbours.connections(self._open_count())
            await trio.lowlevel.wait_readable(self._listener.socket)
            if not self._neighbours.may_accept:
                await trio.sleep(NOT_OURS_SECONDS)
                continue
            if self._neighbours.others_have_fewer:
                await trio.sleep(LET_GO_FIRST_SECONDS)
            with trio.move_on_after(TAKEN_SECONDS):
                return await self._listener.accept()

    async def aclose(self) -> None:
        """Accept no more."""
        await self._listener.aclose()
