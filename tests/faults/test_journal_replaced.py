"""A stream that is not the one that was followed: nothing may be read from it, written to it, or answered."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from arc_es.journal.jetstream import JetStreamJournal, open_journal
from arc_es.journal.stream import api, ensure_stream
from arc_es.nats_access import Access
from arc_es.nats_bridge import Bridge, open_bridge
from arc_es.ports import JournalMismatch
from tests.contract.nats_process import NatsProcess
from tests.contract.story import Seen, command, item

SECONDS_MAX = 30


class Rig:
    """A journal that is followed, and its server."""

    def __init__(self, server: NatsProcess, store: Path, bridge: Bridge, journal: JetStreamJournal) -> None:
        self.server, self.bridge, self.journal = server, bridge, journal
        self._store = store

    async def store_one(self, name: str) -> int:
        (position,) = await self.journal.append([item(command(name), name)])
        assert isinstance(position, int)
        return position

    async def stopped_copy(self, to: Path) -> None:
        """Copy the store while the server is down, then start it again."""
        self.server.kill()
        shutil.copytree(self._store, to)
        await self.restart()

    async def swapped(self, other: Path | None) -> None:
        """Have the server come back with another store."""
        self.server.kill()
        shutil.rmtree(self._store)
        if other is not None:
            shutil.copytree(other, self._store)
        await self.server.start()

    async def restart(self) -> None:
        await self.server.start()
        while not self.journal.available:  # noqa: ASYNC110 - another process cannot set our event
            await trio.sleep(0.01)


@asynccontextmanager
async def rigged(tmp_path: Path) -> AsyncIterator[Rig]:
    server = NatsProcess(tmp_path)
    await server.start()
    try:
        with trio.fail_after(SECONDS_MAX):
            async with open_bridge(Access([server.url])) as bridge:
                await bridge.wait_available()
                await ensure_stream(bridge)
                async with open_journal(bridge) as journal, trio.open_nursery() as nursery:
                    seen = Seen()
                    nursery.start_soon(journal.follow, 0, seen.handle)
                    rig = Rig(server, tmp_path / "store", bridge, journal)
                    await rig.store_one("first")
                    await seen.wait_for(1)
                    yield rig
                    nursery.cancel_scope.cancel()
    finally:
        server.kill()


def said(group: BaseExceptionGroup[BaseException]) -> str:
    matching, rest = group.split(JournalMismatch)
    assert matching is not None
    assert rest is None, rest
    error: BaseException = matching
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    return str(error)


async def test_the_same_store_is_followed_on(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig:
        rig.server.kill()
        await rig.restart()
        assert await rig.store_one("second") == 2


async def test_an_older_copy_ends_the_service(tmp_path: Path) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012, ASYNC401 - what happens in between is the test
        async with rigged(tmp_path) as rig:
            await rig.stopped_copy(tmp_path / "copy")
            await rig.store_one("second")
            await rig.swapped(tmp_path / "copy")
            while True:
                assert not isinstance((await rig.journal.append([item(command("third"), "x")]))[0], int)
                await trio.sleep(0.01)
    assert "it ends at 1, but 2 was stored" in said(caught.value)


async def test_an_older_copy_that_went_its_own_way_ends_the_service(tmp_path: Path) -> None:
    """As long as ours, made at the same time, and not ours."""
    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012, ASYNC401 - what happens in between is the test
        async with rigged(tmp_path) as rig:
            await rig.stopped_copy(tmp_path / "copy")
            await rig.store_one("second")
            while rig.journal._watch.known[0] < 2:  # noqa: ASYNC110 - nobody sets an event for us
                await trio.sleep(0.01)
            await rig.swapped(tmp_path / "copy")
            async with open_bridge(Access([rig.server.url])) as other:
                await other.wait_available()
                async with open_journal(other) as journal:
                    await journal.append([item(command(f"other{n}"), "x") for n in range(3)])
                await trio.sleep_forever()
    message = said(caught.value)
    assert "message 2 is another one" in message or "it ends at 1" in message


@pytest.mark.parametrize("how", ["restart", "live"])
async def test_a_new_stream_of_the_same_name_ends_the_service(tmp_path: Path, how: str) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012, ASYNC401 - what happens in between is the test
        async with rigged(tmp_path) as rig:
            if how == "restart":
                await rig.swapped(None)
            else:
                await api(rig.bridge, "STREAM.DELETE.ARC")
            async with open_bridge(Access([rig.server.url])) as other:
                await other.wait_available()
                await ensure_stream(other)
                await trio.sleep_forever()
    assert "is not the one that this service has followed" in said(caught.value)
