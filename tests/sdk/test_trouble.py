"""What worker and caller do when something is in the way: stops, cancellations, refusals, cut lines."""

from __future__ import annotations

from typing import Any

import anyio
import httpx2
import pytest

from arc_es.client import (
    BadAnswer,
    CommandCancelled,
    NoResultYet,
    Outcome,
    Refused,
    Worker,
)
from arc_es.testing import open_service
from tests.sdk.conftest import Run, until
from tests.sdk.driver import HERE, Called, worked


def test_stopping_lets_handlers_finish_and_gives_back_what_does_not(run: Run) -> None:
    started: list[str] = []

    async def main() -> None:
        async with open_service() as service:
            worker = service.worker(**HERE, concurrency=2, drain_seconds=0.3)

            @worker.command("quick")
            async def quick() -> str:
                started.append("quick")
                await anyio.sleep(0.1)
                return "done"

            @worker.command("slow")
            async def slow() -> None:
                started.append("slow")
                await anyio.sleep_forever()

            async with service.caller() as arc:
                commands = [await arc.create("dep", name, target="indexer") for name in ("quick", "slow")]
                async with service.working(worker):
                    await until(lambda: len(started) == 2)
                assert await commands[0].result() == "done"
                assert (await commands[1].refresh())["attempt"] == 2
                assert await service.history(commands[1].id) == ["CommandCreated", "CommandLeased", "LeaseReleased"]

    run(main)


def test_cancelling_the_worker_gives_back_at_once(run: Run) -> None:
    async def main() -> None:
        async with open_service() as service:
            worker = service.worker(**HERE)
            began = anyio.Event()

            @worker.command("slow")
            async def slow() -> None:
                began.set()
                await anyio.sleep_forever()

            async with service.caller() as arc:
                command = await arc.create("dep", "slow", target="indexer")
                async with anyio.create_task_group() as group:
                    group.start_soon(worker.run)
                    await began.wait()
                    group.cancel_scope.cancel()
                assert (await service.history(command.id))[-1] == "LeaseReleased"

    run(main)


def test_a_refusal_ends_the_worker_and_says_why(run: Run) -> None:
    async def main() -> None:
        async with open_service() as service:
            worker = Worker(service.url, "wrong", transport=service.line, **HERE)
            with pytest.raises(Refused) as refused:
                await worker.run()
            assert refused.value.code == "UNAUTHORIZED"

    run(main)


class Garbling(httpx2.AsyncBaseTransport):
    """A proxy that answers itself for a while, and not as the service does."""

    def __init__(self, line: httpx2.AsyncBaseTransport) -> None:
        self._line = line
        self.left = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self.left > 0:
            self.left -= 1
            return httpx2.Response(200, content=b"<html>please log in</html>")
        return await self._line.handle_async_request(request)


def test_a_proxy_that_answers_itself_ends_a_worker_only_at_its_start(run: Run) -> None:
    async def main() -> None:
        async with open_service() as service, service.caller() as arc:
            garbling = Garbling(service.line)
            garbling.left = 1
            with pytest.raises(BadAnswer):
                await Worker(service.url, service.token, transport=garbling, **HERE).run()
            worker = Worker(service.url, service.token, transport=garbling, **HERE)

            @worker.command("build")
            async def build() -> str:
                garbling.left = 2
                return "built"

            async with service.working(worker):
                assert await arc.call("dep", "build", target="indexer") == "built"

    run(main)


def test_a_worker_whose_token_is_revoked_ends_and_says_what_it_could_not_answer(run: Run) -> None:
    outcomes: list[Outcome] = []

    async def main() -> None:
        async with open_service() as service, service.client() as client, service.caller() as arc:
            token = await client.create_token({"scope": "receiver", "deployments": ["dep"]})
            worker = Worker(service.url, token["token"], transport=service.line, on_outcome=outcomes.append, **HERE)

            @worker.command("build")
            async def build() -> str:
                await client.revoke_token(token["id"])
                return "built"

            await arc.create("dep", "build", target="indexer")
            with pytest.raises(Refused) as refused:
                await worker.run()
            assert refused.value.code == "UNAUTHORIZED"

    run(main)
    assert [one.result for one in outcomes] == ["unanswered"]


def test_time_that_is_up_tells_the_command_which_lives_on(run: Run) -> None:
    async def main() -> None:
        async with open_service() as service, service.caller() as arc:
            with pytest.raises(NoResultYet) as late:
                await arc.call("dep", "build", target="indexer", timeout=0.2)
            assert late.value.command_id is not None
            assert (await arc.command(late.value.command_id).refresh())["state"] == "PENDING"

    run(main)


def test_a_cut_line_is_waited_out_on_both_sides(run: Run) -> None:
    troubles: list[str] = []

    async def main() -> None:
        async with open_service() as service:
            worker = service.worker(**HERE, on_trouble=lambda error: troubles.append("gone" if error else "back"))

            @worker.command("build")
            async def build() -> str:
                service.line.cut = True
                return "built"

            async with service.working(worker), service.caller() as arc:
                command = await arc.create("dep", "build", target="indexer")
                await until(lambda: service.line.cut)
                async with anyio.create_task_group() as group:
                    group.start_soon(command.result)
                    await anyio.sleep(0.3)
                    service.line.cut = False
                assert await command.result() == "built"
                assert await service.history(command.id) == ["CommandCreated", "CommandLeased", "CommandSucceeded"]

    run(main)
    assert troubles[:2] == ["gone", "back"]


def test_a_create_whose_answer_was_lost_is_made_once(run: Run) -> None:
    async def main() -> None:
        async with open_service() as service, service.caller() as arc:
            service.line.dropped = True
            async with anyio.create_task_group() as group:
                made: list[Any] = []

                async def create() -> None:
                    made.append(await arc.create("dep", "build", target="indexer"))

                group.start_soon(create)
                await anyio.sleep(0.5)
                service.line.dropped = False
            async with service.client() as client:
                queues = (await client.queues())["queues"]
            assert [queue["pending"] for queue in queues] == [1]

    run(main)


def test_an_error_in_the_block_of_a_caller_comes_out_as_it_is(run: Run) -> None:
    async def main() -> None:
        async with open_service() as service:
            with pytest.raises(LookupError):
                async with service.caller():
                    raise LookupError
            with anyio.move_on_after(0.05) as scope:
                async with service.caller():
                    await anyio.sleep_forever()
            assert scope.cancelled_caught

    run(main)


def test_cancelled_commands_stop_their_handlers(run: Run) -> None:
    stopped: list[str] = []

    async def slow() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            stopped.append("stopped")

    async def test(called: Called) -> None:
        async with called.service.caller() as arc:
            command = await arc.create("dep", "slow", target="indexer")
            await until(lambda: called.worker.running)
            await command.cancel("not needed")
            with pytest.raises(CommandCancelled, match="not needed"):
                await command.result()
            await until(lambda: stopped)
        assert await called.told(1) == ["cancelled"]

    worked(run, {"slow": (slow, {})}, test, lease_seconds=3, concurrency=2)
