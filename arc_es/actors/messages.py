"""Recently stored messages by position, bounded in bytes; what is not here is read from the journal.

Projections keep only where things are. The next append to a history needs the digest of its last message, a lease needs
the params, a status the answer: each is the content of a message whose position is known.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from arc_es.ports import Journal, JournalCorrupt

_OVERHEAD_BYTES: Final = 150
"""What an entry costs beside its payload, about."""


class Messages:
    """A cache in front of `Journal.read`; messages never change but by being erased, and then it is cleared."""

    def __init__(self, journal: Journal, bytes_max: int) -> None:
        self._journal = journal
        self._bytes_max = bytes_max
        self._bytes = 0
        self._recent: OrderedDict[int, bytes] = OrderedDict()

    def put(self, position: int, payload: bytes) -> None:
        """Remember a message; the oldest ones make room."""
        if position in self._recent:
            return
        self._recent[position] = payload
        self._bytes += len(payload) + _OVERHEAD_BYTES
        while self._bytes > self._bytes_max:
            _, dropped = self._recent.popitem(last=False)
            self._bytes -= len(dropped) + _OVERHEAD_BYTES

    def clear(self) -> None:
        """Forget all of them: something is not to be known any more."""
        self._recent.clear()
        self._bytes = 0

    async def get(self, position: int) -> bytes:
        """The payload at a position. Raises as `get_many`."""
        cached = self._recent.get(position)
        return cached if cached is not None else (await self.get_many([position]))[0]

    async def get_many(self, positions: Sequence[int]) -> list[bytes]:
        """The payloads at these positions, in order.

        Raises:
            JournalUnavailable: the journal cannot be reached.
            JournalCorrupt: a message that must be there is not.
        """
        missing = [position for position in positions if position not in self._recent]
        found = {position: self._recent[position] for position in positions if position in self._recent}
        if missing:
            for position, payload in zip(missing, await self._journal.read(missing), strict=True):
                if payload is None:
                    raise JournalCorrupt(f"Message {position} is gone from the journal")
                found[position] = payload
                self.put(position, payload)
        return [found[position] for position in positions]
