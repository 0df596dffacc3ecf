"""Random bytes for ids and salts, fetched from the system many at once: one by one they cost more than their use."""

from __future__ import annotations

import os
import uuid
from typing import Final

POOL_BYTES: Final = 4_096


class _Pool:
    """Bytes that nobody has had yet."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Throw away what is left: a forked process must not hand out the same."""
        self._bytes = b""
        self._at = 0

    def take(self, count: int) -> bytes:
        """So many of them, at most `POOL_BYTES`."""
        end = self._at + count
        if end > len(self._bytes):
            self._bytes, end = os.urandom(POOL_BYTES), count
        taken, self._at = self._bytes[end - count : end], end
        return taken


_pool: Final = _Pool()
os.register_at_fork(after_in_child=_pool.clear)


def token_bytes(count: int) -> bytes:
    """As `secrets.token_bytes`."""
    return _pool.take(count)


def uuid4() -> uuid.UUID:
    """As `uuid.uuid4`."""
    return uuid.UUID(bytes=_pool.take(16), version=4)
