"""Pauses by Python's garbage collector with many commands loaded, with and without freezing what was loaded.

python -m tests.bench.pauses [--commands 200000]

Loads commands into the projections, then folds new ones, as a busy service would, and times every collection.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

from arc_es.garbage import freeze_survivors, no_garbage_collection
from projections import Projections
from tests.bench.drive import percentile
from tests.bench.fold import Stored, fold, history

PIECE = 200
"""Commands between two clock readings: what one busy tenth of a second brings."""


@contextmanager
def timed_collections(pauses: list[float]) -> Iterator[None]:
    """Record the seconds of every collection."""
    started = 0.0

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal started
        if phase == "start":
            started = time.perf_counter()
        else:
            pauses.append(time.perf_counter() - started)

    gc.callbacks.append(note)
    try:
        yield
    finally:
        gc.callbacks.remove(note)


def pauses_after_load(loaded: list[Stored], more: list[list[Stored]], *, frozen: bool) -> list[float]:
    """The pauses while half as many commands as are loaded run through their lives."""
    models = Projections()
    gc.collect()
    if frozen:
        with no_garbage_collection():
            fold(models, loaded)
    else:
        fold(models, loaded)
    pauses: list[float] = []
    garbage: list[object] = []
    with timed_collections(pauses):
        for piece in more:
            fold(models, piece)
            garbage = [[garbage[-1:]] for _ in range(PIECE)]  # what requests leave behind
    gc.unfreeze()
    gc.set_threshold(700, 10, 10)
    if freeze_survivors in gc.callbacks:
        gc.callbacks.remove(freeze_survivors)
    return pauses


def pieces(commands: int) -> list[list[Stored]]:
    """Whole lives of that many commands, a few at a time."""
    creates, answers = history(commands)
    return [
        creates[start : start + PIECE] + answers[2 * start : 2 * (start + PIECE)] for start in range(0, commands, PIECE)
    ]


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=200_000)
    commands = parser.parse_args().commands
    creates, answers = history(commands)
    more = pieces(commands // 2)
    worst = {}
    for name, frozen in (("floor: as Python comes", False), ("frozen after loading", True)):
        pauses = pauses_after_load(creates + answers, more, frozen=frozen) or [0.0]
        worst[frozen] = max(pauses)
        print(
            f"{name:34} {len(pauses):5} collections, p99 {percentile(pauses, 0.99) * 1e3:8.2f} ms,"
            f" longest {max(pauses) * 1e3:8.2f} ms"
        )
    share = worst[True] / worst[False]
    print(f"{'longest pause, share of the floor':34} {share:8.3f} with {commands:,} commands loaded")


if __name__ == "__main__":
    main()
