"""Running one program for one command, in a process group of its own, with an end.

Whatever happens, nothing of the group is left when `run_program` returns or is cancelled: first SIGTERM, then SIGKILL.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from subprocess import PIPE
from typing import Final, cast

import trio
from trio.abc import ReceiveStream, SendStream

OUTPUT_BYTES_MAX: Final = 104_857_600
"""The largest storage object (`arc.v1` section 0)."""
STDERR_TAIL_BYTES: Final = 4_096
TERMINATE_SECONDS_MAX: Final = 2.0
"""From SIGTERM to SIGKILL."""
LAST_OUTPUT_SECONDS_MAX: Final = 1.0
"""After the end of a program its output is in the pipe already; only a process that left the group keeps it open."""
_CHUNK_BYTES: Final = 65_536
_SIGNAL_BASE: Final = 128


@dataclass(slots=True)
class Outcome:
    """exit_status: as a shell counts it, 128 + n for signal n; None if time or room was up."""

    exit_status: int | None = None
    output: bytearray = field(default_factory=bytearray)
    stderr_tail: bytearray = field(default_factory=bytearray)
    too_long: bool = False


async def run_program(
    arguments: Sequence[str], stdin: bytes, environ: Mapping[str, str], budget_seconds: float
) -> Outcome:
    """Run a program to its end, or to the end of its budget.

    Raises:
        OSError: it cannot be started.
    """
    outcome = Outcome()
    process = await trio.lowlevel.open_process(
        list(arguments), stdin=PIPE, stdout=PIPE, stderr=PIPE, env=dict(environ), start_new_session=True
    )
    try:
        with trio.move_on_after(budget_seconds) as budget:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_feed, cast("SendStream", process.stdin), stdin)
                nursery.start_soon(_collect, cast("ReceiveStream", process.stdout), outcome, budget)
                nursery.start_soon(_tail, cast("ReceiveStream", process.stderr), outcome)
                await process.wait()
                _signal_group(process.pid, signal.SIGKILL)
                budget.deadline = min(budget.deadline, trio.current_time() + LAST_OUTPUT_SECONDS_MAX)
        if process.returncode is not None and not outcome.too_long:
            outcome.exit_status = _as_shell(process.returncode)
    finally:
        with trio.CancelScope(shield=True):  # bounded by TERMINATE_SECONDS_MAX; SIGKILL cannot be refused
            await _end(process)
    return outcome


async def _feed(stream: SendStream, content: bytes) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # a program need not read its input
        async with stream:
            await stream.send_all(content)


async def _collect(stream: ReceiveStream, outcome: Outcome, budget: trio.CancelScope) -> None:
    while chunk := await stream.receive_some(_CHUNK_BYTES):
        outcome.output += chunk
        if len(outcome.output) > OUTPUT_BYTES_MAX:
            outcome.too_long = True
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
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            await stream.aclose()


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _as_shell(returncode: int) -> int:
    return returncode if returncode >= 0 else _SIGNAL_BASE - returncode
