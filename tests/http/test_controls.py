"""Pausing targets and deployments, and limiting how much of a target is under way (extensions, "Deployments")."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from arc_es.domain.recorded import Key
from arc_es.journal.memory import MemoryJournal
from arc_es.ports import Handle
from tests.actors.test_lagging_node import Behind, letting_go
from tests.http.driver import Answer, Clock, Served, a_command, a_target, serving
from tests.http.pushes import ACCEPTED, UNCLEAR, Script, answer_by_url, pushing
from tests.http.test_lagging_node import two_nodes

DEP = "/v1/deployments/dep"
SINCE = "are paused since 2026-03-01T10:00:00Z"


async def pause(served: Served, **body: Any) -> Answer:
    return await served.client.post(f"{DEP}/pause", body)


async def resume(served: Served, **body: Any) -> Answer:
    return await served.client.post(f"{DEP}/resume", body)


async def limit(served: Served, most: int | None, target: str = "indexer") -> Answer:
    return await served.client.post(f"{DEP}/limit", {"target": target, "maxConcurrent": most})


async def queue(served: Served, target: str = "indexer") -> Any:
    found = (await served.client.get("/v1/queues")).ok()["queues"]
    return next(entry for entry in found if entry["target"]["resourceId"] == target)


# --- pauses


async def test_a_paused_target_leases_nothing_and_goes_on_when_it_resumes(served: Served) -> None:
    command_id = await served.create()
    said = (await pause(served, target="indexer", reason="database moves")).ok()
    entry = {"target": "indexer", "paused": True, "pausedAt": "2026-03-01T10:00:00Z", "reason": "database moves"}
    assert said == {"deploymentId": "dep", "paused": False, "targets": [entry]}
    assert await served.lease(waitSeconds=5) == []
    assert await served.lease(target=None) == []
    late = await served.create()
    assert await served.lease(maxLeases=10) == []
    assert (await queue(served))["paused"] is True
    assert (await resume(served, target="indexer")).ok() == {"deploymentId": "dep", "paused": False, "targets": []}
    assert "paused" not in await queue(served)
    leases = await served.lease(maxLeases=10)
    assert [lease["envelope"]["commandId"] for lease in leases] == [command_id, late]


async def test_other_targets_go_on(served: Served) -> None:
    await served.create()
    other = await served.create(targetResourceId="other")
    await pause(served, target="indexer")
    (lease,) = await served.lease(target=None, maxLeases=10)
    assert lease["envelope"]["commandId"] == other


async def test_a_whole_deployment_is_paused(served: Served) -> None:
    await served.create()
    await served.create(targetResourceId="other")
    elsewhere = await served.create(deploymentId="elsewhere")
    assert (await pause(served)).ok()["paused"] is True
    assert await served.lease(target=None, maxLeases=10) == []
    assert await served.lease(target=a_target("other")) == []
    (lease,) = await served.lease(deploymentId="elsewhere")
    assert lease["envelope"]["commandId"] == elsewhere
    await resume(served, target="other")  # that was not what was paused
    assert await served.lease(target=a_target("other")) == []
    await resume(served)
    assert len(await served.lease(target=None, maxLeases=10)) == 2


async def test_what_is_held_is_finished_during_a_pause(served: Served) -> None:
    command_id = await served.create()
    (lease,) = await served.lease()
    await pause(served, target="indexer")
    renewed = await served.client.post(f"/v1/commands/leases/{lease['leaseId']}/renew", {"leaseSeconds": 60})
    assert renewed.status == 200
    (await served.respond(command_id)).ok()
    assert (await served.status(command_id))["state"] == "SUCCEEDED"


async def test_a_resume_wakes_all_who_wait_as_far_as_there_is_work(served: Served) -> None:
    await pause(served)
    ids = [await served.create() for _ in range(3)] + [await served.create(targetResourceId="other")]
    got: list[str] = []

    async def agent(**more: Any) -> None:
        got.extend(lease["envelope"]["commandId"] for lease in await served.lease(waitSeconds=60, **more))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(agent)
            nursery.start_soon(lambda: agent(target=None))
            nursery.start_soon(lambda: agent(target=a_target("other")))
            await wait_all_tasks_blocked()
            (await resume(served)).ok()
    assert sorted(got) == sorted(ids)


async def test_a_pause_survives_a_declaration_and_a_restart(served: Served) -> None:
    await pause(served, target="indexer", reason="r")
    await limit(served, 3)
    (await served.declare(a_target())).ok()
    await served.create()
    assert await served.lease() == []
    async with serving(journal=served.journal, clock=served.clock) as again:
        said = (await again.client.get(f"{DEP}/controls")).ok()
        assert said["targets"][0]["maxConcurrent"] == 3
        assert said["targets"][0]["reason"] == "r"
        assert await again.lease() == []
        await resume(again, target="indexer")
        assert len(await again.lease()) == 1


async def test_the_same_again_is_no_event(served: Served) -> None:
    for _ in range(2):
        await pause(served)
        await limit(served, 2)
    for _ in range(2):
        await resume(served)
        await limit(served, None)
    events = (await served.client.get("/v1/events?deploymentId=dep")).ok()["events"]
    names = ["DeliveryPaused", "ConcurrencyLimited", "DeliveryResumed", "ConcurrencyLimited"]
    assert [event["type"] for event in events] == names
    assert events[1]["data"] == {"targetId": "indexer", "leasesMax": 2}


async def test_a_push_waits_for_the_resume() -> None:
    script = Script(ACCEPTED)
    async with pushing(script) as served:
        await pause(served, target="builder")
        with trio.fail_after(1):  # a create does not wait for a push that does not come
            created = (await served.client.post("/v1/commands", a_command(targetResourceId="builder"))).ok()
        assert created["state"] == "PENDING"
        await wait_all_tasks_blocked()
        assert script.sent == []
        await resume(served, target="builder")
        with trio.fail_after(5):
            await script.until(1)
        await wait_all_tasks_blocked()
        assert (await served.status(created["commandId"]))["state"] == "DISPATCHED"


# --- limits


async def test_at_most_so_many_are_held_at_once(served: Served) -> None:
    await limit(served, 2)
    ids = [await served.create() for _ in range(4)]
    assert len(await served.lease(maxLeases=10)) == 2
    assert await served.lease() == []
    assert await served.lease(target=None) == []
    assert (await queue(served))["maxConcurrent"] == 2
    await served.respond(ids[0])
    (lease,) = await served.lease(target=None, maxLeases=10)
    assert lease["envelope"]["commandId"] == ids[2]
    await limit(served, 3)
    assert len(await served.lease(maxLeases=10)) == 1


@pytest.mark.parametrize("way", ["answer", "release", "end", "cancel", "raise", "lift"])
async def test_room_wakes_who_waits(served: Served, way: str) -> None:
    await limit(served, 1)
    first, second = await served.create(), await served.create(priority=-1)
    (lease,) = await served.lease(leaseSeconds=10)
    got: list[Any] = []

    async def agent() -> None:
        got.extend(await served.lease(waitSeconds=60))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent)
            await wait_all_tasks_blocked()
            match way:
                case "answer":
                    await served.respond(first)
                case "release":
                    await served.release(lease["leaseId"])
                case "end":
                    served.clock.advance(10)
                case "cancel":
                    await served.client.post(f"/v1/commands/{first}/cancel")
                case "raise":
                    await limit(served, 2)
                case _:
                    await limit(served, None)
    again = way in ("release", "end")
    assert [lease["envelope"]["commandId"] for lease in got] == [first if again else second]


async def test_pushes_keep_to_the_limit() -> None:
    script = Script(UNCLEAR)
    async with pushing(script) as served:
        await limit(served, 1, "builder")
        for _ in range(3):
            await served.create(targetResourceId="builder")
        for count in (1, 2, 3):
            with trio.fail_after(5):
                await script.until(count)
            await wait_all_tasks_blocked()
            assert len(script.sent) == count
            (await answer_by_url(served, script.sent[-1])).ok()


# --- several nodes


class HearsSoMany(Behind):
    """The second follower hears the first messages at once, and others when it is let go."""

    heard = 3

    async def follow(self, after: int, handle: Handle) -> None:
        def first_only(position: int, key: Key, payload: bytes) -> None:
            if position <= self.heard:
                handle(position, key, payload)

        if self._followers == 1:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(MemoryJournal.follow, self, 0, first_only)
                await super().follow(self.heard, handle)
        else:
            await super().follow(after, handle)


@pytest.mark.parametrize("what", ["pause", "limit"])
async def test_a_node_that_has_not_heard_of_it_hands_out_nothing_beyond_it(what: str) -> None:
    """The order of the log decides, not what a node happens to know."""
    journal = HearsSoMany()
    async with two_nodes(journal) as (first, second):
        await first.declare(a_target())
        ids = [await first.create() for _ in range(2)]
        (await (pause(first, target="indexer") if what == "pause" else limit(first, 1))).ok()
        async with letting_go(journal):
            leases = await second.lease(maxLeases=10)
        assert len(leases) == (0 if what == "pause" else 1)
        for one in ids[len(leases) :]:
            assert (await first.types(one))[-2:] == ["CommandLeased", "LeaseReleased"]
            assert (await first.status(one))["state"] == "PENDING"
            assert (await first.status(one))["attempt"] == 1
        (await (resume(first, target="indexer") if what == "pause" else limit(first, None))).ok()
        assert len(await second.lease(maxLeases=10)) == 2 - len(leases)


async def test_a_storm_on_two_nodes_never_holds_more_than_the_limit() -> None:
    journal = MemoryJournal()
    clock = Clock()
    held = most = done = 0
    async with serving(journal=journal, clock=clock) as first, serving(journal=journal, clock=clock) as second:
        await limit(first, 3)
        for _ in range(60):
            await first.create()

        async def agent(node: Served) -> None:
            nonlocal held, most, done
            while done < 60:
                for lease in await node.lease(maxLeases=2, waitSeconds=1):
                    held += 1
                    most = max(most, held)
                    await trio.sleep(0.001)
                    held -= 1  # before the answer: its event makes room
                    (await node.respond(lease["envelope"]["commandId"])).ok()
                    done += 1

        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                for _ in range(6):
                    nursery.start_soon(agent, first)
                    nursery.start_soon(agent, second)
    assert (most, done) == (3, 60)


# --- what is said of it


async def test_explain_says_what_keeps_a_command_back(served: Served) -> None:
    async def because(command_id: str) -> Any:
        return (await served.client.get(f"/v1/commands/{command_id}/explain")).ok()["because"]

    await limit(served, 1)
    first, second = await served.create(), await served.create()
    await served.lease()
    assert await because(second) == "indexer has as many commands under way as it may have at once, 1."
    await pause(served, target="indexer", reason="database moves")
    assert (
        await because(second) == "Deliveries of indexer in dep are paused since 2026-03-01T10:00:00Z: database moves."
    )
    await pause(served)
    assert await because(second) == f"Deliveries of dep {SINCE}."
    await served.client.post(f"/v1/commands/{first}/cancel", {"reason": "no need"})
    new = (await served.client.post(f"/v1/commands/{first}/redrive")).ok()["commandId"]
    found = (await served.client.get(f"/v1/commands/{first}/explain")).ok()
    assert found["because"] == (
        f"admin cancelled it at 2026-03-01T10:00:00Z (CANCELLED: no need); it was redriven as {new}."
    )
    assert found["facts"]["redrivenAs"] == new
    assert (await served.client.get(f"/v1/commands/{new}/explain")).ok()["facts"]["redriveOf"] == first


# --- rights and refusals


@pytest.mark.parametrize("path", ["pause", "resume", "limit"])
@pytest.mark.parametrize("scope", ["sender", "receiver", "auditor"])
async def test_only_administrators_control(served: Served, path: str, scope: str) -> None:
    token = (await served.client.post("/v1/tokens", {"scope": scope, "deployments": ["dep"]})).json["token"]
    client = served.client.presenting(token)
    (await client.post(f"{DEP}/{path}", {"target": "indexer"})).refused(403, "FORBIDDEN")
    (await client.get(f"{DEP}/controls")).ok()
    (await client.get("/v1/deployments/other/controls")).refused(403, "FORBIDDEN")


async def test_targets_of_a_declared_deployment_have_to_exist(served: Served) -> None:
    await served.declare(a_target())
    (await pause(served, target="indexr")).refused(404, "COMMAND_TARGET_NOT_FOUND")
    (await limit(served, 1, "indexr")).refused(404, "COMMAND_TARGET_NOT_FOUND")
    for name in ("indexer", "operator"):
        (await pause(served, target=name)).ok()
    await served.declare(a_target("other"))
    (await resume(served, target="indexer")).ok()  # what is gone can be let go


async def test_what_cannot_be_read_is_refused(served: Served) -> None:
    for body in ({"target": 7}, {"target": "x", "maxConcurrent": 0}, {"target": "x", "maxConcurrent": "2"}, {}):
        (await served.client.post(f"{DEP}/limit", body)).refused(422, "INVALID_REQUEST")
    (await pause(served, target="a:b")).refused(400, "COMMAND_TARGET_ID_INVALID")
    (await pause(served, target="")).refused(400, "COMMAND_TARGET_ID_INVALID")
    assert (await served.client.post(f"{DEP}/pause")).status == 200  # no body: all of it
