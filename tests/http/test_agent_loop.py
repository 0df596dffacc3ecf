"""The one call of an agent: answers, renewals and leases together, and what it must not go on with (extensions)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing

from arc_es.journal.memory import MemoryJournal
from arc_es.ports import Append, AppendOutcome
from tests.http.driver import Answer, Served, a_lease, a_target, failure, inline, serving, success

AGENT = {"id": "a-17", "version": "1.2", "labels": {"zone": "b"}}


async def loop(served: Served, **more: Any) -> Any:
    """The answer to one call."""
    return (await served.client.post("/v1/commands/leases", a_lease(**more))).ok()


def done(lease: Any, response: Any = None) -> dict[str, Any]:
    """An answer to a lease, as an entry of `complete`."""
    return {"commandId": lease["commandId"], "leaseId": lease["leaseId"], "response": response or success()}


async def cancel(served: Served, command_id: str) -> None:
    (await served.client.post(f"/v1/commands/{command_id}/cancel")).ok()


class Counting(MemoryJournal):
    """Knows how many messages came with each call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    async def append(self, appends: Sequence[Append]) -> list[AppendOutcome]:
        self.calls.append(len(appends))
        return await super().append(appends)


# --- all of it together


async def test_answers_renewals_and_leases_in_one_call(served: Served) -> None:
    ids = [await served.create() for _ in range(3)]
    first, second = await served.lease(maxLeases=2)
    served.clock.advance(5)
    answer = await loop(
        served,
        complete=[done(first), done(second, failure())],
        renew=[{"leaseId": second["leaseId"], "leaseSeconds": 30}],
        maxLeases=2,
    )
    assert answer["completed"] == [
        {"commandId": ids[0], "state": "SUCCEEDED"},
        {"commandId": ids[1], "state": "FAILED"},
    ]
    (renewed,) = answer["renewed"]
    assert (renewed["leaseId"], renewed["error"]["code"]) == (second["leaseId"], "LEASE_NOT_FOUND")
    assert [lease["commandId"] for lease in answer["leases"]] == ids[2:]
    assert answer["cancelled"] == []
    assert (await served.status(ids[0]))["response"] == success()
    assert (await served.status(ids[1]))["response"] == failure()


async def test_a_plain_request_gets_a_plain_answer(served: Served) -> None:
    assert set(await loop(served)) == {"leases"}
    assert set(await loop(served, agent=AGENT)) == {"leases", "cancelled"}
    assert set(await loop(served, complete=[])) == {"leases", "completed", "cancelled"}
    assert set(await loop(served, renew=[], maxLeases=0)) == {"leases", "renewed", "cancelled"}


async def test_a_call_of_many_appends_twice() -> None:
    journal = Counting()
    async with serving(journal) as served:
        for _ in range(200):
            await served.create()
        held = await served.lease(maxLeases=100)
        journal.calls.clear()
        answer = await loop(
            served,
            complete=[done(lease) for lease in held[:60]],
            renew=[{"leaseId": lease["leaseId"], "leaseSeconds": 90} for lease in held[60:]],
            maxLeases=100,
        )
        assert {entry["state"] for entry in answer["completed"]} == {"SUCCEEDED"}
        assert {entry["leaseExpiresAt"] for entry in answer["renewed"]} == {"2026-03-01T10:01:30Z"}
        assert len(answer["leases"]) == 100
        assert journal.calls == [100, 100]


async def test_an_answer_frees_its_agent_for_the_next_command_of_the_same_call(served: Served) -> None:
    """Answers come before leases: what a completed command held up may be leased."""
    first = await served.create()
    (lease,) = await served.lease()
    second = await served.create()
    answer = await loop(served, complete=[done(lease)])
    assert answer["completed"] == [{"commandId": first, "state": "SUCCEEDED"}]
    assert [lease["commandId"] for lease in answer["leases"]] == [second]


async def test_large_and_small_answers_come_out_as_they_went_in(served: Served) -> None:
    sizes = (0, 5, 4_096, 4_097, 150_000, 150_001)
    for _ in sizes:
        await served.create()
    held = await served.lease(maxLeases=9)
    await loop(served, complete=[done(one, success(b"x" * size)) for one, size in zip(held, sizes, strict=True)])
    for lease, size in zip(held[:-1], sizes, strict=False):
        assert (await served.status(lease["commandId"]))["response"] == success(b"x" * size)
    assert (await served.status(held[-1]["commandId"]))["response"]["response"]["size"] == 150_001


