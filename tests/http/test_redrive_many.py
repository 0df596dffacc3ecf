"""Letting many commands run again, and seeing first what would be done."""

from __future__ import annotations

from typing import Any

import pytest

from arc_es.journal.memory import Fault, MemoryJournal
from tests.http.driver import Served, a_target, failure, inline, serving
from tests.http.test_redrive import failed


async def many(served: Served, query: str = "origin=agent", token: str | None = None) -> Any:
    client = served.client if token is None else served.client.presenting(token)
    return (await client.post(f"/v1/commands/redrive?{query}")).ok()


async def redrives(served: Served) -> dict[str, str]:
    found = (await served.client.get("/v1/commands?redriven=true&limit=1000")).ok()["commands"]
    return {entry["commandId"]: entry["redrivenAs"] for entry in found}


async def test_a_dry_run_says_what_would_be_done_and_does_nothing(served: Served) -> None:
    ids = []
    for _ in range(3):
        ids.append(await failed(served))
        served.clock.advance(1)
    fresh, running, other = ids
    new = (await served.client.post(f"/v1/commands/{running}/redrive")).ok()["commandId"]
    dry = await many(served, "state=FAILED&dryRun=true")
    assert dry == {
        "dryRun": True,
        "results": [
            {"commandId": other, "redriven": True},
            {"commandId": running, "redriven": False, "redrivenAs": new},
            {"commandId": fresh, "redriven": True},
        ],
    }
    assert await redrives(served) == {running: new}
    done = await many(served, "state=FAILED")
    made = await redrives(served)
    assert [(one["commandId"], one["redriven"]) for one in done["results"]] == [
        (one["commandId"], one["redriven"]) for one in dry["results"]
    ]
    assert {one["commandId"]: one["redrivenAs"] for one in done["results"]} == made
    assert set(made) == {fresh, running, other}


async def test_pages_lead_through_all_of_them_and_repeating_one_does_nothing(served: Served) -> None:
    ids = [await failed(served, params=inline(b"x" * 5_000)) for _ in range(7)]
    before = "createdBefore=2026-03-01T10:00:01Z"
    query, seen = f"origin=agent&order=asc&limit=3&{before}", []
    while True:
        page = await many(served, query)
        again = await many(served, query)  # the answer was lost
        assert [one["redrivenAs"] for one in again["results"]] == [one["redrivenAs"] for one in page["results"]]
        assert not any(one["redriven"] for one in again["results"])
        seen += [one["commandId"] for one in page["results"]]
        if "nextCursor" not in page:
            break
        query = f"origin=agent&order=asc&limit=3&{before}&cursor={page['nextCursor']}"
    assert sorted(seen) == sorted(ids)
    leases = await served.lease(maxLeases=100)
    assert len(leases) == len(ids)
    assert all(lease["envelope"]["params"] == inline(b"x" * 5_000) for lease in leases)


async def test_each_stands_alone(served: Served) -> None:
    gone, good = await failed(served, targetResourceId="other"), await failed(served)
    await served.client.post("/v1/commands/leases", {"deploymentId": "dep", "target": a_target("other")})
    await served.respond(gone, failure())
    await served.declare(a_target())
    results = {one["commandId"]: one for one in (await many(served))["results"]}
    assert results[gone]["error"]["code"] == "COMMAND_TARGET_NOT_FOUND"
    assert results[good]["redriven"] is True
    dry = {one["commandId"]: one for one in (await many(served, "origin=agent&dryRun=true"))["results"]}
    assert dry[gone]["error"]["code"] == "COMMAND_TARGET_NOT_FOUND"


async def test_a_token_redrives_what_it_covers(served: Served) -> None:
    mine, _ = await failed(served), await failed(served)
    answer = await served.client.post("/v1/tokens", {"scope": "sender", "deployments": ["other"]})
    assert (await many(served, token=answer.json["token"]))["results"] == []
    operator = await served.client.post("/v1/tokens", {"scope": "receiver", "deployments": ["dep"]})
    client = served.client.presenting(operator.json["token"])
    (await client.post("/v1/commands/redrive?origin=agent")).refused(403, "FORBIDDEN")
    assert mine not in await redrives(served)


async def test_what_is_for_the_operator_is_left_to_its_scope(served: Served) -> None:
    mint = {"scope": "operations", "deployments": ["dep"], "command": "restart"}
    operations = (await served.client.post("/v1/tokens", mint)).json["token"]
    body = {"deploymentId": "dep", "command": "restart", "targetResourceId": "operator", "params": inline(b"")}
    old = (await served.client.presenting(operations).post("/v1/commands", body)).ok()["commandId"]
    await served.client.post(f"/v1/commands/{old}/cancel")
    (result,) = (await many(served, "origin=cancel"))["results"]
    assert (result["commandId"], result["error"]["code"]) == (old, "FORBIDDEN")
    (await served.client.presenting(operations).post("/v1/commands/redrive?origin=cancel")).refused(403, "FORBIDDEN")


async def test_trouble_of_the_journal_is_said_of_each() -> None:
    journal = MemoryJournal()
    async with serving(journal=journal, append_seconds_max=1.0) as served:
        old = await failed(served)
        journal.fault = Fault.LOST_SEND
        (result,) = (await many(served))["results"]
        assert (result["commandId"], result["error"]["code"]) == (old, "JOURNAL_UNAVAILABLE")
        journal.fault = None
        (result,) = (await many(served))["results"]
        assert result["redriven"] is True


@pytest.mark.parametrize(
    "query", ["", "state=PENDING", "deploymentId=dep", "origin=agent&order=asc", "origin=agent&asOf=1", "dryRun=1"]
)
async def test_what_is_asked_for_has_to_be_clear(served: Served, query: str) -> None:
    (await served.client.post(f"/v1/commands/redrive?{query}")).refused(422, "INVALID_REQUEST")
    (await served.client.get("/v1/commands/redrive")).refused(405, "METHOD_NOT_ALLOWED")
