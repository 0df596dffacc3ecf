"""Trying again: exponential back-off with jitter, obeying Retry-After."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import anyio

from arc_es.client.errors import ArcError

T = TypeVar("T")
_EXPONENT_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to rest between attempts. Half of each rest is random, so that clients do not come back in step."""

    initial_seconds: float = 0.2
    factor: float = 2.0
    max_seconds: float = 10.0

    def delay_seconds(self, failures: int, error: ArcError | None = None) -> float:
        """The rest after `failures` failures in a row (at least 1); never shorter than the server asked, up to 60 s."""
        step = min(self.initial_seconds * self.factor ** min(failures - 1, _EXPONENT_MAX), self.max_seconds)
        asked = error.retry_after_seconds if error and error.retry_after_seconds else 0.0
        return max(step * random.uniform(0.5, 1.0), min(asked, 60.0))  # noqa: S311 - not a secret


async def retrying(
    operation: Callable[[], Awaitable[T]],
    *,
    backoff: Backoff = Backoff(),
    on_retry: Callable[[ArcError, float], None] | None = None,
) -> T:
    """Repeat a request while its errors are retryable. The caller's cancel scope is the bound.

    Args:
        operation: makes a new awaitable for each attempt; must be safe to repeat.
        backoff: the rests between.
        on_retry: told of each error, and of the seconds until the next attempt.

    Raises:
        ArcError: the first one that is not retryable.
    """
    failures = 0
    while True:
        try:
            return await operation()
        except ArcError as error:
            if not error.retryable:
                raise
            failures += 1
            delay_seconds = backoff.delay_seconds(failures, error)
            if on_retry is not None:
                on_retry(error, delay_seconds)
        await anyio.sleep(delay_seconds)
