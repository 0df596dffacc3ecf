"""Whether a group is cheaper as one atomic batch or as single messages.

A single message costs the server one fsync; a batch costs about four, and some files and directories made and removed.
How these compare depends on the disk and the file system (we have met 5 and 35 singles to a batch), so it is measured
as we go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST_GUESS_MESSAGES: Final = 8
"""As long as no batch is measured, larger groups go as one."""
SAMPLE_MESSAGES_MIN: Final = 4
"""In smaller groups of single messages the round trip outweighs what is measured."""
WEIGHT: Final = 0.2
"""Of a new sample against all older ones."""
BATCH_SHARE: Final = 1 / 8
"""What a message costs in a batch, beside the batch itself, against what it costs alone."""
FORGET: Final = 0.98
"""What one way once cost counts for less each time the other is taken, so that it is tried again some day."""
TRIAL_MESSAGES_MAX: Final = 100
"""A trial of single messages may not be larger: it might take long."""


@dataclass(slots=True)
class Pace:
    """Running estimates in seconds, 0 while unknown."""

    single_seconds: float = 0.0
    batch_seconds: float = 0.0

    def prefers_batch(self, plain: int, with_body: int) -> bool:
        """For a group of so many appends without and with a body (which needs one in any case)."""
        if with_body + plain <= 1:
            return False  # nothing to gain; and a refused batch is split until its parts are sent singly
        if with_body:
            return True
        if not self.single_seconds:
            return plain > TRIAL_MESSAGES_MAX
        if not self.batch_seconds:
            return plain > FIRST_GUESS_MESSAGES
        return plain * self.single_seconds * (1 - BATCH_SHARE) > self.batch_seconds

    def measured_singles(self, messages: int, seconds: float) -> None:
        """A group of single messages took so long."""
        if messages >= SAMPLE_MESSAGES_MIN:
            self.single_seconds = _mean(self.single_seconds, seconds / messages)
            self.batch_seconds *= FORGET

    def measured_batch(self, messages: int, seconds: float) -> None:
        """A batch took so long."""
        fixed = max(seconds - messages * self.single_seconds * BATCH_SHARE, self.single_seconds)
        self.batch_seconds = _mean(self.batch_seconds, fixed)
        if messages <= TRIAL_MESSAGES_MAX:
            self.single_seconds *= FORGET


def _mean(old: float, new: float) -> float:
    return new if not old else old + WEIGHT * (new - old)
