"""Callers and workers of the SDK as processes: `python -m tests.e2e.sdk_crowd call|work BACKEND URL ARGUMENT`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import anyio

from arc_es.client import ArcError, Caller, Context, GiveBack, SyncContext, Worker

LEASE_SECONDS = 3
LARGE_BYTES = 200_000
PAUSE_SECONDS = 0.25
COMMANDS = ("quick", "slow", "thread", "large", "picky")


def worker_of(url: str, journal: Path) -> Worker:
    """A worker that writes down each run of a handler before anything else."""
    worker = Worker(
        url,
        deployment="e2e",
        target="sdk",
        concurrency=8,
        lease_seconds=LEASE_SECONDS,
        wait_seconds=5,
        drain_seconds=5,
        notes=journal.with_suffix(f".{os.getpid()}.notes"),
    )

    def note(ctx: Context | SyncContext) -> None:
        with journal.open("a") as file:
            file.write(json.dumps([ctx.command_id, ctx.attempt, ctx.command, os.getpid()]) + "\n")

    @worker.command("quick")
    async def quick(params: int, ctx: Context) -> int:
        note(ctx)
        return params + 1

    @worker.command("slow")
    async def slow(params: int, ctx: Context) -> int:
        note(ctx)
        await anyio.sleep(1.4 * LEASE_SECONDS)  # not without a renewal
        return params + 1

    @worker.command("thread")
    def thread(params: int, ctx: SyncContext) -> int:
        note(ctx)
        for _ in range(20):
            time.sleep(0.1)
            ctx.alive()
        return params + 1

    @worker.command("large")
    async def large(params: bytes, ctx: Context) -> bytes:
        note(ctx)
        return params[::-1]

    @worker.command("picky")
    async def picky(params: int, ctx: Context) -> int:
        note(ctx)
        if ctx.attempt == 1:
            raise GiveBack
        return params + 1

    return worker


def params_of(name: str, number: int) -> Any:
    """What a command is called with."""
    return number.to_bytes(4, "big") * (LARGE_BYTES // 4) if name == "large" else number


async def call_all(url: str, count: int) -> None:
    """Call so many commands, a few each second; a line of JSON for each that ended: id, name, whether it is right."""

    async def call(arc: Caller, number: int) -> None:
        name = COMMANDS[number % len(COMMANDS)]
        params = params_of(name, number)
        await anyio.sleep(number * PAUSE_SECONDS)
        command = await arc.create("e2e", name, params, target="sdk", key=f"{name}-{number}")
        returns = bytes if name == "large" else int
        try:
            result = await command.result(returns, timeout=None)
        except ArcError as error:
            told = repr(error)
        else:
            told = "right" if result == (params[::-1] if name == "large" else number + 1) else repr(result)[:100]
        print(json.dumps([command.id, name, told]), flush=True)

    async with Caller(url) as arc, anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(call, arc, number)


def main() -> None:
    """Do one role until it is over, or until SIGTERM."""
    role, backend, url, argument = sys.argv[1:]
    options: dict[str, Any] = {"loop_factory": asyncio.SelectorEventLoop} if backend == "asyncio" else {}

    async def run() -> None:
        if role == "call":
            await call_all(url, int(argument))
        else:
            await worker_of(url, Path(argument)).run(signals=True)

    anyio.run(run, backend=backend, backend_options=options)


if __name__ == "__main__":
    main()
