"""The feed of all events (extensions, "Audit" and "Fine print")."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arc_es.codec import encode
from arc_es.domain import limits
from arc_es.domain.events import LeaseRenewed
from arc_es.domain.recorded import SERVICE, CommandKey, Decision
from arc_es.domain.tokens import ADMIN, Grant
from arc_es.feed import Feed, Page, Ring, Wanted
from arc_es.journal.memory import Fault, MemoryJournal
from arc_es.ports import Append, Message
from tests.http.driver import Answer, Client, Served, a_target, inline, serving

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


# --- live


class Reader:
    """A client of the live feed: what it got, block by block."""

    def __init__(self) -> None:
        self.answer = Answer()
        self.gone = trio.Event()
        self.ended = trio.Event()
        self.may_take = trio.Event()
        self.may_take.set()
        self._took = trio.Event()

    @property
    def blocks(self) -> list[dict[str, Any]]:
        text = self.answer.body.decode()
        assert not text or text.endswith("\n\n")
        return [
            {name: value for line in block.split("\n") for name, _, value in [line.partition(": ")]}
            for block in text.split("\n\n")[:-1]
        ]

    @property
    def events(self) -> list[Any]:
        return [json.loads(block["data"]) for block in self.blocks if "data" in block]

    @property
    def last_id(self) -> str:
        return str(next(block["id"] for block in reversed(self.blocks) if "id" in block))

    async def saw(self, count: int) -> None:
        """Wait until so many events have come."""
        await self.until(lambda: len(self.events) >= count)

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(60):
            while not condition():
                await self._took.wait()

    async def run(self, client: Client, query: str, headers: dict[str, str]) -> None:
        path, sent = f"/v1/events{query}", LIVE | headers
        await client.call("GET", path, headers=sent, gone=self.gone, into=self.answer, taking=self._taking)
        self.ended.set()

    async def _taking(self) -> None:
        self._took.set()
        self._took = trio.Event()
        await self.may_take.wait()


@asynccontextmanager
async def reading(client: Client, query: str = "", **headers: str) -> AsyncGenerator[Reader, None]:
    """A live reader; it leaves at the end."""
    reader = Reader()
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.run, client, query, sent)
        yield reader
        reader.gone.set()
        with trio.fail_after(5):
            await reader.ended.wait()


async def test_a_live_feed_has_the_past_and_then_what_happens(served: Served) -> None:
    await fill(served)
    past = await everything(served.client)
    async with reading(served.client) as reader:
        await reader.saw(len(past))
        await served.create()
        await reader.saw(len(past) + 1)
        assert reader.answer.headers["content-type"] == "text/event-stream"
        assert reader.answer.headers["cache-control"] == "no-store"
        assert reader.events == await everything(served.client)
        assert reader.blocks[0] == {"retry": "2000"}


async def test_only_the_last_event_of_a_decision_has_an_id(served: Served) -> None:
    await fill(served)
    whole = await everything(served.client)
    async with reading(served.client) as reader:
        await reader.saw(len(whole))
    last = {event["seq"]: event["index"] for event in whole}
    for block in reader.blocks[1:]:
        event = json.loads(block["data"])
        assert block.get("id") == (str(event["seq"]) if last[event["seq"]] == event["index"] else None)


async def test_a_live_feed_resumes_from_every_position(served: Served) -> None:
    await fill(served)
    whole = await everything(served.client)
    for at in sorted({event["seq"] for event in whole}):
        rest = [event for event in whole if event["seq"] > at]
        async with reading(served.client, "?after=0", last_event_id=str(at)) as reader:
            await reader.saw(len(rest))
            assert reader.events == rest


async def test_filters_and_rights_hold_for_the_live_feed(served: Served) -> None:
    token = (await served.client.post("/v1/tokens", {"scope": "sender", "deployments": ["dep"]})).json["token"]
    async with (
        reading(served.client.presenting(token)) as own,
        reading(served.client, "?type=CommandLeased&deploymentId=dep") as leased,
    ):
        await fill(served)
        of_dep = [event for event in await everything(served.client, "&deploymentId=dep") if "commandId" in event]
        await own.saw(len(of_dep))
        await leased.saw(2)
    assert own.events == of_dep
    assert {event["type"] for event in leased.events} == {"CommandLeased"}


async def test_a_silent_feed_says_that_it_is_alive(served: Served) -> None:
    await served.create()
    async with reading(served.client) as reader:
        await reader.saw(1)
        began = trio.current_time()
        await reader.until(lambda: b": alive\n\n" in reader.answer.body)
        assert trio.current_time() - began == pytest.approx(15, abs=0.5)


async def test_a_feed_is_alive_while_only_others_happen_and_spares_their_repetition(served: Served) -> None:
    async with reading(served.client, "?deploymentId=other") as reader:
        with trio.fail_after(20):
            while b": alive" not in reader.answer.body:
                await served.create()
                await trio.sleep(0.5)
        at = int(reader.last_id)
        assert at > 20
        await served.create(deploymentId="other")
        await reader.saw(1)
    async with reading(served.client, "?deploymentId=other", last_event_id=str(at)) as again:
        await again.saw(1)


async def test_a_client_that_leaves_ends_its_reader_at_once(served: Served) -> None:
    feed = served.node.service.feed
    async with reading(served.client) as reader:
        await trio.testing.wait_all_tasks_blocked()
        assert feed._readers == 1
        began = trio.current_time()
        reader.gone.set()
        await reader.ended.wait()
        assert trio.current_time() == began
        assert feed._readers == 0


async def test_a_drain_ends_live_feeds(served: Served) -> None:
    async with reading(served.client) as reader:
        await trio.testing.wait_all_tasks_blocked()
        served.node.service.drain()
        with trio.fail_after(1):
            await reader.ended.wait()


async def test_a_revoked_token_ends_its_feed(served: Served) -> None:
    minted = (await served.client.post("/v1/tokens", {"scope": "auditor"})).json
    async with reading(served.client.presenting(minted["token"])) as reader:
        await served.create()
        await reader.saw(1)
        await served.client.call("DELETE", f"/v1/tokens/{minted['id']}")
        with trio.fail_after(1):
            await reader.ended.wait()


async def test_an_expired_token_ends_its_feed_at_the_next_look(served: Served) -> None:
    token = (await served.client.post("/v1/tokens", {"scope": "auditor", "ttlSeconds": 60})).json["token"]
    async with reading(served.client.presenting(token)) as reader:
        served.clock.advance(61)
        with trio.fail_after(limits.FEED_SILENCE_SECONDS_MAX + 1):
            await reader.ended.wait()


async def test_more_readers_than_allowed_are_turned_away(served: Served) -> None:
    served.node.service.feed._readers_max = 2
    async with reading(served.client), reading(served.client):
        await trio.testing.wait_all_tasks_blocked()
        (await served.client.get("/v1/events", headers=LIVE)).refused(503, "OVERLOADED")
    async with reading(served.client) as reader:
        await served.create()
        await reader.saw(1)


async def test_journal_trouble_ends_a_feed_so_that_it_can_be_resumed(served: Served) -> None:
    await fill(served)
    async with serving(served.journal) as again:
        served.journal.fault = Fault.UNAVAILABLE
        async with reading(again.client) as reader:
            await reader.ended.wait()
            assert b": the journal cannot be read now" in reader.answer.body
            assert reader.answer.status == 200
        served.journal.fault = None


async def test_a_reader_that_falls_too_far_behind_is_cut_off_and_can_resume(served: Served) -> None:
    """It takes nothing while more happens than the ring holds."""
    served.node.service.feed._ring = Ring(20_000)
    await served.create()
    async with reading(served.client) as reader:
        await reader.saw(1)
        reader.may_take = trio.Event()
        await served.create()
        await reader.saw(2)
        for _ in range(100):
            await served.create()
        reader.may_take.set()
        with trio.fail_after(5):
            await reader.ended.wait()
    assert b": you are too slow" in reader.answer.body
    whole = await everything(served.client)
    assert reader.events == whole[: len(reader.events)]
    assert len(reader.events) < len(whole)
    async with reading(served.client, last_event_id=reader.last_id) as again:
        await again.saw(len(whole) - len(reader.events))
        assert reader.events + again.events == whole


# --- any history, any pages, any ring


class Books:
    """What the feed looks at, of a journal without a service."""

    def __init__(self) -> None:
        self.applied = 0
        self.on_message: Any = None
        self.deployments = None
        self.draining = False


@given(
    sizes=st.lists(st.integers(1, 3), max_size=40),
    late=st.integers(0, 40),
    ring_bytes=st.sampled_from([0, 3_000, 20_000, 10**6]),
    events_max=st.integers(1, 7),
    start=st.integers(0, 60),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_pages_from_any_position_are_the_rest_of_the_history(
    sizes: list[int], late: int, ring_bytes: int, events_max: int, start: int
) -> None:
    trio.run(check_pages, sizes, late, ring_bytes, events_max, start)


async def check_pages(sizes: list[int], late: int, ring_bytes: int, events_max: int, start: int) -> None:
    journal, books = MemoryJournal(), Books()
    feed = Feed(
        journal=journal,
        models=books,  # type: ignore[arg-type]
        follower=books,  # type: ignore[arg-type]
        lookup=books,  # type: ignore[arg-type]
        long_waits=books,  # type: ignore[arg-type]
        ring_bytes_max=ring_bytes,
    )
    expected: list[tuple[int, int]] = []
    for number, size in enumerate(sizes):
        key = CommandKey("dep", f"c{number}")
        events = tuple(LeaseRenewed(lease_id="l", expires_at=n) for n in range(size))
        payload = encode(Decision("d", 1, SERVICE, events))
        body = b"B" if number % 3 == 0 else None
        (at,) = await journal.append([Append(key, 0, "d", payload, body)])
        assert isinstance(at, int)
        if number >= late:
            books.on_message(at, key, payload)
        books.applied = at
        expected += [(at, index) for index in range(size)]
    got: list[tuple[int, int]] = []
    page = Page([], start, is_end=False)
    while not page.is_end:
        page = await feed.page(page.next, Wanted(Grant("open")), events_max, 10**6)
        got += keys([json.loads(event) for told in page.decisions for event in told.events])
        assert sum(len(told.events) for told in page.decisions) <= max(events_max, 3)
    assert got == [one for one in expected if one[0] > start]


def test_a_ring_keeps_the_newest_and_knows_how_far_it_reaches() -> None:
    ring = Ring(50_000)
    assert not ring.reaches(10**9)
    for position in range(5, 2000, 2):
        ring.put(Message(position, CommandKey("d", "c"), b"x" * 100))
    assert ring._bytes <= 50_000
    assert not ring.reaches(0)
    floor = ring._floor
    assert floor is not math.inf
    entries = ring.after(int(floor), 1000)
    assert [entry.message.position for entry in entries] == list(range(int(floor) + 2, 2000, 2))
    assert ring.after(1999, 10) == []
    assert len(ring._entries) < 500, "what was dropped is let go"
