"""A service of our own for a benchmark: real, on a temporary directory, killed and started again for a replay."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

STOP_SECONDS_MAX: Final = 20
_READY: Final = re.compile(r"ready on (http://\S+)")


class OwnService:
    """`arc-es serve` with its own nats-server, fsync always, on free ports. url: where it listens."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> float:
        """Start it; the seconds until it was ready. Raises OSError if it ends instead."""
        began = time.perf_counter()
        serve = [sys.executable, "-m", "arc_es", "serve", "--bind", "127.0.0.1:0", "--log-level", "ERROR"]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ARC_")}
        self._process = subprocess.Popen(
            [*serve, "--data-dir", str(self._folder / "data")],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=kept,
            cwd=self._folder,
        )
        assert self._process.stdout is not None
        found = _READY.search(self._process.stdout.readline())
        if found is None:
            raise OSError("the service did not start; arc-es doctor may know why")
        self.url = found[1]
        return time.perf_counter() - began

    def kill(self) -> None:
        """SIGKILL, as power failures come."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def own_service() -> Iterator[OwnService]:
    """A service that lives as long as the block, and leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix="arc-es-bench-") as folder:
        service = OwnService(Path(folder))
        try:
            service.start()
            yield service
        finally:
            service.stop()
