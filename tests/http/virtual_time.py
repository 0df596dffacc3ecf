"""Waiting costs nothing: tests run on a clock of trio's that jumps as soon as everybody waits."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock


def run(main: Any, *args: Any, **options: Any) -> Any:
    """`trio.run` in virtual time."""
    return trio.run(main, *args, **(options | {"clock": MockClock(autojump_threshold=0)}))


def use_virtual_time(items: Sequence[pytest.Item], folder: Path) -> None:
    """Let the async tests in a folder run in virtual time."""
    for item in items:
        if item.path.is_relative_to(folder) and inspect.iscoroutinefunction(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.trio(run=run), append=False)
