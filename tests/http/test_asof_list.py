"""Lists of the past: at each moment what the list of that moment was (extensions, "Audit": asOf)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from arc_es import asof
from arc_es.asof import LINE_MAX
from arc_es.wire import format_time
from tests.http.driver import Client, Served, a_target, failure, serving, success
from tests.http.virtual_time import run

QUERIES: list[dict[str, Any]] = [
    {},
    {"order": "asc"},
    {"target": "indexer"},
    {"deploymentId": "dep", "label": ["n:0", "all:1"]},
    *({"state": state} for state in ("PENDING", "DISPATCHED", "SUCCEEDED", "FAILED", "EXPIRED", "PENDING_UPLOAD")),
    {"state": "PENDING", "target": "indexer", "deploymentId": "dep", "order": "asc"},
    {"redriven": "true"},
    {"redriven": "false", "order": "asc"},
    {"origin": "agent", "state": "FAILED"},
    {"origin": "agent", "redriven": "false"},
]
STEPS = ["create", "far", "upload", "lease", "release", "succeed", "fail", "late", "redrive", "wait", "declare"]


async def listed(client: Client, **query: Any) -> list[Any]:
    """All commands of a list, page by page; of the past a page may be short."""
    found: list[Any] = []
    while True:
        answer = (await client.get(f"/v1/commands?{urlencode(query, doseq=True)}")).ok()
        found += answer["commands"]
        if "nextCursor" not in answer:
            return found
        query = query | {"cursor": answer["nextCursor"]}


async def take_step(served: Served, step: str, number: int, leases: list[Any]) -> None:
    """One thing that may happen."""
    more = {"labels": {"n": str(number % 2), "all": "1"}}
    match step:
        case "create":
            await served.create(**more, deadline=format_time(served.clock.now() + 300_000_000))
        case "far":
            await served.create(**more, targetResourceId="mailer", deploymentId="other")
        case "upload":
            await served.client.post(
                "/v1/commands",
                {
                    "deploymentId": "dep",
                    "command": "c",
                    "targetResourceId": "indexer",
                    "params": {"mode": "storage", "size": 9},
                },
            )
        case "lease":
            leases += await served.lease(leaseSeconds=60, agent={"id": f"agent-{number}"})
        case "release" if leases:
            await served.release(leases.pop()["leaseId"])
        case "succeed" | "fail" | "late" if leases:
            held = leases[-1] if step == "late" else leases.pop()
            await served.respond(held["commandId"], failure() if step == "fail" else success(b"x" * number))
        case "redrive":
            await redrive_all(served)
        case "wait":
            served.clock.advance(100)
        case "declare":
            await served.declare(a_target(), a_target("mailer"), deployment="other")
        case _:
            pass
    await served.client.get("/v1/commands/cmd_0")


async def redrive_all(served: Served) -> None:
    for dead in await listed(served.client, state="FAILED", redriven="false"):
        (await served.client.post(f"/v1/commands/{dead['commandId']}/redrive")).ok()


async def settle(served: Served) -> None:
    """Let what is due be decided, so that the list stands still."""
    with trio.move_on_after(5):
        await trio.sleep_forever()


async def check_story(steps: list[str], limit: int) -> None:
    """Lists are remembered as they are; at the end they are asked for as they were."""
    async with serving() as served:
        seen: list[tuple[int, int, list[list[Any]]]] = []
        leases: list[Any] = []
        for number, step in enumerate(steps):
            await take_step(served, step, number, leases)
            await settle(served)
            lists = [await listed(served.client, **query) for query in QUERIES]
            seen.append((served.node.follower.applied, served.clock.now(), lists))
            served.clock.advance(1)
        for position, at, lists in seen:
            for moment in (position, format_time(at)):
                for query, wanted in zip(QUERIES, lists, strict=True):
                    assert await listed(served.client, **query, asOf=moment, limit=limit) == wanted


async def test_the_list_as_of_each_moment_of_a_story_is_what_the_list_was() -> None:
    story = "create far upload lease create late release declare lease fail wait redrive"
    await check_story(story.split(), 2)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(STEPS), min_size=1, max_size=18), st.integers(1, 3))
def test_the_list_as_of_each_moment_of_any_story_is_what_the_list_was(steps: list[str], limit: int) -> None:
    run(check_story, steps, limit)


async def test_the_answer_says_which_position_and_a_cursor_stays_with_it(served: Served) -> None:
    made = [await served.create() for _ in range(4)]
    served.clock.advance(1)
    end = await served.journal.end()
    first = (await served.client.get("/v1/commands?asOf=2999-01-01T00:00:00Z&limit=2&order=asc")).ok()
    assert first["appliedSeq"] == end
    await served.create()
    await served.lease(maxLeases=5)
    cursor = first["nextCursor"]
    rest = (await served.client.get(f"/v1/commands?asOf=2999-01-01T00:00:00Z&order=asc&cursor={cursor}")).ok()
    assert rest["appliedSeq"] == end
    assert "nextCursor" not in rest
    assert {entry["commandId"] for entry in first["commands"] + rest["commands"]} == set(made)
    assert {entry["state"] for entry in rest["commands"]} == {"PENDING"}


async def test_a_cursor_of_another_moment_is_refused(served: Served) -> None:
    for _ in range(3):
        await served.create()
    past = (await served.client.get("/v1/commands?asOf=3&limit=1")).ok()["nextCursor"]
    now = (await served.client.get("/v1/commands?limit=1")).ok()["nextCursor"]
    for query in (f"cursor={past}", f"asOf=2&cursor={past}", f"asOf=3&cursor={now}", f"asOf=3&order=asc&cursor={past}"):
        (await served.client.get(f"/v1/commands?{query}")).refused(422, "INVALID_REQUEST")


@pytest.mark.parametrize("moment", ["yesterday", "-1", "2026-03-01", "1" * 30, ""])
async def test_what_is_no_moment_is_refused(client: Client, moment: str) -> None:
    (await client.get(f"/v1/commands?asOf={moment}")).refused(422, "INVALID_REQUEST")


async def test_before_the_first_command_there_is_none(served: Served) -> None:
    await served.create()
    for moment in (0, "2020-01-01T00:00:00Z"):
        answer = (await served.client.get(f"/v1/commands?asOf={moment}")).ok()
        assert answer == {"commands": [], "appliedSeq": 0}


async def test_a_page_folds_a_bounded_number_and_the_next_one_goes_on(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All were pending then, and none is now: each has to be looked at."""
    monkeypatch.setattr(asof, "HISTORIES_MAX", 2)
    made = [await served.create() for _ in range(5)]
    then = await served.journal.end()
    for lease in await served.lease(maxLeases=5):
        await served.respond(lease["commandId"])
    answer = (await served.client.get(f"/v1/commands?asOf={then}&state=PENDING")).ok()
    assert len(answer["commands"]) == 2
    pending = await listed(served.client, asOf=then, state="PENDING")
    assert {entry["commandId"] for entry in pending} == set(made)
    assert await listed(served.client, asOf=then, state="DISPATCHED") == []


