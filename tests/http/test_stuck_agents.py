"""An agent that renews and does not pull, or pulls and does not answer, is seen in queues and explanations."""

from __future__ import annotations

from typing import Any

from tests.http.driver import Served, serving


async def oldest(served: Served, target: str = "indexer") -> Any:
    queues = (await served.client.get("/v1/queues")).ok()["queues"]
    return next(queue for queue in queues if queue["target"]["resourceId"] == target).get("oldestLease")


async def because(served: Served, command_id: str) -> Any:
    return (await served.client.get(f"/v1/commands/{command_id}/explain")).ok()


async def test_an_agent_that_renews_and_takes_no_more(served: Served) -> None:
    command_id = await served.create()
    (lease,) = await served.lease(agent={"id": "a-17"}, leaseSeconds=60)
    for _ in range(20):
        served.clock.advance(30)
        renewed = await served.client.post(f"/v1/commands/leases/{lease['leaseId']}/renew", {"leaseSeconds": 60})
        assert renewed.status == 200
    assert await oldest(served) == {
        "commandId": command_id,
        "attempt": 1,
        "leasedAt": "2026-03-01T10:00:00Z",
        "leaseExpiresAt": "2026-03-01T10:11:00Z",
        "renewals": 20,
        "agent": "a-17",
        "agentLastPollAt": "2026-03-01T10:00:00Z",
    }
    found = await because(served, command_id)
    assert found["because"] == (
        "It is held by agent a-17 until 2026-03-01T10:11:00Z, renewed 20 times; this is attempt 1 of 20."
        " It has been held since 2026-03-01T10:00:00Z, and the agent has not asked for work since 2026-03-01T10:00:00Z."
    )
    assert (found["facts"]["leasedAt"], found["facts"]["agentLastPollAt"]) == ("2026-03-01T10:00:00Z",) * 2


async def test_an_agent_that_takes_and_never_answers(served: Served) -> None:
    stuck = await served.create()
    await served.lease(agent={"id": "a-17"}, leaseSeconds=3600)
    served.clock.advance(600)
    for _ in range(3):
        await served.create()
        await served.lease(agent={"id": "a-17"}, leaseSeconds=3600)
    held = await oldest(served)
    assert (held["commandId"], held["renewals"]) == (stuck, 0)
    assert (held["leasedAt"], held["agentLastPollAt"]) == ("2026-03-01T10:00:00Z", "2026-03-01T10:10:00Z")
    assert (await because(served, stuck))["because"].endswith(
        "held since 2026-03-01T10:00:00Z; meanwhile the agent asks for more work, last at 2026-03-01T10:10:00Z."
    )


async def test_nothing_is_said_of_what_nobody_holds(served: Served) -> None:
    command_id = await served.create()
    assert await oldest(served) is None
    await served.lease()
    assert "agent" not in await oldest(served)
    await served.respond(command_id)
    assert await oldest(served) is None


async def test_since_when_it_is_held_survives_a_restart(served: Served) -> None:
    await served.create()
    await served.lease(agent={"id": "a-17"}, leaseSeconds=3600)
    served.clock.advance(120)
    async with serving(journal=served.journal, clock=served.clock) as again:
        held = await oldest(again)
        assert held["leasedAt"] == "2026-03-01T10:00:00Z"
        assert "agentLastPollAt" not in held
        assert (await because(again, held["commandId"]))["because"].endswith(
            "and the agent has not asked for work as far as this service knows."
        )
