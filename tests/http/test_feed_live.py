"""The live feed (extensions, "Audit" and "Fine print")."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import trio
import trio.testing

from arc_es.domain import limits
from arc_es.feed import Ring
from arc_es.journal.memory import Fault
from tests.http.driver import Answer, Client, Served, inline, serving
from tests.http.test_feed import everything, fill

LIVE: Final = {"Accept": "text/event-stream"}


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


async def test_the_first_message_after_a_restart_cuts_nobody_off(served: Served) -> None:
    """It has a body beside it, so it is not the very next position."""
    await served.create()
    async with serving(served.journal) as again, reading(again.client) as reader:
        await reader.saw(1)
        await again.create(params=inline(b"x" * 5000))
        await again.create()
        await reader.saw(3)
        assert b"too slow" not in reader.answer.body


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
