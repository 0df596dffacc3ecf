"""The journals that the contract holds for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import NamedTuple

import pytest
import trio

from arc_es.journal.jetstream import open_journal
from arc_es.journal.memory import MemoryJournal
from arc_es.journal.stream import StreamSettings, api, ensure_stream
from arc_es.nats_access import Access
from arc_es.nats_bridge import open_bridge
from arc_es.ports import Journal
from tests.contract.nats_process import NatsProcess

CONNECT_SECONDS = 10


class Pair(NamedTuple):
    """Two ways to one journal: of two nodes, where there can be two."""

    here: Journal
    there: Journal


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsProcess]:
    """One server for all tests that do no harm to it."""
    server = NatsProcess(tmp_path_factory.mktemp("nats"))
    trio.run(server.start)
    yield server
    server.kill()


@pytest.fixture(params=["memory", "jetstream"])
def url(request: pytest.FixtureRequest) -> str:
    """Where the journal's server is; empty for the journal in memory."""
    if request.param == "memory":
        return ""
    server: NatsProcess = request.getfixturevalue("nats")
    return server.url


@pytest.fixture
async def pair(url: str) -> AsyncIterator[Pair]:
    """An empty journal, seen twice."""
    if not url:
        journal = MemoryJournal()
        yield Pair(journal, journal)
        return
    access = Access([url])
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(open_bridge(access))
        there = await stack.enter_async_context(open_bridge(access))
        with trio.fail_after(CONNECT_SECONDS):
            await here.wait_available()
            await there.wait_available()
            await api(here, "STREAM.DELETE.ARC")
            await ensure_stream(here)
        yield Pair(
            await stack.enter_async_context(open_journal(here)), await stack.enter_async_context(open_journal(there))
        )


SMALL_BYTES = 256 * 1024


@pytest.fixture
async def small(url: str) -> AsyncIterator[Journal]:
    """An empty journal of `SMALL_BYTES`."""
    if not url:
        yield MemoryJournal(bytes_max=SMALL_BYTES)
        return
    async with open_bridge(Access([url])) as bridge:
        with trio.fail_after(CONNECT_SECONDS):
            await bridge.wait_available()
            await api(bridge, "STREAM.DELETE.ARC")
            await ensure_stream(bridge, StreamSettings(max_bytes=SMALL_BYTES))
        async with open_journal(bridge) as journal:
            yield journal
        await api(bridge, "STREAM.DELETE.ARC")


@pytest.fixture
def journal(pair: Pair) -> Journal:
    """An empty journal."""
    return pair.here
