"""One line on a terminal about long work: how far it is, how fast, and how long it still takes."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from arc_es.snapshots.fold import Folded, Progress

_BAR_CHARS: Final = 30
_SHOW_SECONDS: Final = 0.2


class Bar:
    """How far one piece of work is. unit: what is counted. In a pipe it shows nothing.

    Speed and time left are measured from what was done when it was first told: work that begins in the middle, behind a
    snapshot, has not done the rest in no time.
    """

    def __init__(self, what: str, unit: str) -> None:
        self._what = what
        self._unit = unit
        self._first: tuple[float, float, int] | None = None
        self._shown_at = 0.0

    def show(self, done: float, total: float | None, count: int) -> None:
        """`done` of `total` (None: nobody knows), and `count` units so far."""
        now = time.monotonic()
        if not sys.stderr.isatty() or (self._first is not None and now < self._shown_at + _SHOW_SECONDS):
            return
        self._first = self._first or (now, done, count)
        self._shown_at = now
        print(f"\r{self.text(now, done, total, count)}\033[K", end="", file=sys.stderr, flush=True)

    def text(self, now: float, done: float, total: float | None, count: int) -> str:
        """The line at a time."""
        began, done_before, count_before = self._first = self._first or (now, done, count)
        seconds = now - began
        rate = f"{(count - count_before) / seconds:,.0f} {self._unit}/s" if seconds else f"{count:,} {self._unit}"
        if total is None:
            return f"{self._what} {count:,} {self._unit}, {rate}"
        share = min(1.0, done / total) if total else 1.0
        filled = round(share * _BAR_CHARS)
        speed = (done - done_before) / seconds if seconds else 0.0
        left = f", {max(0.0, total - done) / speed:.0f} s left" if speed else ""
        return f"{self._what} [{'#' * filled}{'.' * (_BAR_CHARS - filled)}] {share:4.0%} {rate}{left}"


def bar(what: str) -> Progress:
    """Shows how far a fold is."""
    shown = Bar(what, "events")

    def show(folded: Folded, end: int) -> None:
        shown.show(folded.position, end, folded.events)

    return show


def progress_end() -> None:
    """Clear the line."""
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
