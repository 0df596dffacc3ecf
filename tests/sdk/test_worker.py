"""A worker and a caller over the real service in this process: what handlers get, and what becomes of what they do."""

from __future__ import annotations

import threading
import time
from functools import partial
from io import BytesIO
from typing import Any, BinaryIO

import anyio
import pytest

from arc_es.client import (
    CommandError,
    Context,
    FileBody,
    GiveBack,
    Stopped,
    SyncContext,
    Worker,
)
from arc_es.testing import LocalService, open_service
from tests.sdk.conftest import Run, until
from tests.sdk.driver import HERE, Called, Day, Rows, worked


def test_params_and_result_have_the_types_of_the_handler(run: Run) -> None:
    async def build(params: Day, ctx: Context) -> Rows:
        return Rows(len(params.day), ctx.attempt)

    def plain(params: Day) -> list[str]:
        return [params.day, threading.current_thread().name]

    async def nothing() -> None:
        return None

    async def test(called: Called) -> None:
        assert await called.call("build", {"day": "abc"}, returns=Rows) == Rows(3, 1)
        assert await called.call("build", Day("abcd")) == {"rows": 4, "attempt": 1}
        assert await called.call("plain", Day("x"), returns=list[str]) == ["x", "arc-es handler plain"]
        assert await called.call("nothing") is None

    worked(run, {"build": (build, {}), "plain": (plain, {}), "nothing": (nothing, {})}, test)


def test_large_bodies_go_through_storage_and_nobody_notices(run: Run) -> None:
    async def double(params: bytes) -> bytes:
        return params * 2

    async def reversed_file(params: BinaryIO, ctx: Context) -> FileBody:
        return FileBody(BytesIO(params.read()[::-1]))

    async def test(called: Called) -> None:
        raw = bytes(range(256)) * 1_000
        assert await called.call("double", raw, returns=bytes) == raw * 2
        assert await called.call("file", raw, returns=bytes) == raw[::-1]
        assert await called.call("file", FileBody(BytesIO(b"abc")), returns=bytes) == b"cba"

    worked(run, {"double": (double, {}), "file": (reversed_file, {})}, test)


def test_what_goes_wrong_has_the_codes_of_the_protocol(run: Run) -> None:
    async def build(params: Day) -> int:
        return len(params.day)

    async def crash() -> None:
        raise KeyError("k")

    async def refuse() -> None:
        async with anyio.create_task_group() as group:

            async def inside() -> None:
                raise CommandError("DB_DOWN", "no connection", "pool exhausted \ud800")

            group.start_soon(inside)

    async def test(called: Called) -> None:
        assert (await called.failure("unknown")).code == "UNKNOWN_COMMAND"
        misfit = await called.failure("build", {"night": 1})
        assert (misfit.code, misfit.message) == ("INVALID_ENVELOPE", "params.day is missing")
        crashed = await called.failure("crash")
        assert (crashed.code, crashed.message) == ("HANDLER_ERROR", "KeyError: 'k'")
        refused = await called.failure("refuse")
        assert (refused.code, refused.message, refused.details) == ("DB_DOWN", "no connection", "pool exhausted ?")

    worked(run, {"build": (build, {}), "crash": (crash, {}), "refuse": (refuse, {})}, test)


def test_a_handler_of_all_commands_takes_those_without_one(run: Run) -> None:
    async def main() -> None:
        async with open_service() as service:
            worker = service.worker(**HERE)

            @worker.any_command()
            async def anything(params: Any, ctx: Context) -> str:
                return ctx.command

            async with service.working(worker), service.caller() as arc:
                assert await arc.call("dep", "whatever", target="indexer") == "whatever"

    run(main)