# --- each entry alone


async def test_one_bad_entry_fails_itself_only(served: Served) -> None:
    for _ in range(2):
        await served.create()
    good, other = await served.lease(maxLeases=2)
    unknown = {"commandId": "cmd_x", "leaseId": "lease_x"}
    entries: list[Any] = [
        5,
        {},
        unknown | {"response": success()},
        done(other) | {"leaseId": good["leaseId"]},
        done(other, {"status": "maybe"}),
        done(other, {"status": "success", "response": {"mode": "inline", "inlineBase64": "!"}}),
        done(other, {"status": "success", "response": {"mode": "storage", "size": 3}}),
        done(good),
    ]
    completed = (await loop(served, complete=entries, maxLeases=0))["completed"]
    assert [entry["error"]["code"] for entry in completed[:-1]] == [
        "INVALID_REQUEST",
        "INVALID_REQUEST",
        "COMMAND_NOT_FOUND",
        "LEASE_NOT_FOUND",
        "INVALID_REQUEST",
        "INVALID_REQUEST",
        "INVALID_COMMAND",
    ]
    assert [entry.get("commandId") for entry in completed] == [None, None, "cmd_x"] + [other["commandId"]] * 4 + [
        good["commandId"]
    ]
    assert completed[-1]["state"] == "SUCCEEDED"
    assert (await served.status(other["commandId"]))["state"] == "DISPATCHED"
    renewed = (await loop(served, renew=[5, {"leaseId": "x"}, {"leaseId": other["leaseId"], "leaseSeconds": -1}]))[
        "renewed"
    ]
    assert [entry["error"]["code"] for entry in renewed] == ["INVALID_REQUEST", "LEASE_NOT_FOUND", "INVALID_REQUEST"]


@pytest.mark.parametrize("field", ["complete", "renew"])
async def test_too_many_entries_are_413_and_no_list_is_422(served: Served, field: str) -> None:
    for value, status, code in (([{}] * 1001, 413, "PAYLOAD_TOO_LARGE"), ({}, 422, "INVALID_REQUEST")):
        answer = await served.client.post("/v1/commands/leases", a_lease(**{field: value}))
        answer.refused(status, code)
    assert (
        len((await loop(served, **{field: [{}] * 1000}))[{"complete": "completed", "renew": "renewed"}[field]]) == 1000
    )


async def test_the_body_may_be_larger_than_others(served: Served) -> None:
    await served.create()
    (lease,) = await served.lease()
    large = success(b"x" * 3_000_000)
    assert (await served.respond(lease["commandId"], large)).status == 413
    answer = await loop(served, complete=[done(lease, large)])
    assert answer["completed"][0]["state"] == "SUCCEEDED"


async def test_any_holder_may_answer_while_the_command_is_not_terminal(served: Served) -> None:
    command_id = await served.create()
    (first,) = await served.lease()
    await served.release(first["leaseId"])
    (second,) = await served.lease()
    (entry,) = (await loop(served, complete=[done(first)]))["completed"]
    assert entry == {"commandId": command_id, "state": "SUCCEEDED"}
    (entry,) = (await loop(served, complete=[done(second, success(b"2"))]))["completed"]
    assert entry == {"commandId": command_id, "state": "SUCCEEDED"}
    assert (await served.types(command_id))[-2:] == ["CommandSucceeded", "LateResponseRecorded"]
    assert (await served.status(command_id))["response"] == success()


async def test_a_command_back_in_the_queue_may_be_answered_by_its_former_holder(served: Served) -> None:
    await served.create()
    (lease,) = await served.lease(leaseSeconds=10)
    served.clock.advance(10)
    (entry,) = (await loop(served, complete=[done(lease)], maxLeases=0))["completed"]
    assert entry["state"] == "SUCCEEDED"


async def test_a_passed_deadline_comes_first(served: Served) -> None:
    command_id = await served.create(deadline="2026-03-01T10:00:05Z")
    (lease,) = await served.lease()
    served.clock.advance(6)
    (entry,) = (await loop(served, complete=[done(lease)]))["completed"]
    assert entry == {"commandId": command_id, "state": "EXPIRED"}
    assert (await served.types(command_id))[-2:] == ["CommandExpired", "LateResponseRecorded"]


