"""Long transfers on a terminal: bars on stderr while they last; elsewhere nothing is shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from arc_es.cli.output import printable

if TYPE_CHECKING:
    from arc_es.client.files import Moved

SHOWN_BYTES_MIN: Final = 1_000_000
"""Shorter transfers are over before anybody has read what a bar says."""


class Bars:
    """Bars of transfers that may run side by side."""

    def __init__(self) -> None:
        self._progress: Any = None
        self._count = 0

    @contextmanager
    def bar(self, what: str, size: int | None) -> Iterator[Moved]:
        """Shows one transfer of `size` bytes (None: nobody knows) inside the block, which says how far it is."""
        if not sys.stderr.isatty() or (size or 0) < SHOWN_BYTES_MIN:
            yield lambda _: None
            return
        progress = self._opened()
        task = progress.add_task(printable(what), total=size)
        try:
            yield lambda moved: progress.update(task, completed=moved)
        finally:
            progress.remove_task(task)
            self._close_unless_used()

    def _opened(self) -> Any:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._progress.start()
        self._count += 1
        return self._progress

    def _close_unless_used(self) -> None:
        self._count -= 1
        if self._count == 0:
            self._progress.stop()
            self._progress = None