async def test_what_had_ended_by_then_is_not_read_again(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Late answers do not count: nothing that a list shows changes after the end."""
    command = await served.create()
    await served.lease()
    await served.respond(command)
    then = await served.journal.end()
    await served.respond(command, success(b"another"))
    assert await served.journal.end() > then
    monkeypatch.setattr(served.node.service.as_of, "_row", None)
    (found,) = (await served.client.get(f"/v1/commands?asOf={then}&state=SUCCEEDED")).ok()["commands"]
    assert found["commandId"] == command


async def test_a_token_sees_its_own_past_only(served: Served) -> None:
    await served.create()
    other = await served.create(deploymentId="other")
    token = (await served.client.post("/v1/tokens", {"scope": "auditor", "deployments": ["other"]})).json["token"]
    found = (await served.client.presenting(token).get("/v1/commands?asOf=99")).ok()["commands"]
    assert [entry["commandId"] for entry in found] == [other]


async def test_all_that_was_known_of_one_command(served: Served) -> None:
    command = await served.create()
    await served.lease(agent={"id": "a-17"})
    seen = (await served.client.get(f"/v1/commands/{command}?view=full")).ok()
    then = await served.journal.end()
    await served.respond(command)
    answer = (await served.client.get(f"/v1/commands/{command}?view=full&asOf={then}")).ok()
    assert answer == seen | {"appliedSeq": then}


async def test_only_a_short_line_waits_for_old_lists(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    await served.create()
    go_on = trio.Event()
    index = served.node.index
    find = index.find

    async def held(wanted: Any) -> Any:
        if wanted.as_of is not None:
            await go_on.wait()
        return await find(wanted)

    monkeypatch.setattr(index, "find", held)
    statuses: list[int] = []

    async def ask() -> None:
        statuses.append((await served.client.get("/v1/commands?asOf=1")).status)

    async with trio.open_nursery() as nursery:
        for _ in range(1 + LINE_MAX):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        (await served.client.get("/v1/commands?asOf=1")).refused(503, "OVERLOADED")
        (await served.client.get("/v1/commands")).ok()
        go_on.set()
    assert statuses == [200] * (1 + LINE_MAX)
