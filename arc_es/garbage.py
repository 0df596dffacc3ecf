"""The garbage collector in a process that holds millions of objects without a single cycle."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

COLLECT_AFTER: Final = (10_000, 2, 2)
"""Young objects between two collections, and how many of those make an older one. Python's own 700 is less than two
requests make; and the fewer objects a full collection finds that are not frozen yet, the shorter it is."""


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Replay without the cyclic collector; afterwards it never looks at what was loaded, nor twice at what stays.

    Projections hold millions of objects without a single cycle. Scanning them would stop every request for a second.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)
        gc.enable()
        if freeze_survivors not in gc.callbacks:
            gc.callbacks.append(freeze_survivors)


def freeze_survivors(phase: str, info: dict[str, int]) -> None:
    """After a full collection what is left stays: never look at it again."""
    oldest_generation = 2
    if phase == "stop" and info["generation"] == oldest_generation:
        gc.freeze()
