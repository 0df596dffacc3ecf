"""The journal over the death of its server: what was acknowledged is there once, and nothing lies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from arc_es.journal.jetstream import JetStreamJournal, open_journal
from arc_es.journal.stream import ensure_stream
from arc_es.nats_access import Access
from arc_es.nats_bridge import Bridge, open_bridge
from arc_es.ports import AppendOutcome, JournalUnavailable, OutcomeUnknown
from tests.contract.nats_process import NatsProcess
from tests.contract.story import Seen, command, item

PING_SECONDS = 0.2
ECHO_SECONDS = 0.5
CALLERS = 40
ACKED_BEFORE_KILL = 300


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsProcess]:
    """A server that the test may kill."""
    process = NatsProcess(tmp_path)
    await process.start()
    yield process
    process.kill()


@pytest.fixture
async def bridge(server: NatsProcess) -> AsyncIterator[Bridge]:
    """A bridge to it that is quick to find it gone."""
    access = Access([server.url])
    async with open_bridge(access, ping_seconds=PING_SECONDS, echo_seconds=ECHO_SECONDS) as opened:
        await reach(opened)
        await ensure_stream(opened)
        yield opened


@pytest.fixture
async def journal(bridge: Bridge) -> AsyncIterator[JetStreamJournal]:
    """A journal on it."""
    async with open_journal(bridge) as opened:
        yield opened


async def reach(bridge: Bridge, seconds: float = 10) -> None:
    """Wait for a connection."""
    with trio.fail_after(seconds):
        await bridge.wait_available()


async def gone(bridge: Bridge, seconds: float = 10) -> None:
    """Wait until the bridge has found out."""
    with trio.fail_after(seconds):
        while bridge.available:
            await trio.lowlevel.checkpoint()


class Callers:
    """Many tasks that append one new history after the other, some with a body, until the first bad outcome."""

    def __init__(self, journal: JetStreamJournal) -> None:
        self._journal = journal
        self.outcomes: dict[str, AppendOutcome] = {}
        self.many_acked = trio.Event()

    async def run(self, caller: int) -> None:
        """One task."""
        number = 0
        while True:
            name = f"{caller}-{number}"
            (outcome,) = await self._journal.append([item(command(name), name, body=b"B" if number % 7 == 6 else None)])
            self.outcomes[name] = outcome
            if not isinstance(outcome, int):
                return
            number += 1
            if len(self.outcomes) >= ACKED_BEFORE_KILL:
                self.many_acked.set()


async def test_after_kill_9_every_acknowledged_append_is_there_once(
    server: NatsProcess, bridge: Bridge, journal: JetStreamJournal
) -> None:
    callers = Callers(journal)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for caller in range(CALLERS):
                nursery.start_soon(callers.run, caller)
            await callers.many_acked.wait()
            server.kill()
    assert not bridge.available
    await server.start()
    await reach(bridge)
    seen = Seen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.follow, 0, seen.handle)
        await seen.wait_for(await journal.end())
        nursery.cancel_scope.cancel()
    stored = {message.payload.decode(): message.position for message in seen.messages}
    assert len(stored) == len(seen.messages)
    acked = {name: outcome for name, outcome in callers.outcomes.items() if isinstance(outcome, int)}
    assert acked.items() <= stored.items()
    bad = {name: outcome for name, outcome in callers.outcomes.items() if name not in acked}
    assert len(bad) == CALLERS
    assert {type(outcome) for outcome in bad.values()} <= {OutcomeUnknown, JournalUnavailable}
    not_sent = {name for name, outcome in bad.items() if isinstance(outcome, JournalUnavailable)}
    assert not_sent.isdisjoint(stored)
    assert stored.keys() <= callers.outcomes.keys()


async def test_following_goes_on_after_kill_9_without_gaps_or_repeats(
    server: NatsProcess, bridge: Bridge, journal: JetStreamJournal
) -> None:
    seen = Seen()
    stored: list[AppendOutcome] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.follow, 0, seen.handle)
        for life in range(3):
            stored += await journal.append([item(command(f"{life}-{n}"), "x", body=b"B") for n in range(20)])
            last = stored[-1]
            assert isinstance(last, int)
            if life != 1:  # once it dies before everything was handed over
                await seen.wait_for(last)
            server.kill()
            await server.start()
            await gone(bridge)
            await reach(bridge)
        stored += await journal.append([item(command("end"), "x")])
        last = stored[-1]
        assert isinstance(last, int)
        await seen.wait_for(last)
        nursery.cancel_scope.cancel()
    assert seen.positions == stored


async def test_without_a_server_everything_says_so_at_once(
    server: NatsProcess, bridge: Bridge, journal: JetStreamJournal
) -> None:
    server.kill()
    await gone(bridge)
    assert not journal.available
    with trio.fail_after(1):
        (outcome,) = await journal.append([item(command("a"), "one")])
        assert isinstance(outcome, JournalUnavailable)
        with pytest.raises(JournalUnavailable):
            await journal.end()
        with pytest.raises(JournalUnavailable):
            await journal.read([1])
    await server.start()
    await reach(bridge)
    assert await journal.append([item(command("a"), "one")]) == [1]


async def test_a_frozen_server_is_found_and_work_goes_on_when_it_thaws(
    server: NatsProcess, bridge: Bridge, journal: JetStreamJournal
) -> None:
    await journal.append([item(command("before"), "one")])
    server.freeze()
    outcomes: dict[str, AppendOutcome] = {}

    async def write(name: str) -> None:
        (outcomes[name],) = await journal.append([item(command(name), name)])

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, "sent")
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.start_soon(write, "waiting")
    assert isinstance(outcomes["sent"], OutcomeUnknown)
    assert isinstance(outcomes["waiting"], JournalUnavailable)
    assert not journal.available
    server.thaw()
    await reach(bridge)
    # The frozen server had the bytes of `sent` already: absent was not final. The same bytes are safe to send again.
    await journal.append([item(command("sent"), "sent")])
    assert [message.payload for message in await journal.history(command("sent"))] == [b"sent"]
    assert await journal.last(command("waiting")) is None


async def test_a_bridge_to_a_frozen_server_closes_in_time(server: NatsProcess) -> None:
    with trio.fail_after(5):
        async with open_bridge(Access([server.url])) as bridge, open_journal(bridge) as journal:
            await bridge.wait_available()
            server.freeze()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(journal.append, [item(command("a"), "x" * 1024, body=b"x" * 2_000_000)])
                await trio.testing.wait_all_tasks_blocked(0.05)
                nursery.cancel_scope.cancel()
    server.thaw()


async def test_more_than_may_wait_is_refused_at_once(
    server: NatsProcess, journal: JetStreamJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arc_es.journal.pump.APPENDS_QUEUED_MAX", 10)
    server.freeze()
    refused: list[AppendOutcome] = []

    async def write(name: str) -> None:
        await journal.append([item(command(name), name)])

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, "sent")
            await trio.testing.wait_all_tasks_blocked(0.05)
            for number in range(10):
                nursery.start_soon(write, str(number))
            await trio.testing.wait_all_tasks_blocked(0.01)
            refused += await journal.append([item(command("one too many"), "x")])
            server.thaw()
    assert [type(outcome) for outcome in refused] == [JournalUnavailable]
