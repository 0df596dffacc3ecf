"""Health, readiness, and troubles of the journal (`arc.v1` 2.11, 1.6)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from arc_es.bootstrap import assemble, build_app
from arc_es.config import Config
from arc_es.journal.memory import Fault, MemoryJournal
from arc_es.keyring import KeyRing
from tests.http.driver import ADMIN, Client, Clock, Served, a_command, a_lease, serving, success


@pytest.mark.parametrize("path", ["/health", "/healthz", "/v1/health", "/v1/healthz", "//health/"])
async def test_alive_without_a_token(client: Client, path: str) -> None:
    assert (await client.presenting(None).get(path)).ok() == {"status": "healthy"}


async def test_ready_without_a_token(client: Client) -> None:
    assert (await client.presenting(None).get("/readyz")).ok() == {"status": "ready"}


class SlowJournal(MemoryJournal):
    """A journal that does not say where it ends until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = trio.Event()

    async def end(self) -> int:
        await self.let.wait()
        return await super().end()


async def test_before_the_replay_is_done_only_health_answers() -> None:
    journal = SlowJournal()
    node = assemble(journal, Config(admin_token=ADMIN), clock=Clock())
    client = Client(build_app(node.service, Config(admin_token=ADMIN), KeyRing(b"k")))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.run)
        await trio.testing.wait_all_tasks_blocked()
        (await client.get("/healthz")).ok()
        progress = await client.get("/readyz")
        assert progress.status == 503
        assert {"applied", "target", "eventsPerSecond", "etaSeconds"} <= set(progress.json)
        for method, path in (("POST", "/v1/commands"), ("GET", "/v1/commands/cmd_1"), ("POST", "/v1/commands/leases")):
            answer = await client.call(method, path)
            answer.refused(503, "NOT_READY")
            assert answer.headers["retry-after"] == "1"
        journal.let.set()
        with trio.fail_after(5):
            await node.follower.wait_ready()
        assert (await client.get("/readyz")).ok() == {"status": "ready"}
        (await client.post("/v1/commands", a_command())).ok()
        nursery.cancel_scope.cancel()


async def test_without_a_journal_writes_are_503_and_reads_still_work(served: Served) -> None:
    command_id = await served.create()
    await served.lease()
    end = await served.journal.end()
    served.journal.fault = Fault.UNAVAILABLE
    for answer in (
        await served.client.post("/v1/commands", a_command()),
        await served.respond(command_id),
    ):
        answer.refused(503, "JOURNAL_UNAVAILABLE")
        assert answer.headers["retry-after"] == "1"
    assert (await served.status(command_id))["state"] == "DISPATCHED"
    assert (await served.client.get("/readyz")).status == 503
    (await served.client.get("/health")).ok()
    served.journal.fault = None
    assert await served.journal.end() == end
    assert (await served.client.get("/readyz")).status == 200
    assert (await served.respond(command_id)).status == 200


async def test_a_healthy_lease_poll_without_work_needs_no_journal(served: Served) -> None:
    await served.lease()
    served.journal.fault = Fault.UNAVAILABLE
    assert await served.lease() == []


async def test_a_lease_without_a_journal_is_503_and_the_command_stays(served: Served) -> None:
    command_id = await served.create()
    await served.lease(maxLeases=0)
    await served.client.post("/v1/commands/leases", a_lease(deploymentId="x"))
    await served.client.post("/v1/commands/leases", a_lease(target=None, maxLeases=0))
    served.journal.fault = Fault.UNAVAILABLE
    (await served.client.post("/v1/commands/leases", a_lease(target=None))).refused(503, "JOURNAL_UNAVAILABLE")
    served.journal.fault = None
    (lease,) = await served.lease(target=None)
    assert (lease["commandId"], lease["attempt"]) == (command_id, 1)


async def test_a_full_journal_is_507(served: Served) -> None:
    served.journal.fault = Fault.FULL
    (await served.client.post("/v1/commands", a_command())).refused(507, "JOURNAL_FULL")


async def test_a_lost_acknowledgement_is_found_out(served: Served) -> None:
    served.journal.fault = Fault.LOST_ACK
    command_id = await served.create(idempotencyKey="k")
    assert len(await served.lease()) == 1
    assert (await served.respond(command_id)).status == 200
    served.journal.fault = None
    assert await served.types(command_id) == ["CommandCreated", "CommandLeased", "CommandSucceeded"]


async def test_an_outcome_that_stays_unknown_is_503_and_trying_again_is_safe(served: Served) -> None:
    served.journal.fault = Fault.LOST_SEND
    data = a_command(idempotencyKey="k")
    (await served.client.post("/v1/commands", data)).refused(503, "JOURNAL_UNAVAILABLE")
    served.journal.fault = None
    command_id = (await served.client.post("/v1/commands", data)).ok()["commandId"]
    assert (await served.client.post("/v1/commands", data)).ok()["commandId"] == command_id


async def test_too_many_turns_at_once_are_503_before_anything_is_written() -> None:
    async with serving(actors_max=2) as served:
        held = [await served.create() for _ in range(3)]
        await served.lease(maxLeases=1)
        await served.lease(maxLeases=1)
        await served.lease(maxLeases=1)
        statuses: list[int] = []

        async def respond(command_id: str) -> None:
            statuses.append((await served.respond(command_id, success())).status)

        async with trio.open_nursery() as nursery:
            for command_id in held:
                nursery.start_soon(respond, command_id)
        assert sorted(statuses) == [200, 200, 503]
        states: Sequence[str] = [(await served.status(command_id))["state"] for command_id in held]
        assert sorted(states) == ["DISPATCHED", "SUCCEEDED", "SUCCEEDED"]
