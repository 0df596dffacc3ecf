"""How long to rest before the next attempt: exponential, capped, with jitter given as an argument."""

from __future__ import annotations

from arc_es.domain.events import RetryPolicy
from arc_es.domain.ids import Micros
from arc_es.domain.limits import SECOND


def delay(policy: RetryPolicy, attempt: int, jitter: float) -> Micros:
    """The rest after attempt number `attempt` (1 is the first), in microseconds.

    Args:
        policy: initial, factor and cap.
        attempt: the attempt that ended, at least 1.
        jitter: 0 to 1; the delay is taken between half (0) and the whole (1) of the computed step.
    """
    try:
        step = policy.initial_seconds * policy.factor ** (attempt - 1)
    except OverflowError:  # a step beyond all floats is beyond the cap
        step = policy.max_seconds
    return int(min(step, policy.max_seconds) * (0.5 + 0.5 * jitter) * SECOND)
