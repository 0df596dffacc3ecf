"""The feed of all events (extensions, "Audit" and "Fine print")."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import pytest

from arc_es.domain import limits
from arc_es.domain.tokens import ADMIN
from arc_es.feed import Wanted
from arc_es.journal.memory import Fault
from tests.http.driver import Client, Served, a_target, inline, serving

LIVE: Final = {"Accept": "text/event-stream"}
BATCH: Final = {"Accept": "application/cloudevents-batch+json"}


async def fill(served: Served) -> None:
    """A bit of everything: commands of two deployments, a declaration, a token, a payload, a decision of two events."""
    await served.declare(a_target(), a_target("mailer", "container"))
    await served.create(params=inline(b"x" * 5000))
    expiring = await served.create(maxAttempts=1)
    await served.create(targetResourceId="mailer")
    await served.create(deploymentId="other", targetResourceId="x")
    await served.lease(maxLeases=2, leaseSeconds=10)
    served.clock.advance(11)
    assert (await served.status(expiring))["state"] == "FAILED"
    (await served.client.post("/v1/tokens", {"scope": "auditor", "name": "n"})).json  # noqa: B018
    (await served.client.put("/v1/commands/demo_1/payload", {"params": inline(b"{}")})).ok()


async def everything(client: Client, query: str = "", limit: int = 1000) -> list[Any]:
    """All pages, one after the other."""
    events: list[Any] = []
    after = 0
    while True:
        page = (await client.get(f"/v1/events?after={after}&limit={limit}{query}")).ok()
        assert set(page) == {"events", "next", "end"}
        assert page["next"] >= after
        events += page["events"]
        after = page["next"]
        if page["end"]:
            return events


def keys(events: Sequence[Any]) -> list[tuple[int, int]]:
    return [(event["seq"], event["index"]) for event in events]


# --- pages


async def test_the_feed_is_the_whole_journal_in_order(served: Served) -> None:
    await fill(served)
    events = await everything(served.client)
    stored = await served.journal.page(0, 1000, 10**9)
    assert [event["seq"] for event in events if event["index"] == 0] == [message.position for message in stored]
    assert keys(events) == sorted(set(keys(events)))
    kinds = {event["type"] for event in events}
    assert {"DeploymentDeclared", "CommandCreated", "LeaseExpired", "TokenCreated", "PayloadStored"} <= kinds
    for command_id in {event["commandId"] for event in events if event["type"] == "CommandCreated"}:
        assert await served.events(command_id) == [event for event in events if event.get("commandId") == command_id]


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_pages_of_any_size_hold_the_same_and_never_split_a_decision(served: Served, limit: int) -> None:
    await fill(served)
    whole = await everything(served.client)
    assert any(event["index"] == 1 for event in whole)
    assert await everything(served.client, limit=limit) == whole


async def test_limits_and_positions_are_read_strictly(served: Served) -> None:
    await fill(served)
    get = served.client.get
    assert len((await get("/v1/events?limit=0")).ok()["events"]) == 1
    assert len((await get("/v1/events?limit=1000000")).ok()["events"]) > 5
    at = served.node.service.applied
    assert (await get(f"/v1/events?after={at}")).ok() == {"events": [], "next": at, "end": True}
    assert (await get(f"/v1/events?after={10**18}")).ok() == {"events": [], "next": 10**18, "end": True}
    first = (await get("/v1/events?limit=1")).ok()["next"]
    told = (await get("/v1/events?after=0&limit=1", headers={"Last-Event-ID": str(first)})).ok()
    assert told["events"][0]["seq"] > first, "Last-Event-ID wins"
    for query in ("after=-1", "after=x", "after=", "limit=x", "after=" + "9" * 30, "type=Nothing"):
        (await get(f"/v1/events?{query}")).refused(422, "INVALID_REQUEST")
    (await get("/v1/events", headers={"Last-Event-ID": "x"})).refused(422, "INVALID_REQUEST")


async def test_filters(served: Served) -> None:
    await fill(served)
    whole = await everything(served.client)
    for name in ("dep", "other", "none"):
        of_it = [event for event in whole if event.get("deploymentId") == name]
        assert await everything(served.client, f"&deploymentId={name}", limit=2) == of_it
    for name in ("CommandFailed", "TokenCreated", "CommandLeased"):
        of_type = [event for event in whole if event["type"] == name]
        assert of_type
        assert await everything(served.client, f"&type={name}") == of_type
    command_id = whole[-3].get("commandId") or whole[1]["commandId"]
    assert await everything(served.client, f"&commandId={command_id}") == await served.events(command_id)
    (await served.client.get("/v1/events?commandId=cmd_none")).refused(404, "COMMAND_NOT_FOUND")


async def test_the_feed_begins_at_any_time(served: Served) -> None:
    for _ in range(5):
        await fill_a_little(served)
    whole = await everything(served.client)
    times = sorted({event["at"] for event in whole})
    assert len(times) > 4
    for since in ("2020-01-01T00:00:00Z", *times, "2999-01-01T00:00:00Z"):
        wanted = [event for event in whole if event["at"] >= since]
        assert await everything(served.client, f"&since={since}", limit=3) == wanted
    later = whole[-2]["seq"]
    told = (await served.client.get(f"/v1/events?since={times[1]}&after={later}")).ok()["events"]
    assert told == [event for event in whole if event["seq"] > later], "the later of both"
    for query in ("since=yesterday", "since=2026-11-17T00:00:00", "since="):
        (await served.client.get(f"/v1/events?{query}")).refused(422, "INVALID_REQUEST")


async def fill_a_little(served: Served) -> None:
    await served.create()
    await served.create(params=inline(b"x" * 5000))
    served.clock.advance(60)


async def test_a_page_looks_at_a_bounded_number_of_messages(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FEED_SCAN_MAX", 10)
    for _ in range(300):
        await served.create()
    await served.create(deploymentId="other")
    page = (await served.client.get("/v1/events?deploymentId=other")).ok()
    assert (page["events"], page["end"]) == ([], False)
    assert 0 < page["next"] < 300
    (event,) = await everything(served.client, "&deploymentId=other")
    assert event["deploymentId"] == "other"


async def test_what_is_not_applied_is_not_shown(served: Served) -> None:
    await served.create()
    feed = served.node.service.feed
    at = served.node.service.applied
    served.node.follower.applied = at - 1
    assert (await feed.page(0, Wanted(ADMIN), 10, 10**6)).decisions == []
    served.node.follower.applied = at
    assert [told.position for told in (await feed.page(0, Wanted(ADMIN), 10, 10**6)).decisions] == [at]


async def test_the_journal_being_away_is_503_for_old_events(served: Served) -> None:
    await fill(served)
    async with serving(served.journal) as again:  # a ring of its own, empty
        served.journal.fault = Fault.UNAVAILABLE
        (await again.client.get("/v1/events")).refused(503, "JOURNAL_UNAVAILABLE")
    assert (await served.client.get("/v1/events")).ok()["events"], "what is recent is in memory"


async def test_no_secret_is_in_the_feed(served: Served) -> None:
    token = (await served.client.post("/v1/tokens", {"scope": "sender"})).json["token"]
    push = {"url": "http://127.0.0.1:1/x", "token": "push-secret"}
    await served.declare({**a_target("w", "worker"), "delivery": "push", "push": push}, model="push")
    raw = (await served.client.get("/v1/events")).body
    (minted,) = [event for event in await everything(served.client) if event["type"] == "TokenCreated"]
    assert minted["data"] == {"scope": "sender"}
    for secret in (token.split("_")[2], "push-secret", "tokenSealed"):
        assert secret.encode() not in raw


# --- rights


@pytest.mark.parametrize(
    ("grant", "sees"),
    [
        ({"scope": "admin"}, {"dep/indexer", "dep/mailer", "other/x", "deployment dep", "token", "payload"}),
        ({"scope": "auditor"}, {"dep/indexer", "dep/mailer", "other/x", "deployment dep"}),
        ({"scope": "auditor", "deployments": ["dep"]}, {"dep/indexer", "dep/mailer", "deployment dep"}),
        ({"scope": "auditor", "deployments": ["other"]}, {"other/x"}),
        ({"scope": "sender"}, {"dep/indexer", "dep/mailer", "other/x"}),
        ({"scope": "receiver", "deployments": ["dep"]}, {"dep/indexer", "dep/mailer"}),
        ({"scope": "receiver", "targets": [a_target()]}, {"dep/indexer"}),
        ({"scope": "receiver", "targets": [a_target("x")]}, {"other/x"}),
        ({"scope": "sender", "deployments": ["none"]}, set()),
    ],
)
async def test_a_token_sees_what_it_covers(served: Served, grant: dict[str, Any], sees: set[str]) -> None:
    await fill(served)
    whole = await everything(served.client)
    targets = {
        event["commandId"]: f"{event['deploymentId']}/{event['data']['targetId']}"
        for event in whole
        if event["type"] == "CommandCreated"
    }

    def about(event: Any) -> str:
        if event["type"] == "PayloadStored":
            return "payload"
        if "commandId" in event:
            return targets[event["commandId"]]
        return f"deployment {event['deploymentId']}" if "deploymentId" in event else "token"

    token = (await served.client.post("/v1/tokens", grant)).json["token"]
    seen = await everything(served.client.presenting(token))
    assert {about(event) for event in seen} == sees
    expected = [event for event in await everything(served.client) if about(event) in sees]
    assert seen == expected, "all of it"


async def test_asking_for_what_a_token_does_not_cover_is_403(served: Served) -> None:
    await fill(served)
    command_id = await served.create()
    token = (await served.client.post("/v1/tokens", {"scope": "auditor", "deployments": ["other"]})).json["token"]
    foreign = served.client.presenting(token)
    (await foreign.get("/v1/events?deploymentId=dep")).refused(403, "FORBIDDEN")
    (await foreign.get(f"/v1/events?commandId={command_id}")).refused(403, "FORBIDDEN")


# --- CloudEvents


async def test_cloud_events(served: Served) -> None:
    await fill(served)
    events = (await served.client.get("/v1/events")).ok()["events"]
    answer = await served.client.get("/v1/events?limit=3&deploymentId=dep", headers=BATCH)
    assert answer.headers["content-type"] == "application/cloudevents-batch+json"
    assert (answer.headers["arc-end"], answer.headers["link"]) == (
        "false",
        f'<http://arc.example/v1/events?limit=3&deploymentId=dep&after={answer.headers["arc-next"]}>; rel="next"',
    )
    batch = json.loads(answer.body)
    assert [one["id"] for one in batch] == [f"{event['seq']}-{event['index']}" for event in events[:3]]
    for one, event in zip(batch, events[:3], strict=True):
        assert all(name.isalnum() and name == name.lower() for name in one), one
        assert (one["specversion"], one["source"], one["datacontenttype"]) == (
            "1.0",
            "http://arc.example/v1",
            "application/json",
        )
        assert (one["type"], one["time"], one["data"]) == (event["type"], event["at"], event["data"])
        assert one.get("subject") == event.get("commandId")
    rest = await served.client.get("/v1/events?limit=1000&after=3", headers=BATCH)
    assert rest.headers["arc-end"] == "true"
    assert "link" not in rest.headers
