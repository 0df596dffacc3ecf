"""Running one of our own sub-commands beside the service, in a process of its own, so that no request waits for it.

It ends with us, whatever happens to us: its stdin is a pipe that only we hold, and `--attached` has it end with that.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from subprocess import PIPE
from typing import Final, TypeAlias

import trio
from trio.abc import ReceiveStream

from arc_es.config import Config

NICENESS: Final = 10
"""It has time; requests have not."""
OUTPUT_BYTES_MAX: Final = 64 * 1024 * 1024
END_SECONDS_MAX: Final = 5.0
_READ_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child has ended. last_words: the last line that it wrote to stderr."""

    status: int
    output: bytes
    last_words: str


Aside: TypeAlias = Callable[[Sequence[str]], Awaitable[Ended]]
"""Runs `arc-es` with these arguments to its end. Raises as `run_child`."""


class OutputTooLong(Exception):
    """A child printed more than we keep."""


def aside_of(config: Config) -> Aside:
    """Runs `arc-es` on the journal of a service with these settings."""
    environ = {
        "ARC_DATA_DIR": str(config.data_dir.absolute()),
        "ARC_FINISHED_IN_MEMORY_MAX": str(config.finished_in_memory_max),
        "ARC_SNAPSHOT_SHARED": str(config.snapshot_shared).lower(),
        "ARC_REPLICAS": str(config.replicas),
    }
    if config.nats_url is not None:
        environ["ARC_NATS_URL"] = config.nats_url

    async def aside(arguments: Sequence[str]) -> Ended:
        return await run_child(arguments, environ)

    return aside


async def run_child(arguments: Sequence[str], environ: Mapping[str, str]) -> Ended:
    """Run `arc-es` with these arguments to its end; cancelled, the child is killed.

    Raises:
        OSError: it cannot be started.
        OutputTooLong: it was killed for that.
    """
    command = [sys.executable, "-m", "arc_es", *arguments, "--attached"]
    process = await trio.lowlevel.open_process(
        command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env={**os.environ, **environ}, start_new_session=True
    )
    output, said = bytearray(), bytearray()
    try:
        with suppress(OSError):  # it has ended already, or priorities are not ours to set
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        assert process.stdout is not None, "a pipe was asked for"
        assert process.stderr is not None, "a pipe was asked for"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_tail, process.stderr, said)
            nursery.start_soon(_collect, process.stdout, output)
            await process.wait()
    except* OutputTooLong as group:
        raise OutputTooLong(str(group.exceptions[0])) from None
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + END_SECONDS_MAX):
            process.kill()
            await process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with trio.CancelScope(shield=True):  # closing a pipe does not wait
                    await stream.aclose()
    lines = said.decode(errors="replace").strip().splitlines()
    return Ended(process.returncode or 0, bytes(output), lines[-1] if lines else "")


async def _collect(stream: ReceiveStream, into: bytearray) -> None:
    while chunk := await stream.receive_some(_READ_BYTES):
        into += chunk
        if len(into) > OUTPUT_BYTES_MAX:
            raise OutputTooLong("It printed too much")


async def _tail(stream: ReceiveStream, into: bytearray) -> None:
    while chunk := await stream.receive_some(_READ_BYTES):
        into += chunk
        del into[:-_READ_BYTES]
