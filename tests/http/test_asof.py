"""The past: a command and the queues as they were (extensions, "Audit": asOf)."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing

from arc_es.asof import LINE_MAX
from arc_es.domain.recorded import CommandKey
from arc_es.wire import format_time
from tests.http.driver import Client, Served, a_target, failure, serving, success


async def as_of(served: Served, command_id: str, moment: object) -> Any:
    return (await served.client.get(f"/v1/commands/{command_id}?asOf={moment}")).ok()


async def versions(served: Served, command_id: str) -> list[int]:
    return [message.position for message in await served.journal.history(CommandKey("dep", command_id))]


async def test_a_command_is_shown_as_its_status_was_at_each_position(served: Served) -> None:
    command_id = await served.create()
    seen = [await served.status(command_id)]
    (lease,) = await served.lease()
    seen.append(await served.status(command_id))
    await served.release(lease["leaseId"])
    seen.append(await served.status(command_id))
    await served.respond(command_id, success(b"x" * 5_000))
    seen.append(await served.status(command_id))
    found = await versions(served, command_id)
    for position, status in zip(found, seen, strict=True):
        then = await as_of(served, command_id, position)
        assert then.pop("appliedSeq") == position
        assert then == status
    assert seen[-1]["state"] == "SUCCEEDED"
    assert "response" in seen[-1]


async def test_a_time_means_what_had_happened_by_then(served: Served) -> None:
    command_id = await served.create()
    created_at = served.clock.now()
    served.clock.advance(60)
    await served.lease(leaseSeconds=3_600)
    served.clock.advance(60)
    await served.respond(command_id, failure())
    ended_at = served.clock.now()
    states = {
        moment: (await as_of(served, command_id, format_time(moment)))["state"]
        for moment in (created_at, created_at + 59_999_999, created_at + 60_000_000, ended_at - 1, ended_at)
    }
    assert list(states.values()) == ["PENDING", "PENDING", "DISPATCHED", "DISPATCHED", "FAILED"]


async def test_before_its_creation_there_was_no_command(served: Served) -> None:
    await served.create()
    served.clock.advance(5)
    command_id = await served.create()
    before = (await versions(served, command_id))[0] - 1
    (await served.client.get(f"/v1/commands/{command_id}?asOf={before}")).refused(404, "COMMAND_NOT_FOUND")
    early = format_time(served.clock.now() - 1)
    (await served.client.get(f"/v1/commands/{command_id}?asOf={early}")).refused(404, "COMMAND_NOT_FOUND")


async def test_the_future_is_the_present(served: Served) -> None:
    command_id = await served.create()
    end = await served.journal.end()
    for moment in (10**15, "2999-01-01T00:00:00Z"):
        assert (await as_of(served, command_id, moment)) == {**await served.status(command_id), "appliedSeq": end}
        queues = (await served.client.get(f"/v1/queues?asOf={moment}")).ok()
        assert queues["appliedSeq"] == end
        assert queues["queues"][0]["pending"] == 1


async def test_what_is_no_moment_is_refused(client: Client, served: Served) -> None:
    command_id = await served.create()
    for moment in ("yesterday", "-1", "2026-03-01", "1" * 30, ""):
        assert (await client.get(f"/v1/commands/{command_id}?asOf={moment}")).status == 422
        assert (await client.get(f"/v1/queues?asOf={moment}")).status == 422


async def test_queues_as_they_were_with_ages_of_then(served: Served) -> None:
    await served.create()
    served.clock.advance(30)
    await served.create()
    await served.create(deploymentId="other", targetResourceId="t")
    one = await served.journal.end()
    await served.lease(leaseSeconds=600)
    two = await served.journal.end()
    leased_at = served.clock.now()
    served.clock.advance(100)
    (left,) = await served.lease()
    await served.respond(left["commandId"])
    first = (await served.client.get(f"/v1/queues?asOf={one}")).ok()
    assert first["appliedSeq"] == one
    assert first["queues"][0] == {
        "deploymentId": "dep",
        "target": {"resourceId": "indexer", "resourceType": "worker"},
        "pending": 2,
        "delayed": 0,
        "leased": 0,
        "oldestPendingSeconds": 30,
        "leases": [],
    }
    second = (await served.client.get(f"/v1/queues?asOf={two}")).ok()
    assert [(q["pending"], q["leased"]) for q in second["queues"]] == [(1, 1), (1, 0)]
    assert second["queues"][0]["target"] == a_target()
    later = (await served.client.get(f"/v1/queues?asOf={format_time(leased_at + 40_000_000)}")).ok()
    assert later["appliedSeq"] == two
    assert later["queues"][0]["oldestPendingSeconds"] == 40


async def test_queues_say_who_held_what(served: Served) -> None:
    """The leases of that moment, not of now, those that would end first before the others."""
    await served.create()
    await served.create()
    (long,) = await served.lease(leaseSeconds=600, agent={"id": "a-17"})
    (short,) = await served.lease(leaseSeconds=60)
    then = await served.journal.end()
    await served.respond(long["commandId"])
    await served.release(short["leaseId"])
    (queue,) = (await served.client.get(f"/v1/queues?asOf={then}")).ok()["queues"]
    assert queue["leased"] == 2
    assert queue["leases"] == [
        {
            "commandId": short["commandId"],
            "leaseId": short["leaseId"],
            "leaseExpiresAt": "2026-03-01T10:01:00Z",
            "attempt": 1,
        },
        {
            "commandId": long["commandId"],
            "leaseId": long["leaseId"],
            "leaseExpiresAt": "2026-03-01T10:10:00Z",
            "attempt": 1,
            "agent": "a-17",
        },
    ]
    (now,) = (await served.client.get("/v1/queues?asOf=99999")).ok()["queues"]
    assert now["leases"] == []


async def test_a_delayed_command_was_pending_once_its_time_had_come(served: Served) -> None:
    await served.create(notBefore="2026-03-01T10:00:30Z")
    end = await served.journal.end()
    served.clock.advance(60)
    counts = {}
    for moment in (end, "2026-03-01T10:00:29Z", "2026-03-01T10:00:31Z"):
        (queue,) = (await served.client.get(f"/v1/queues?asOf={moment}")).ok()["queues"]
        counts[moment] = (queue["pending"], queue["delayed"])
    assert counts == {end: (0, 1), "2026-03-01T10:00:29Z": (0, 1), "2026-03-01T10:00:31Z": (1, 0)}


async def test_the_past_changes_nothing_now(served: Served) -> None:
    command_id = await served.create()
    await served.lease()
    before = (await served.client.get("/v1/queues")).body
    await served.client.get("/v1/queues?asOf=1")
    await as_of(served, command_id, 1)
    assert (await served.client.get("/v1/queues")).body == before
    assert served.app is not None


async def test_too_far_from_a_snapshot_says_how_to_do_it_offline() -> None:
    async with serving(as_of_messages_max=2) as served:
        for _ in range(4):
            await served.create()
            served.clock.advance(1)
        (await served.client.get("/v1/queues?asOf=2")).ok()
        for moment in (4, "2026-03-01T10:00:09Z"):
            answer = (await served.client.get(f"/v1/queues?asOf={moment}")).refused(422, "INVALID_REQUEST")
            assert "arc-es replay" in answer["message"]


async def test_only_a_short_line_waits_for_the_past(served: Served) -> None:
    await served.create()
    as_of_now = served.node.service.as_of
    asked = trio.Event()
    go_on = trio.Event()
    fold = as_of_now._fold_queues

    async def held(moment: Any) -> Any:
        asked.set()
        await go_on.wait()
        return await fold(moment)

    as_of_now._fold_queues = held
    statuses: list[int] = []

    async def ask() -> None:
        statuses.append((await served.client.get("/v1/queues?asOf=1")).status)

    async with trio.open_nursery() as nursery:
        for _ in range(1 + LINE_MAX):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert asked.is_set()
        answer = await served.client.get("/v1/queues?asOf=1")
        answer.refused(503, "OVERLOADED")
        assert "retry-after" in answer.headers
        go_on.set()
    assert statuses == [200] * (1 + LINE_MAX)


async def test_a_token_sees_its_own_queues_only(served: Served) -> None:
    await served.create()
    await served.create(deploymentId="other")
    made = await served.client.post("/v1/tokens", {"scope": "auditor", "deployments": ["other"]})
    token = made.json["token"]
    found = (await served.client.presenting(token).get("/v1/queues?asOf=99")).ok()["queues"]
    assert [queue["deploymentId"] for queue in found] == ["other"]