async def test_a_repeated_call_changes_nothing(served: Served) -> None:
    for _ in range(5):
        await served.create()
    held = await served.lease(maxLeases=5)
    entries = [done(lease) for lease in held]
    first = await loop(served, complete=entries)
    end = await served.journal.end()
    assert await loop(served, complete=entries) == first
    assert await served.journal.end() == end


async def test_one_command_named_often_is_answered_once(served: Served) -> None:
    command_id = await served.create()
    (lease,) = await served.lease()
    entries = [done(lease, success(b"%d" % number)) for number in range(40)]
    completed = (await loop(served, complete=entries))["completed"]
    assert completed == [{"commandId": command_id, "state": "SUCCEEDED"}] * 40
    assert (await served.status(command_id))["response"] == success(b"0")


async def test_one_lease_named_often_is_renewed_once_as_the_last_entry_says(served: Served) -> None:
    command_id = await served.create()
    (lease,) = await served.lease()
    entries = [{"leaseId": lease["leaseId"], "leaseSeconds": seconds} for seconds in range(100, 200)]
    renewed = (await loop(served, renew=entries))["renewed"]
    assert {entry["leaseExpiresAt"] for entry in renewed} == {"2026-03-01T10:03:19Z"}
    assert (await served.types(command_id)).count("LeaseRenewed") == 1


async def test_a_command_that_has_left_memory_is_acknowledged() -> None:
    async with serving(finished_in_memory_max=1) as served:
        held = []
        for _ in range(4):
            await served.create()
            held += await served.lease()
            await loop(served, complete=[done(held[-1])], maxLeases=0)
            await trio.testing.wait_all_tasks_blocked()
        entries = [done(lease, success(b"again")) for lease in held]
        completed = (await loop(served, complete=entries))["completed"]
        assert [entry["state"] for entry in completed] == ["SUCCEEDED"] * 4


async def test_rights_are_looked_at_entry_by_entry(served: Served) -> None:
    await served.declare(a_target(), a_target("mailer", "container"))
    await served.create()
    await served.create(targetResourceId="mailer")
    (mine,) = await served.lease()
    (theirs,) = await served.lease(target=a_target("mailer", "container"))
    minted = {"scope": "receiver", "deployments": ["dep"], "targets": [a_target()]}
    token = (await served.client.post("/v1/tokens", minted)).json["token"]
    served.client = served.client.presenting(token)
    renew = [{"leaseId": lease["leaseId"]} for lease in (theirs, mine)]
    answer = await loop(served, complete=[done(theirs), done(mine)], renew=renew)
    assert [entry.get("error", {}).get("code") for entry in answer["completed"]] == ["FORBIDDEN", None]
    assert [entry["error"]["code"] for entry in answer["renewed"]] == ["FORBIDDEN", "LEASE_NOT_FOUND"]


# --- who did it


async def test_what_an_agent_says_of_itself_is_in_every_event_that_it_causes(served: Served) -> None:
    command_id = await served.create()
    (lease,) = (await loop(served, agent=AGENT))["leases"]
    await loop(served, agent=AGENT, renew=[{"leaseId": lease["leaseId"], "leaseSeconds": 90}])
    await loop(served, agent=AGENT, complete=[done(lease)])
    by = [event["by"].get("agent") for event in await served.events(command_id)]
    assert by == [None, AGENT, AGENT, AGENT]


@pytest.mark.parametrize(
    ("agent", "status"),
    [
        ({}, 422),
        ({"id": 5}, 422),
        ({"id": "a", "version": 5}, 422),
        ({"id": "a", "labels": {"x": 5}}, 422),
        ({"id": "x" * 1_025}, 400),
        ({"id": "a", "labels": {"x" * 65: "y"}}, 400),
    ],
)
async def test_an_agent_of_the_wrong_shape_is_refused(served: Served, agent: Any, status: int) -> None:
    answer = await served.client.post("/v1/commands/leases", a_lease(agent=agent))
    assert answer.status == status


# --- cancelled commands


