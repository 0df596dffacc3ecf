"""Requests that are held open: all of them end early when the service is about to stop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import trio


class LongWaits:
    """The scopes of all long waits under way."""

    def __init__(self) -> None:
        self.draining = False
        self._scopes: set[trio.CancelScope] = set()

    def drain(self) -> None:
        """End all long waits now, and every later one at once: answer with what there is."""
        self.draining = True
        for scope in self._scopes:
            scope.cancel()

    @contextmanager
    def until(self, deadline: float) -> Iterator[None]:
        """A scope that ends at the deadline (of trio's clock), or when the service drains."""
        with trio.CancelScope(deadline=-math.inf if self.draining else deadline) as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)
