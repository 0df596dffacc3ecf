"""Running one program for one command, in a process group of its own, with an end.

Whatever happens, nothing of the group is left when `run_program` returns or is cancelled: first SIGTERM, then SIGKILL.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from subprocess import PIPE
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, Final, cast

import trio
from trio.abc import ReceiveStream

OUTPUT_BYTES_MAX: Final = 104_857_600
"""The largest storage object (`arc.v1` section 0)."""
STDERR_TAIL_BYTES: Final = 4_096
TERMINATE_SECONDS_MAX: Final = 2.0
"""From SIGTERM to SIGKILL."""
LAST_OUTPUT_SECONDS_MAX: Final = 1.0
"""After the end of a program its output is in the pipe already; only a process that left the group keeps it open."""
HELD_BYTES_MAX: Final = 1_000_000
"""Output up to this size is kept in memory, more in a temporary file."""
_CHUNK_BYTES: Final = 65_536
_SIGNAL_BASE: Final = 128


@dataclass(slots=True)
class Outcome:
    """exit_status: as a shell counts it, 128 + n for signal n; None if room was up.

    output: what the program printed, at most `OUTPUT_BYTES_MAX`. unkept: why the output could not be kept.
    """

    output: BinaryIO
    exit_status: int | None = None
    stderr_tail: bytearray = field(default_factory=bytearray)
    too_long: bool = False
    unkept: str | None = None


@contextmanager
def output_file() -> Iterator[BinaryIO]:
    """Where the output of a program is kept until it was answered."""
    with SpooledTemporaryFile(max_size=HELD_BYTES_MAX) as file:
        yield cast("BinaryIO", file)


async def run_program(
    arguments: Sequence[str], stdin: BinaryIO, output: BinaryIO, environ: Mapping[str, str]
) -> Outcome:
    """Run a program to its end, or until cancelled. stdin: a real file, which it gets as it is.

    Raises:
        OSError: it cannot be started.
    """
    outcome = Outcome(output)
    process = await trio.lowlevel.open_process(
        list(arguments), stdin=stdin, stdout=PIPE, stderr=PIPE, env=dict(environ), start_new_session=True
    )
    try:
        with trio.CancelScope() as budget:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_collect, cast("ReceiveStream", process.stdout), outcome, budget)
                nursery.start_soon(_tail, cast("ReceiveStream", process.stderr), outcome)
                await process.wait()
                _signal_group(process.pid, signal.SIGKILL)
                budget.deadline = min(budget.deadline, trio.current_time() + LAST_OUTPUT_SECONDS_MAX)
        if process.returncode is not None and not (outcome.too_long or outcome.unkept):
            outcome.exit_status = _as_shell(process.returncode)
    finally:
        with trio.CancelScope(shield=True):  # bounded by TERMINATE_SECONDS_MAX; SIGKILL cannot be refused
            await _end(process)
    return outcome


async def _collect(stream: ReceiveStream, outcome: Outcome, budget: trio.CancelScope) -> None:
    while chunk := await stream.receive_some(_CHUNK_BYTES):
        try:
            outcome.output.write(chunk)  # to the page cache: no slower than a thread that would do it
        except OSError as error:
            outcome.unkept = error.strerror
        outcome.too_long = outcome.output.tell() > OUTPUT_BYTES_MAX
        if outcome.unkept or outcome.too_long:
            budget.cancel()


async def _tail(stream: ReceiveStream, outcome: Outcome) -> None:
    """Pass the program's stderr on to ours, and keep the end of it."""
    while chunk := await stream.receive_some(_CHUNK_BYTES):
        sys.stderr.buffer.write(chunk)
        sys.stderr.buffer.flush()
        outcome.stderr_tail += chunk
        del outcome.stderr_tail[:-STDERR_TAIL_BYTES]


async def _end(process: trio.Process) -> None:
    if process.returncode is None:
        _signal_group(process.pid, signal.SIGTERM)
        with trio.move_on_after(TERMINATE_SECONDS_MAX):
            await process.wait()
        _signal_group(process.pid, signal.SIGKILL)
        await process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            await stream.aclose()


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _as_shell(returncode: int) -> int:
    return returncode if returncode >= 0 else _SIGNAL_BASE - returncode
