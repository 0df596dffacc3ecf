"""The real command line as a process, and a scripted service for it to talk to."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from arc_es.cli.main import main
from tests.cli.fake import FakeService, serving

ROOT = Path(__file__).parents[2]
Done: TypeAlias = subprocess.CompletedProcess[bytes]
Arc: TypeAlias = Callable[..., Done]


def environ(**more: str) -> dict[str, str]:
    """Ours without any ARC_ setting of the person who runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ARC_")}
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **more}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "arc_es", *arguments]


@contextmanager
def started(*arguments: str, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the background; killed at the end if it is still there."""
    process = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ(**more))
    try:
        with process:
            try:
                yield process
            finally:
                process.kill()
    finally:
        process.wait(10)


@pytest.fixture
def arc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Arc:
    """Runs `arc-es` to its end, in this process (ten times as fast) and in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: bytes = b"", **more: str) -> Done:
        for name in [name for name in os.environ if name.startswith("ARC_")]:
            monkeypatch.delenv(name)
        for name, value in {"COLUMNS": "100", **more}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfdbinary.readouterr()
        status = main(arguments)
        out, err = capfdbinary.readouterr()
        return subprocess.CompletedProcess(arguments, status, out, err)

    return run


@pytest.fixture
def fake() -> Iterator[FakeService]:
    with serving(FakeService()) as service:
        yield service
