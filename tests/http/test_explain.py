"""Why a command is where it is (extensions, "Finding")."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_es.domain.limits import SECOND
from tests.domain.story import T0 as STORY_T0
from tests.http.driver import Served, a_target, failure, inline, serving, success
from tests.http.pushes import ACCEPTED, REJECTED, Script
from tests.projections.world import World, created, leased, released

UPLOAD = {"mode": "storage", "size": 3}
SLOWLY = {"initialSeconds": 30, "maxSeconds": 60, "factor": 2}


async def why(served: Served, command_id: str) -> Any:
    answer = (await served.client.get(f"/v1/commands/{command_id}/explain")).ok()
    assert set(answer) == {"state", "because", "facts"}
    assert answer["state"] == (await served.status(command_id))["state"]
    assert answer["because"].endswith(".")
    return answer


async def test_an_upload_is_waited_for(served: Served) -> None:
    found = await why(served, await served.create(params=UPLOAD))
    assert found["because"] == "It waits until 2026-03-02T10:00:00Z for its params to be uploaded."
    assert found["facts"] == {"uploadUntil": "2026-03-02T10:00:00Z", "announcedBytes": 3}


async def test_nobody_has_ever_asked_for_work(served: Served) -> None:
    await served.create()
    found = await why(served, await served.create())
    assert found["because"] == (
        "No agent has asked for work of indexer in dep since this service started at 2026-03-01T10:00:00Z;"
        " 1 command is ahead of it."
    )
    assert found["facts"] == {"attempt": 1, "maxAttempts": 20, "ahead": 1, "aheadIsExact": True, "waitingAgents": 0}


async def test_nobody_has_asked_for_work_lately(served: Served) -> None:
    await served.lease(agent={"id": "a-17"})
    command_id = await served.create()
    assert (await why(served, command_id))["because"] == (
        "It is the next one for indexer, which was last asked for work at 2026-03-01T10:00:00Z."
    )
    served.clock.advance(3600)
    found = await why(served, command_id)
    assert found["because"] == "No agent has asked for work of indexer in dep since 2026-03-01T10:00:00Z."
    assert (found["facts"]["lastPollAt"], found["facts"]["lastAgent"]) == ("2026-03-01T10:00:00Z", "a-17")


async def test_others_are_ahead(served: Served) -> None:
    await served.lease()
    ids = [await served.create() for _ in range(4)]
    assert [(await why(served, one))["facts"]["ahead"] for one in ids] == [0, 1, 2, 3]
    assert (await why(served, ids[3]))["because"] == (
        "Agents ask for work, last at 2026-03-01T10:00:00Z; 3 commands are ahead of it."
    )
    urgent = await served.create(priority=5)
    assert [(await why(served, one))["facts"]["ahead"] for one in (urgent, ids[0])] == [0, 1]


async def test_not_before(served: Served) -> None:
    found = await why(served, await served.create(notBefore="2026-03-01T11:00:00Z"))
    assert found["because"] == "It is not to be delivered before 2026-03-01T11:00:00Z."


async def test_a_rest_after_an_attempt(served: Served) -> None:
    await served.declare(a_target(), retry=SLOWLY)
    command_id = await served.create(maxAttempts=3)
    await served.lease(leaseSeconds=10)
    served.clock.advance(10)
    found = await why(served, command_id)
    assert found["because"].startswith("It rests until 2026-03-01T10:00:")
    assert found["because"].endswith("after attempt 1 of 3, which nobody answered in time.")
    assert (found["facts"]["attempt"], found["facts"]["lastAttemptEndedAt"]) == (2, "2026-03-01T10:00:10Z")


async def test_a_holder(served: Served) -> None:
    command_id = await served.create()
    (lease,) = await served.lease(agent={"id": "a-17"}, leaseSeconds=100)
    found = await why(served, command_id)
    assert found["because"] == "It is held by agent a-17 until 2026-03-01T10:01:40Z; this is attempt 1 of 20."
    assert found["facts"]["leaseId"] == lease["leaseId"]
    assert (found["facts"]["by"]["kind"], found["facts"]["renewals"]) == ("admin", 0)


async def test_a_target_that_is_not_declared_any_more(served: Served) -> None:
    await served.declare(a_target())
    command_id = await served.create()
    await served.declare(a_target("other"))
    assert (await why(served, command_id))["because"] == (
        "Its target indexer is not declared in dep any more, so nobody can have it."
    )


def a_worker(**more: Any) -> dict[str, Any]:
    return a_target("w", "worker") | {"delivery": "push", "push": {"url": "http://127.0.0.1:9/x"}} | more


async def test_nothing_is_pushed_after_a_restart_without_a_public_url() -> None:
    async with serving(public_url="https://arc.example/v1", pusher=Script(REJECTED)) as before:
        (await before.declare(a_worker(), retry=SLOWLY)).ok()
        command_id = await before.create(targetResourceId="w")
    before.clock.advance(3600)
    async with serving(before.journal, before.clock) as served:
        assert (await why(served, command_id))["because"] == (
            "Nothing is pushed: this service has no public URL, which workers need to answer (public_url)."
        )


async def test_pushes() -> None:
    workers = Script(ACCEPTED, REJECTED)
    async with serving(pusher=workers, public_url="https://arc.example/v1") as served:
        await served.declare(a_worker(), retry=SLOWLY)
        pushed = await served.create(targetResourceId="w")
        found = await why(served, pushed)
        assert found["because"].startswith("It was pushed to w, which has until 2026-03-01T10:")
        assert "leaseId" not in found["facts"], "delivery leases are not public"
        refused = await served.create(targetResourceId="w")
        found = await why(served, refused)
        assert "after attempt 1 of 20, which the target refused: " in found["because"]


async def test_ends(served: Served) -> None:
    answered, failed, given_up, late, expired = [
        await served.create(**more)
        for more in ({}, {}, {"maxAttempts": 1}, {}, {"deadline": "2026-03-01T10:05:00Z", "targetResourceId": "x"})
    ]
    await served.lease(maxLeases=4, leaseSeconds=10)
    await served.respond(answered)
    await served.respond(failed, failure())
    await served.respond(late)
    await served.respond(late, success(b"{}"))
    served.clock.advance(301)
    because = {name: await why(served, name) for name in (answered, failed, given_up, late, expired)}
    answer = "admin answered it with a result at 2026-03-01T10:00:00Z, on attempt 1 of 20;"
    assert [one["because"] for one in because.values()] == [
        f"{answer[:-1]}.",
        "admin answered it with an error at 2026-03-01T10:00:00Z, on attempt 1 of 20 (DB_DOWN: no connection).",
        because[given_up]["because"],
        f"{answer} once somebody answered too late, which changed nothing.",
        "Its deadline 2026-03-01T10:05:00Z passed before it was answered.",
    ]
    assert because[given_up]["because"].startswith("The service gave up at ")
    assert because[given_up]["facts"]["origin"] == "attempts"
    assert because[given_up]["facts"]["by"] == {"id": "arc_es", "kind": "service"}
    assert because[late]["facts"]["lateResponses"] == 1


async def test_it_follows_the_rights_of_a_status(served: Served) -> None:
    command_id = await served.create(params=inline(b"x"))
    own, foreign = [
        served.client.presenting((await served.client.post("/v1/tokens", request)).json["token"])
        for request in ({"scope": "auditor"}, {"scope": "auditor", "deployments": ["no"]})
    ]
    (await own.get(f"/v1/commands/{command_id}/explain")).ok()
    (await foreign.get(f"/v1/commands/{command_id}/explain")).refused(403, "FORBIDDEN")
    (await own.get("/v1/commands/cmd_no/explain")).refused(404, "COMMAND_NOT_FOUND")


# --- what is ahead, in any queue


@given(
    steps=st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["create", "lease", "release", "take"]))),
    priorities=st.lists(st.integers(-2, 2), min_size=13, max_size=13),
    count_max=st.integers(1, 20),
)
def test_what_is_ahead_is_what_would_be_taken_first(
    steps: list[tuple[int, str]], priorities: list[int], count_max: int
) -> None:
    world = World()
    attempts: dict[str, int] = {}
    for number, step in steps:
        name = f"c{number}"
        if name not in world.states:
            world.given(name, created(priority=priorities[number]))
            attempts[name] = 1
        elif step == "lease" and type(world.states[name]).__name__ == "Pending":
            world.given(name, leased(f"l{attempts[name]}{name}", attempts[name]))
        elif step == "release" and type(world.states[name]).__name__ == "Leased":
            world.given(name, released(f"l{attempts[name]}{name}", attempts[name]))
            attempts[name] += 1
        elif step == "take":
            world.models.pending.give_back(world.models.pending.take("dep", None, 3, STORY_T0))
    pending = world.models.pending
    counted = {}
    for name in world.states:
        row = world.models.status.get(name)
        assert row is not None
        facts = row.state.facts
        counted[name] = pending.ahead(facts.route, facts.options.priority, row.params_at, count_max)
    order = pending.take("dep", "indexer", 100, STORY_T0 + SECOND)
    assert [counted[name] for name in order] == [min(place, count_max) for place in range(len(order))]


@pytest.mark.parametrize("count", [5, 3000])
def test_counting_what_is_ahead_stops_at_its_bound(count: int) -> None:
    world = World()
    for number in range(count):
        world.given(f"c{number}", created())
    row = world.models.status.get(f"c{count - 1}")
    assert row is not None
    assert world.models.pending.ahead(row.state.facts.route, 0, row.params_at, 100) == min(count - 1, 100)