async def test_the_holder_of_a_cancelled_command_is_told_in_every_answer_until_the_lease_would_have_ended(
    served: Served,
) -> None:
    command_id = await served.create()
    (lease,) = (await loop(served, agent=AGENT, leaseSeconds=10))["leases"]
    assert (await loop(served, agent=AGENT))["cancelled"] == []
    await cancel(served, command_id)
    told = [{"commandId": command_id, "leaseId": lease["leaseId"]}]
    for _ in range(2):
        assert (await loop(served, agent=AGENT))["cancelled"] == told
    assert (await loop(served, agent={"id": "other"}))["cancelled"] == []
    assert (await loop(served, agent=AGENT, deploymentId="another"))["cancelled"] == []
    named = await loop(served, renew=[{"leaseId": lease["leaseId"]}], agent={"id": "other"})
    assert named["cancelled"] == told
    assert named["renewed"] == [{"leaseId": lease["leaseId"], "leaseExpiresAt": "2026-03-01T10:00:10Z"}]
    served.clock.advance(10)
    assert (await loop(served, agent=AGENT))["cancelled"] == []


class Waiting:
    """A call under way."""

    def __init__(self) -> None:
        self.gone = trio.Event()
        self.answer = Answer()
        self.seconds = 0.0

    async def run(self, served: Served, **more: Any) -> None:
        before = trio.current_time()
        asked = a_lease(waitSeconds=60, agent=AGENT) | more
        self.answer = await served.client.post("/v1/commands/leases", asked, gone=self.gone)
        self.seconds = trio.current_time() - before


async def test_a_waiting_call_is_answered_at_once_when_a_command_of_its_agent_is_cancelled(served: Served) -> None:
    command_id = await served.create()
    (lease,) = (await loop(served, agent=AGENT, leaseSeconds=300))["leases"]
    mine, other = Waiting(), Waiting()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mine.run, served)
        nursery.start_soon(lambda: other.run(served, agent={"id": "other"}))
        await trio.testing.wait_all_tasks_blocked()
        await cancel(served, command_id)
    assert (mine.seconds, other.seconds) == (0, 60)
    assert mine.answer.ok() == {"leases": [], "cancelled": [{"commandId": command_id, "leaseId": lease["leaseId"]}]}
    again = Waiting()
    await again.run(served)
    assert again.seconds == 60  # it was told already
    assert len(again.answer.ok()["cancelled"]) == 1


async def test_what_was_cancelled_between_two_calls_is_told_at_once_and_by_the_next_that_arrives(
    served: Served,
) -> None:
    command_id = await served.create()
    await loop(served, agent=AGENT, leaseSeconds=300)
    await cancel(served, command_id)
    lost, heard = Waiting(), Waiting()
    lost.gone.set()
    await lost.run(served)
    assert lost.answer.status == 0
    await heard.run(served)
    assert (heard.seconds, len(heard.answer.ok()["cancelled"])) == (0, 1)


async def test_a_token_of_exact_targets_is_told_of_those_only(served: Served) -> None:
    await served.declare(a_target(), a_target("mailer", "container"))
    ids = [await served.create(), await served.create(targetResourceId="mailer")]
    await loop(served, agent=AGENT)
    await loop(served, agent=AGENT, target=a_target("mailer", "container"))
    for command_id in ids:
        await cancel(served, command_id)
    assert len((await loop(served, agent=AGENT))["cancelled"]) == 2
    minted = {"scope": "receiver", "deployments": ["dep"], "targets": [a_target()]}
    token = (await served.client.post("/v1/tokens", minted)).json["token"]
    served.client = served.client.presenting(token)
    assert [entry["commandId"] for entry in (await loop(served, agent=AGENT))["cancelled"]] == ids[:1]


# --- trouble in between


async def test_what_was_settled_is_answered_though_no_lease_can_be_waited_for() -> None:
    async with serving(waiters_max=0) as served:
        await served.create()
        (lease,) = await served.lease()
        answer = await loop(served, complete=[done(lease)], waitSeconds=9)
        assert answer["completed"][0]["state"] == "SUCCEEDED"
        assert answer["leases"] == []
        (await served.client.post("/v1/commands/leases", a_lease(waitSeconds=9))).refused(503, "OVERLOADED")


async def test_answers_are_taken_before_the_call_waits(served: Served) -> None:
    command_id = await served.create()
    (lease,) = await served.lease()
    call = Waiting()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: call.run(served, complete=[done(lease)]))
        await trio.testing.wait_all_tasks_blocked()
        assert (await served.status(command_id))["state"] == "SUCCEEDED"
        assert call.answer.status == 0
        later = await served.create(params=inline(b"1"))
    assert [lease["commandId"] for lease in call.answer.ok()["leases"]] == [later]
