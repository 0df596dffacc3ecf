"""Leases and budgets, in virtual time: renewed while handlers run, lost by agents that hang, never counted too long."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from arc_es.client import CommandFailed, Context, Lease, MemoryNotes
from arc_es.client.agent import LISTEN_SECONDS
from arc_es.client.handlers import Handler, handler_of
from arc_es.client.job import Job, margin_seconds
from arc_es.client.watching import unwatched
from arc_es.testing import LocalService, open_service
from tests.sdk.conftest import Run, until
from tests.sdk.driver import HERE

T0 = datetime(2026, 3, 1, 10, tzinfo=UTC)


def job_of(
    handler: Handler, *, lease_seconds: int = 60, skew_seconds: float = 0.0, deadline_seconds: float | None = None
) -> Job:
    """A job that was leased now, by a server whose clock is wrong."""
    now = T0 + timedelta(seconds=skew_seconds)
    lease = Lease(
        lease_id="lease_1",
        expires_at=now + timedelta(seconds=lease_seconds),
        server_time=now,
        command_id="cmd_1",
        attempt=1,
        deployment_id="dep",
        command="build",
        deadline=None if deadline_seconds is None else now + timedelta(seconds=deadline_seconds),
        params={},
        submit_url="",
        inline_bytes_max=150_000,
        upload_request={},
        envelope={},
    )
    received_at = anyio.current_time()
    return Job(lease, handler, lease_seconds=lease_seconds, received_at=received_at, on_life=lambda: None)


async def a_handler() -> None: ...


def a_plain_handler() -> None: ...


@pytest.mark.parametrize("skew_seconds", [0, 3_600, -3_600])
def test_budgets_count_from_the_clock_of_the_service(virtually: Run, skew_seconds: float) -> None:
    async def main() -> None:
        assert job_of(handler_of(a_handler, None), skew_seconds=skew_seconds).remaining_seconds() == 55
        with_deadline = job_of(handler_of(a_handler, None), skew_seconds=skew_seconds, deadline_seconds=7)
        assert with_deadline.remaining_seconds() == 7
        assert job_of(handler_of(a_handler, 3), skew_seconds=skew_seconds).remaining_seconds() == 3

    virtually(main)


def test_a_lease_never_counts_for_longer_than_was_asked_for(virtually: Run) -> None:
    async def main() -> None:
        job = job_of(handler_of(a_handler, None))
        assert job.lease_ends_at - job.started_at <= 60
        late = Job(job.lease, job.handler, lease_seconds=10, received_at=anyio.current_time(), on_life=lambda: None)
        assert late.lease_ends_at - late.started_at == 10

    virtually(main)


def test_leases_of_async_handlers_are_renewed_as_long_as_they_may_run(virtually: Run) -> None:
    async def main() -> None:
        job = job_of(handler_of(a_handler, 300))
        assert job.renew_at == job.started_at + 20
        await anyio.sleep(20)
        job.renewed(anyio.current_time())
        assert job.lease_ends_at == job.started_at + 80
        assert job.remaining_seconds() == 55
        short = job_of(handler_of(a_handler, 50))
        assert short.renew_at == math.inf, "the lease is long enough"

    virtually(main)


def test_leases_of_threads_are_renewed_only_when_they_say_that_they_live(virtually: Run) -> None:
    async def main() -> None:
        job = job_of(handler_of(a_plain_handler, 300))
        assert job.renew_at == math.inf
        await anyio.sleep(5)
        assert job.alive()
        assert job.renew_at == job.started_at + 20
        await anyio.sleep(15)
        job.renewed(anyio.current_time())
        assert job.renew_at == math.inf, "it has said nothing since"

    virtually(main)


def test_short_leases_leave_a_smaller_margin() -> None:
    assert [margin_seconds(seconds) for seconds in (2, 10, 20, 60, 43_200)] == [0.5, 2.5, 5, 5, 5]


async def history_of(service: LocalService, handler: Any, *, lease_seconds: int, limit: float) -> list[str]:
    """The history of one command that this handler works on."""
    worker = service.worker(**HERE, lease_seconds=lease_seconds)
    worker.command("build", timeout=limit)(handler)
    async with service.caller() as arc, service.working(worker):
        command = await arc.create("dep", "build", target="indexer")
        await command.ended()
        return await service.history(command.id)


def test_a_handler_may_run_much_longer_than_its_lease(virtually: Run) -> None:
    async def slow(params: Any, ctx: Context) -> int:
        await anyio.sleep(100)
        return ctx.attempt

    async def main() -> None:
        async with open_service() as service:
            history = await history_of(service, slow, lease_seconds=30, limit=200)
            assert history[:2] == ["CommandCreated", "CommandLeased"]
            assert history[-1] == "CommandSucceeded"
            assert set(history[2:-1]) == {"LeaseRenewed"}
            assert 5 <= len(history[2:-1]) <= 11

    virtually(main)


def test_a_handler_that_waits_for_ever_loses_its_command_at_its_time_limit(virtually: Run) -> None:
    async def hung(params: Any, ctx: Context) -> None:
        await anyio.sleep_forever()

    async def main() -> None:
        async with open_service() as service:
            history = await history_of(service, hung, lease_seconds=30, limit=100)
            assert history[-1] == "CommandFailed"
            assert "LeaseExpired" not in history

    virtually(main)


def test_an_agent_whose_event_loop_hangs_loses_its_lease_and_another_gets_the_command(virtually: Run) -> None:
    """The service's clock goes on while the agent's loop stands still."""
    attempts: list[int] = []

    async def main() -> None:
        async with open_service() as service:
            worker = service.worker(**HERE, lease_seconds=30)

            @worker.command("build")
            async def build(params: Any, ctx: Context) -> int:
                attempts.append(ctx.attempt)
                if ctx.attempt == 1:
                    await service.jump(31)  # as if nothing of this process had run for so long
                    await anyio.sleep(200)
                return ctx.attempt

            async with service.caller() as arc, service.working(worker):
                command = await arc.create("dep", "build", target="indexer")
                last = await command.result(timeout=600)
                history = [name for name in await service.history(command.id) if name != "LeaseRenewed"]
                assert history[:4] == ["CommandCreated", "CommandLeased", "LeaseExpired", "CommandLeased"]
                # It gives its own next lease back while the handler of the lost one still ends (`arc.v1` 5.3).
                assert set(history[4:-1]) <= {"LeaseReleased", "CommandLeased"}
                assert history[-1] == "CommandSucceeded"
        assert attempts == [1, last]

    virtually(main)


def test_a_lease_that_cannot_be_renewed_stops_its_handler_before_somebody_else_runs_it(virtually: Run) -> None:
    ends: list[float] = []

    async def main() -> None:
        async with open_service() as service:
            worker = service.worker(**HERE, lease_seconds=30)

            @worker.command("build")
            async def build(params: Any, ctx: Context) -> int:
                if ctx.attempt > 1:
                    return ctx.attempt
                service.line.cut = True
                began = anyio.current_time()
                try:
                    await anyio.sleep(200)
                finally:
                    ends.append(anyio.current_time() - began)
                return 0

            async with service.caller() as arc, service.working(worker):
                command = await arc.create("dep", "build", target="indexer")
                await until(lambda: ends)
                await anyio.sleep(60)
                service.line.cut = False
                assert await command.result(timeout=600) == 2
                assert "LeaseExpired" in await service.history(command.id)
        assert ends[0] <= 25

    virtually(main)


def test_who_wakes_up_after_the_lease_has_ended_does_not_answer_for_others(virtually: Run) -> None:
    """A handler whose time was up while its whole process stood still: the command is not its own any more."""

    async def main() -> None:
        async with open_service() as service, service.client() as client:
            for function in (a_plain_handler, a_handler):
                job = job_of(handler_of(function, 30))
                job._scope.deadline = math.inf  # nothing runs that could notice

                async def sleeper(job: Job = job) -> None:
                    await anyio.sleep(61)
                    job._scope.cancel()

                async with anyio.create_task_group() as group:
                    group.start_soon(sleeper)
                    job._params = lambda *_: anyio.sleep_forever()  # type: ignore[method-assign]
                    answer = await job.run(client, MemoryNotes(), unwatched, lambda: None)
                assert (answer, job.stop) == (None, "lost")

    virtually(main)


def test_a_deadline_stops_the_handler(virtually: Run) -> None:
    async def main() -> None:
        async with open_service() as service:
            worker = service.worker(**HERE)
            stopped = anyio.Event()

            @worker.command("build")
            async def build() -> None:
                try:
                    await anyio.sleep(1_000)
                finally:
                    stopped.set()

            async with service.caller() as arc, service.working(worker):
                deadline = datetime.fromtimestamp(service._running.clock.now() / 1e6, UTC) + timedelta(seconds=12)
                command = await arc.create("dep", "build", target="indexer", deadline=deadline)
                began = anyio.current_time()
                await stopped.wait()
                assert 11 <= anyio.current_time() - began <= 14
                assert (await command.ended())["state"] in ("EXPIRED", "FAILED")

    virtually(main)


def test_what_an_agent_enters_lives_until_the_answer_is_taken(virtually: Run) -> None:
    closed: list[bool] = []

    async def build(params: Any, ctx: Context) -> bytes:
        ctx.until_answered.callback(closed.append, True)  # noqa: FBT003
        return b"x" * 200_000

    async def main() -> None:
        async with open_service() as service:
            assert (await history_of(service, build, lease_seconds=30, limit=60))[-1] == "CommandSucceeded"
        assert closed == [True]

    virtually(main)


def test_time_out_of_a_handler_is_an_answer(virtually: Run) -> None:
    async def main() -> None:
        async with open_service() as service:
            worker = service.worker(**HERE, timeout=20)

            @worker.command("build")
            async def build() -> None:
                await anyio.sleep_forever()

            async with service.caller() as arc, service.working(worker):
                with pytest.raises(CommandFailed) as failed:
                    await arc.call("dep", "build", target="indexer")
                assert failed.value.code == "HANDLER_TIMEOUT"

    virtually(main)


def test_a_busy_agent_hears_of_a_cancellation_within_seconds(virtually: Run) -> None:
    """All its places are taken and its lease is long: it has no long-poll open, and nothing to renew."""

    async def main() -> None:
        async with open_service() as service:
            worker = service.worker(**HERE, lease_seconds=600)
            stopped = anyio.Event()

            @worker.command("build")
            async def build() -> None:
                try:
                    await anyio.sleep_forever()
                finally:
                    stopped.set()

            async with service.caller() as arc, service.working(worker):
                command = await arc.create("dep", "build", target="indexer")
                await until(lambda: worker.running)
                began = anyio.current_time()
                await command.cancel()
                await stopped.wait()
                assert anyio.current_time() - began <= LISTEN_SECONDS + 1
                assert "LeaseRenewed" not in await service.history(command.id)

    virtually(main)
