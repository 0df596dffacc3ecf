"""Letting what failed or expired run again (extensions, "Creating and waiting")."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from arc_es.journal.memory import Fault, MemoryJournal
from arc_es.storage.memory import MemoryBodyStore
from tests.http.driver import Answer, Clock, Served, a_lease, a_target, failure, inline, serving, success
from tests.http.pushes import ACCEPTED, REJECTED, Script
from tests.http.test_eviction import in_memory, settled
from tests.http.test_storage import LARGE, all_names, complete, downloaded, follow, uploaded, waiting_for_upload

WORKER = a_target("indexer", "worker") | {"delivery": "push", "push": {"url": "http://192.0.2.9:7000/commands"}}


async def failed(served: Served, **more: Any) -> str:
    """A command that an agent answered with an error."""
    command_id = await served.create(**more)
    await served.lease(maxLeases=10)
    await served.respond(command_id, failure())
    return command_id


async def redrive(served: Served, command_id: str) -> Answer:
    return await served.client.post(f"/v1/commands/{command_id}/redrive")


async def full(served: Served, command_id: str) -> Any:
    return (await served.client.get(f"/v1/commands/{command_id}?view=full")).ok()


async def test_what_failed_runs_again_as_a_new_command(served: Served) -> None:
    old = await failed(served, params=inline(b'{"day":1}'), priority=7, labels={"team": "ops"}, maxAttempts=3)
    answer = (await redrive(served, old)).ok()
    new = answer.pop("commandId")
    assert answer == {"state": "PENDING", "inlineAllowedUpTo": 150_000, "next": "poll"}
    (lease,) = await served.lease()
    assert (lease["envelope"]["commandId"], lease["envelope"]["attempt"]) == (new, 1)
    assert lease["envelope"]["params"] == inline(b'{"day":1}')
    before, after = await full(served, old), await full(served, new)
    assert (before["state"], before["redrivenAs"], after["redriveOf"]) == ("FAILED", new, old)
    for name in ("deploymentId", "target", "command", "priority", "labels", "requestSizeBytes"):
        assert before[name] == after[name]
    await served.respond(new)
    assert (await served.status(new))["state"] == "SUCCEEDED"
    assert (await served.status(old))["response"] == failure()


async def test_the_links_are_events_of_one_moment(served: Served) -> None:
    old = await failed(served)
    new = (await redrive(served, old)).ok()["commandId"]
    (created,), redriven = await served.events(new), (await served.events(old))[-1]
    assert (redriven["type"], redriven["data"]) == ("CommandRedriven", {"redrivenAs": new})
    assert (created["data"]["redriveOf"], created["seq"], created["at"]) == (old, redriven["seq"] - 1, redriven["at"])
    assert created["by"] == redriven["by"]


@pytest.mark.parametrize("size", [2, 5_000, 200_000])
async def test_params_of_any_size_go_with_it(size: int) -> None:
    store = MemoryBodyStore()
    async with serving(store=store) as served:
        raw = b"x" * size
        old = await failed(served, params=inline(raw))
        new = (await redrive(served, old)).ok()["commandId"]
        (lease,) = await served.lease()
        params = lease["envelope"]["params"]
        assert params == inline(raw) if size < 200_000 else await downloaded(served, params) == raw
        assert new == lease["envelope"]["commandId"]


async def test_a_copy_of_large_params_outlives_the_sweep_and_the_first_one() -> None:
    clock = Clock()
    store = MemoryBodyStore(clock)
    async with serving(store=store, clock=clock, orphan_seconds_min=3_600) as served:
        old = await uploaded(served, LARGE)
        await served.lease()
        await served.respond(old, failure())
        new = (await redrive(served, old)).ok()["commandId"]
        (ref,) = [name for name in await all_names(store) if old in name and name.count("/") > 3]
        await store.delete(ref)
        await trio.sleep(7_200)
        clock.advance(2 * 86_400)
        await served.node.sweep.once()
        (lease,) = await served.lease()
        assert lease["envelope"]["commandId"] == new
        assert await downloaded(served, lease["envelope"]["params"]) == LARGE
        (await redrive(served, old)).ok()  # the newest one still runs
        await served.respond(new, failure())
        (await redrive(served, old)).refused(400, "INVALID_STATE_TRANSITION")  # and now its params are gone


async def test_an_upload_that_never_came_is_asked_for_again(served: Served) -> None:
    old = (await waiting_for_upload(served))["commandId"]
    served.clock.advance(2 * 86_400)
    answer = (await redrive(served, old)).ok()
    assert (answer["state"], answer["next"]) == ("PENDING_UPLOAD", "upload")
    await follow(served, answer["storageUpload"]["putRequest"], LARGE)
    (await complete(served, answer["commandId"], len(LARGE))).ok()
    assert [lease["envelope"]["commandId"] for lease in await served.lease()] == [answer["commandId"]]


async def test_times_that_have_passed_are_over_and_others_stay(served: Served) -> None:
    old = await served.create(deadline="2026-03-01T10:00:10Z")
    later = await failed(served, deadline="2026-03-01T12:00:00Z")
    served.clock.advance(60)
    assert "deadline" not in await full(served, (await redrive(served, old)).ok()["commandId"])
    assert (await full(served, old))["state"] == "EXPIRED"
    kept = await full(served, (await redrive(served, later)).ok()["commandId"])
    assert kept["deadline"] == "2026-03-01T12:00:00Z"


async def test_the_key_stays_with_the_first_one(served: Served) -> None:
    old = await failed(served, idempotencyKey="order:42")
    new = (await redrive(served, old)).ok()["commandId"]
    assert old == await served.create(idempotencyKey="order:42")
    assert new != old


async def test_whoever_repeats_a_redrive_does_not_run_it_twice(served: Served) -> None:
    old = await failed(served)
    new = (await redrive(served, old)).ok()["commandId"]
    assert (await redrive(served, old)).ok()["commandId"] == new
    await served.lease()
    assert (await redrive(served, old)).ok() == {
        "commandId": new,
        "state": "DISPATCHED",
        "inlineAllowedUpTo": 150_000,
        "next": "poll",
    }
    await served.respond(new)
    assert (await redrive(served, old)).ok()["state"] == "SUCCEEDED"
    assert (await served.types(old)).count("CommandRedriven") == 1


async def test_a_redrive_that_failed_is_redriven_from_either_end(served: Served) -> None:
    first = await failed(served)
    second = (await redrive(served, first)).ok()["commandId"]
    await served.lease()
    await served.respond(second, failure())
    third = (await redrive(served, first)).ok()["commandId"]
    fourth = (await redrive(served, second)).ok()["commandId"]
    assert len({first, second, third, fourth}) == 4
    links = [(await full(served, one)).get("redriveOf") for one in (first, second, third, fourth)]
    assert links == [None, first, first, second]
    assert (await full(served, first))["redrivenAs"] == third


async def test_many_at_once_make_one(served: Served) -> None:
    old = await failed(served, params=inline(b"x" * 5_000))
    ids: list[str] = []

    async def one() -> None:
        ids.append((await redrive(served, old)).ok()["commandId"])

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(one)
    assert len(set(ids)) == 1
    assert len(await served.lease(maxLeases=100)) == 1


@pytest.mark.parametrize("fault", [Fault.LOST_ACK, Fault.LOST_SEND])
async def test_a_lost_answer_of_the_journal_makes_one_whole_redrive(fault: Fault) -> None:
    """Both messages are there, or neither is, whatever the journal says of it."""
    journal = MemoryJournal()
    async with serving(journal=journal, append_seconds_max=5.0) as served:
        old = await failed(served)
        journal.fault = fault
        async with trio.open_nursery() as nursery:

            async def mend() -> None:
                await trio.sleep(1)
                journal.fault = None

            nursery.start_soon(mend)
            new = (await redrive(served, old)).ok()["commandId"]
        assert (await full(served, old))["redrivenAs"] == new
        assert (await full(served, new))["redriveOf"] == old
        assert len(await served.lease(maxLeases=100)) == 1


async def test_what_has_not_failed_is_not_redriven(served: Served) -> None:
    command_id = await served.create()
    (await redrive(served, command_id)).refused(400, "INVALID_STATE_TRANSITION")
    await served.lease()
    (await redrive(served, command_id)).refused(400, "INVALID_STATE_TRANSITION")
    await served.respond(command_id, success())
    (await redrive(served, command_id)).refused(400, "INVALID_STATE_TRANSITION")
    (await redrive(served, "cmd_none")).refused(404, "COMMAND_NOT_FOUND")
    assert (await served.types(command_id))[-1] == "CommandSucceeded"


async def test_a_target_that_is_not_declared_any_more_is_refused(served: Served) -> None:
    old = await failed(served)
    await served.declare(a_target("other"))
    (await redrive(served, old)).refused(404, "COMMAND_TARGET_NOT_FOUND")
    await served.declare(a_target(), maxAttempts=7)
    (await redrive(served, old)).ok()


async def test_a_rejected_push_is_pushed_again() -> None:
    script = Script(REJECTED, ACCEPTED)
    async with serving(pusher=script, public_url="http://arc.example") as served:
        await served.declare(WORKER)
        old = await served.create()
        assert (await served.status(old))["state"] == "FAILED"
        answer = (await redrive(served, old)).ok()
        assert answer["state"] == "DISPATCHED"


@pytest.mark.parametrize(
    ("scope", "deployment", "status"),
    [("sender", "dep", 200), ("sender", "other", 403), ("receiver", "dep", 403), ("auditor", "dep", 403)],
)
async def test_whoever_may_create_may_redrive(served: Served, scope: str, deployment: str, status: int) -> None:
    old = await failed(served)
    minted = await served.client.post("/v1/tokens", {"scope": scope, "deployments": [deployment]})
    token = minted.json["token"]
    assert (await served.client.presenting(token).post(f"/v1/commands/{old}/redrive")).status == status


async def test_nobody_but_its_own_scope_redrives_for_the_operator(served: Served) -> None:
    mint = {"scope": "operations", "deployments": ["dep"], "command": "operator/restart"}
    operations = (await served.client.post("/v1/tokens", mint)).json["token"]
    body = {"deploymentId": "dep", "command": "operator/restart", "targetResourceId": "operator", "params": inline(b"")}
    as_operations = served.client.presenting(operations)
    old = (await as_operations.post("/v1/commands", body)).ok()["commandId"]
    await served.client.post("/v1/commands/leases", a_lease(target=a_target("operator")))
    await served.respond(old, failure())
    (await redrive(served, old)).refused(403, "FORBIDDEN")
    new = (await as_operations.post(f"/v1/commands/{old}/redrive")).ok()["commandId"]
    assert (await full(served, new))["redriveOf"] == old


async def test_dead_letters_are_found_by_their_origin(served: Served) -> None:
    agent = await failed(served)
    served.clock.advance(1)
    spare = await failed(served)
    gave_up = await served.create(maxAttempts=1)
    await served.lease(leaseSeconds=10)
    served.clock.advance(10)
    assert (await served.status(gave_up))["state"] == "FAILED"
    new = (await redrive(served, agent)).ok()["commandId"]

    async def found(query: str) -> list[str]:
        page = (await served.client.get(f"/v1/commands?order=asc&{query}")).ok()
        return [entry["commandId"] for entry in page["commands"]]

    assert await found("state=FAILED&origin=agent") == [agent, spare]
    assert await found("origin=attempts") == [gave_up]
    assert await found("origin=agent&redriven=false") == [spare]
    assert await found("redriven=true") == [agent]
    assert await found("origin=cancel") == []
    (entry,) = (await served.client.get("/v1/commands?redriven=true")).ok()["commands"]
    assert (entry["origin"], entry["redrivenAs"]) == ("agent", new)
    for query in ("origin=nobody", "origin=agent&state=PENDING", "redriven=perhaps"):
        (await served.client.get(f"/v1/commands?{query}")).refused(422, "INVALID_REQUEST")


async def test_what_left_memory_is_redriven_and_linked_on_every_node() -> None:
    journal = MemoryJournal()
    async with (
        serving(journal=journal, finished_in_memory_max=1) as served,
        serving(journal=journal, finished_in_memory_max=1) as other,
    ):
        old = await failed(served)
        for _ in range(3):
            await served.respond(await served.create(), failure())
            await failed(served)
        for node in (served, other):
            await settled(node)
            assert old not in in_memory(node)
        new = (await redrive(other, old)).ok()["commandId"]
        for node in (served, other):
            await settled(node)
            assert (await full(node, old))["redrivenAs"] == new
            (entry,) = (await node.client.get("/v1/commands?redriven=true")).ok()["commands"]
            assert (entry["commandId"], entry["redrivenAs"]) == (old, new)
            assert (await redrive(node, old)).ok()["commandId"] == new