def test_a_handler_that_takes_too_long_is_stopped_and_answered(run: Run) -> None:
    stopped: list[str] = []

    async def slow(params: Any, ctx: Context) -> None:
        try:
            await anyio.sleep(3_000)
        finally:
            stopped.append("async")

    def slow_thread(params: Any, ctx: SyncContext) -> None:
        try:
            while True:
                ctx.alive()
                time.sleep(0.01)
        except Stopped:
            stopped.append("thread")
            raise

    async def test(called: Called) -> None:
        assert (await called.failure("slow")).code == "HANDLER_TIMEOUT"
        assert (await called.failure("thread")).code == "HANDLER_TIMEOUT"
        await until(lambda: not called.worker.running and len(stopped) == 2)
        assert stopped == ["async", "thread"]

    worked(run, {"slow": (slow, {"timeout": 0.2}), "thread": (slow_thread, {"timeout": 0.2})}, test)


def test_giving_back_makes_another_attempt(run: Run) -> None:
    async def picky(params: Any, ctx: Context) -> int:
        if ctx.attempt < 3:
            raise GiveBack
        return ctx.attempt

    async def test(called: Called) -> None:
        assert await called.call("picky") == 3
        assert await called.told(3) == ["released", "released", "succeeded"]

    worked(run, {"picky": (picky, {})}, test)


def test_a_note_is_there_in_the_next_attempt_and_gone_after_the_answer(run: Run) -> None:
    found: list[bytes | None] = []

    async def step(params: Any, ctx: Context) -> None:
        found.append(await ctx.read_note())
        if ctx.attempt == 1:
            await ctx.write_note(b"half done")
            raise GiveBack

    def plain_step(params: Any, ctx: SyncContext) -> None:
        found.append(ctx.read_note())
        if ctx.attempt == 1:
            ctx.write_note(b"in a thread")
            raise GiveBack

    async def test(called: Called) -> None:
        await called.call("step")
        await called.call("plain")
        await called.told(4)
        assert found == [None, b"half done", None, b"in a thread"]
        assert called.worker._notes.read(called.outcomes[-1].command_id) is None

    worked(run, {"step": (step, {}), "plain": (plain_step, {})}, test)


def test_many_creates_leave_together_and_one_alone_at_once(run: Run) -> None:
    async def main() -> None:
        async with open_service() as service, service.caller() as arc:
            alone = await arc.create("dep", "alone", target="indexer")
            made: set[str] = {alone.id}

            async def create(number: int) -> None:
                made.add((await arc.create("dep", "many", number, target="indexer")).id)

            async with anyio.create_task_group() as group:
                for number in range(100):
                    group.start_soon(create, number)
            assert len(made) == 101
            asked = [*service.line.asked]
            assert asked[0] == "POST /v1/commands"
            assert asked.count("POST /v1/commands") <= 3, "the one alone, and the first of each connection"
            assert 1 <= asked.count("POST /v1/commands/batch") <= 4

    run(main)


def test_a_plain_script_calls_from_a_thread(run: Run) -> None:
    def script(service: LocalService) -> tuple[Any, Any, str]:
        with service.sync_caller() as arc:
            command = arc.create("dep", "twice", 4, target="indexer")
            return arc.call("dep", "twice", 3, target="indexer"), command.result(int), command.refresh()["state"]

    async def twice(params: int) -> int:
        return params * 2

    async def test(called: Called) -> None:
        assert await anyio.to_thread.run_sync(script, called.service) == (6, 8, "SUCCEEDED")

    worked(run, {"twice": (twice, {})}, test)


def test_many_answers_leave_together(run: Run) -> None:
    async def quick(params: int) -> int:
        return params

    async def test(called: Called) -> None:
        async with called.service.caller() as arc, anyio.create_task_group() as group:
            for number in range(60):
                group.start_soon(partial(arc.call, "dep", "quick", number, target="indexer"))
        calls = [*called.service.line.asked].count("POST /v1/commands/leases")
        assert calls < 60
        assert len(await called.told(60)) == 60

    worked(run, {"quick": (quick, {})}, test, concurrency=20)


@pytest.mark.parametrize(
    ("function", "says"),
    [(lambda a, b, c: None, "must take"), (lambda *, a: None, "must take")],
)
def test_what_is_no_handler_is_refused_at_once(function: Any, says: str) -> None:
    worker = Worker("http://arc.test", **HERE)
    with pytest.raises(TypeError, match=says):
        worker.command("x")(function)
    worker.command("y")(lambda: None)
    with pytest.raises(ValueError, match="already"):
        worker.command("y")
