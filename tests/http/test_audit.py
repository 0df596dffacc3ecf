"""Histories and queues (extensions, "Audit" and "Finding")."""

from __future__ import annotations

from arc_es.codec import digest
from arc_es.domain.recorded import CommandKey
from tests.http.driver import Client, Served, a_command, a_target, failure, inline


async def test_a_history_is_complete_ordered_and_chained(served: Served) -> None:
    command_id = await served.create(params=inline(b"x" * 5000), labels={"a": "b"}, maxAttempts=2)
    (lease,) = await served.lease(agent={"id": "a-17"})
    served.clock.advance(1.5)
    await served.release(lease["leaseId"])
    await served.lease(leaseSeconds=10)
    served.clock.advance(10)
    await served.status(command_id)
    events = await served.events(command_id)
    assert [event["type"] for event in events] == [
        "CommandCreated",
        "CommandLeased",
        "LeaseReleased",
        "CommandLeased",
        "LeaseExpired",
        "CommandFailed",
    ]
    assert [event["index"] for event in events] == [0, 0, 0, 0, 0, 1]
    decisions = [event for event in events if event["index"] == 0]
    assert "prev" not in decisions[0]
    assert [event["prev"] for event in decisions[1:]] == [event["hash"] for event in decisions[:-1]]
    assert [event["seq"] for event in decisions] == sorted({event["seq"] for event in events})
    shared = ("seq", "id", "at", "by", "prev", "hash", "commandId", "deploymentId")
    assert all(events[4][name] == events[5][name] for name in shared)
    stored = await served.journal.history(CommandKey("dep", command_id))
    assert [event["hash"] for event in decisions] == [digest(message.payload) for message in stored]


async def test_what_an_event_says(served: Served) -> None:
    headers = {"User-Agent": "probe/1", "X-Request-Id": "r-9"}
    data = a_command(deadline="2026-03-01T10:05:00Z")
    command_id = (await served.client.post("/v1/commands", data, headers=headers)).ok()["commandId"]
    (event,) = await served.events(command_id)
    assert event["by"] == {
        "id": "admin",
        "kind": "admin",
        "address": "127.0.0.1",
        "userAgent": "probe/1",
        "requestId": "r-9",
    }
    assert (event["at"], event["deploymentId"], event["commandId"]) == ("2026-03-01T10:00:00Z", "dep", command_id)
    assert event["data"]["deadline"] == "2026-03-01T10:05:00Z"
    assert set(event["data"]["params"]) == {"place", "size", "sha256"}


async def test_what_the_service_does_by_itself_is_its_own(served: Served) -> None:
    command_id = await served.create(deadline="2026-03-01T10:00:01Z")
    served.clock.advance(2)
    await served.status(command_id)
    assert (await served.events(command_id))[-1]["by"] == {"id": "arc_es", "kind": "service"}


async def test_the_admin_token_is_never_in_a_history(served: Served) -> None:
    command_id = await served.create()
    await served.lease()
    await served.respond(command_id, failure())
    raw = (await served.client.get(f"/v1/commands/{command_id}/events")).body
    assert served.client.token is not None
    assert served.client.token.encode() not in raw


async def test_an_unknown_command_has_no_history(client: Client) -> None:
    (await client.get("/v1/commands/cmd_x/events")).refused(404, "COMMAND_NOT_FOUND")


async def test_queues(served: Served) -> None:
    assert (await served.client.get("/v1/queues")).ok()["queues"] == []
    held = await served.create()
    served.clock.advance(90)
    await served.create()
    await served.create(notBefore="2026-03-01T11:00:00Z")
    await served.create(targetResourceId="other", deploymentId="d2")
    await served.lease(leaseSeconds=3600, agent={"id": "a-17"})
    served.clock.advance(5)
    answer = (await served.client.get("/v1/queues")).ok()
    assert answer["appliedSeq"] == await served.journal.end()
    first, second = sorted(answer["queues"], key=lambda queue: str(queue["deploymentId"]), reverse=True)
    assert first == {
        "deploymentId": "dep",
        "target": a_target(),
        "pending": 1,
        "delayed": 1,
        "leased": 1,
        "oldestPendingSeconds": 5,
        "waiting": 0,
        "lastPollAt": "2026-03-01T10:01:30Z",
        "lastAgent": "a-17",
        "oldestLease": {
            "commandId": held,
            "attempt": 1,
            "leasedAt": "2026-03-01T10:01:30Z",
            "leaseExpiresAt": "2026-03-01T11:01:30Z",
            "renewals": 0,
            "agent": "a-17",
            "agentLastPollAt": "2026-03-01T10:01:30Z",
        },
    }
    assert second == {
        "deploymentId": "d2",
        "target": a_target("other", "worker"),
        "pending": 1,
        "delayed": 0,
        "leased": 0,
        "oldestPendingSeconds": 5,
        "waiting": 0,
    }
