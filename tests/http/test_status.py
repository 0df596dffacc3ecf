"""Status, attempts, and time that acts by itself (`arc.v1` 2.2, 4.2, 4.4)."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from arc_es.domain.recorded import CommandKey
from tests.http.driver import Client, Served, a_target, failure, success


async def shown(served: Served, command_id: str) -> tuple[Any, Any]:
    status = await served.status(command_id)
    return status["state"], status["attempt"]


async def next_event(served: Served, command_id: str) -> str:
    """What happens by itself within the two seconds that the protocol allows; nobody polls meanwhile."""
    with trio.fail_after(2):
        await served.node.follower.changed(CommandKey("dep", command_id))
    return (await served.types(command_id))[-1]


async def test_the_answer_has_exactly_these_fields(served: Served) -> None:
    command_id = await served.create()
    plain = {"commandId": command_id, "state": "PENDING", "attempt": 1, "target": a_target("indexer", "worker")}
    assert await served.status(command_id) == plain
    await served.lease()
    plain["target"] = a_target()
    assert await served.status(command_id) == plain | {"state": "DISPATCHED"}
    await served.respond(command_id)
    assert await served.status(command_id) == plain | {"state": "SUCCEEDED", "response": success()}


async def test_a_failed_command_shows_its_error(served: Served) -> None:
    command_id = await served.create()
    await served.lease()
    await served.respond(command_id, failure())
    status = await served.status(command_id)
    assert set(status) == {"commandId", "state", "attempt", "target", "response"}
    assert status["response"] == failure()


async def test_an_expired_command_has_no_response(served: Served) -> None:
    command_id = await served.create(deadline="2026-03-01T10:00:01Z")
    served.clock.advance(2)
    assert await served.status(command_id) == {
        "commandId": command_id,
        "state": "EXPIRED",
        "attempt": 1,
        "target": a_target("indexer", "worker"),
    }


@pytest.mark.parametrize("command_id", ["cmd_unknown", "x", "a%2Fb", "%00", "é", "y" * 3000])
async def test_an_unknown_command_is_404(client: Client, command_id: str) -> None:
    answer = await client.get(f"/v1/commands/{command_id}")
    answer.refused(404, "ROUTE_NOT_FOUND" if "%2F" in command_id else "COMMAND_NOT_FOUND")


async def test_attempts_rise_with_release_and_lease_end_only(served: Served) -> None:
    command_id = await served.create()
    assert await shown(served, command_id) == ("PENDING", 1)
    (lease,) = await served.lease(leaseSeconds=10)
    assert await shown(served, command_id) == ("DISPATCHED", 1)
    await served.release(lease["leaseId"])
    assert await shown(served, command_id) == ("PENDING", 2)
    (lease,) = await served.lease(leaseSeconds=10)
    assert (lease["attempt"], lease["envelope"]["attempt"]) == (2, 2)
    served.clock.advance(10)
    assert await shown(served, command_id) == ("PENDING", 3)
    await served.lease()
    await served.respond(command_id)
    assert await shown(served, command_id) == ("SUCCEEDED", 3)


async def test_a_lease_end_acts_without_anybody_polling(served: Served) -> None:
    command_id = await served.create()
    await served.lease(leaseSeconds=30)
    served.clock.advance(30)
    assert await next_event(served, command_id) == "LeaseExpired"
    assert await shown(served, command_id) == ("PENDING", 2)


@pytest.mark.parametrize("leased", [False, True])
async def test_a_deadline_acts_without_anybody_polling(served: Served, *, leased: bool) -> None:
    command_id = await served.create(deadline="2026-03-01T10:00:10Z")
    if leased:
        await served.lease(leaseSeconds=3600)
    served.clock.advance(10.000001)
    assert await next_event(served, command_id) == "CommandExpired"


async def test_nothing_acts_too_early(served: Served) -> None:
    command_id = await served.create(deadline="2026-03-01T10:00:20Z")
    await served.lease(leaseSeconds=10)
    served.clock.advance(9.9)
    end = await served.journal.end()
    with trio.move_on_after(5) as waited:
        await served.node.follower.changed(CommandKey("dep", command_id))
    assert waited.cancelled_caught
    assert await served.journal.end() == end
    assert await shown(served, command_id) == ("DISPATCHED", 1)


async def test_the_deadline_wins_over_the_lease_end(served: Served) -> None:
    command_id = await served.create(deadline="2026-03-01T10:00:10Z")
    await served.lease(leaseSeconds=5)
    served.clock.advance(11)
    assert await next_event(served, command_id) == "CommandExpired"
    assert await shown(served, command_id) == ("EXPIRED", 1)


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_the_last_lease_end_fails_the_command(served: Served, limit: int) -> None:
    command_id = await served.create(maxAttempts=limit)
    for _ in range(limit):
        assert len(await served.lease(leaseSeconds=10)) == 1
        served.clock.advance(10)
        assert await next_event(served, command_id) in ("LeaseExpired", "CommandFailed")
    status = await served.status(command_id)
    assert (status["state"], status["attempt"]) == ("FAILED", limit)
    assert (status["response"]["status"], status["response"]["code"]) == ("error", "MAX_ATTEMPTS_EXCEEDED")


async def test_a_finished_command_never_expires(served: Served) -> None:
    command_id = await served.create(deadline="2026-03-01T10:00:10Z")
    await served.lease()
    await served.respond(command_id)
    served.clock.advance(86_400)
    assert await shown(served, command_id) == ("SUCCEEDED", 1)
    assert (await served.types(command_id))[-1] == "CommandSucceeded"


async def test_retry_of_a_deployment_lets_a_command_rest_after_a_lease_end_but_not_after_a_release(
    served: Served,
) -> None:
    retry = {"initialSeconds": 100, "maxSeconds": 100, "factor": 1}
    (await served.declare(a_target(), retry=retry)).ok()
    command_id = await served.create()
    (lease,) = await served.lease(leaseSeconds=10)
    await served.release(lease["leaseId"])
    assert len(await served.lease(leaseSeconds=10)) == 1
    served.clock.advance(10)
    assert await next_event(served, command_id) == "LeaseExpired"
    assert await served.lease() == []
    assert await shown(served, command_id) == ("PENDING", 3)
    served.clock.advance(100)
    assert len(await served.lease()) == 1


async def test_upload_complete_of_a_command_that_awaits_none_is_400(served: Served) -> None:
    command_id = await served.create(deadline="2026-03-01T10:00:10Z")
    path = f"/v1/commands/{command_id}/upload-complete"
    (await served.client.post(path, {"size": 2})).refused(400, "INVALID_STATE_TRANSITION")
    served.clock.advance(11)
    (await served.client.post(path, {"size": 2})).refused(400, "INVALID_STATE_TRANSITION")
    assert (await served.types(command_id))[-1] == "CommandExpired"


async def test_a_new_node_replays_what_was(served: Served) -> None:
    from tests.http.driver import serving

    done, held, waiting = [await served.create() for _ in range(3)]
    await served.lease(maxLeases=2)
    await served.respond(done)
    before = [await served.status(command_id) for command_id in (done, held, waiting)]
    async with serving(served.journal, served.clock) as other:
        assert [await other.status(command_id) for command_id in (done, held, waiting)] == before
        assert await other.lease(maxLeases=1) != []
        assert await other.lease() == []
