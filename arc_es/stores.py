"""The journal and the body store, on an own nats-server or on somebody else's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, NamedTuple

import trio

from arc_es.actors.peers import Peers
from arc_es.archive.journal import ArchivedJournal, with_archive
from arc_es.config import Config
from arc_es.journal.gossip import gossip
from arc_es.journal.jetstream import open_journal
from arc_es.journal.room import Room
from arc_es.journal.server import disk_free_bytes, run_server
from arc_es.journal.stream import StreamSettings, ensure_stream
from arc_es.journal.watch import Disk
from arc_es.nats_access import Access
from arc_es.nats_bridge import Bridge, open_bridge
from arc_es.ports import BodyStore, JournalUnavailable
from arc_es.storage.choice import open_body_store

CONNECT_SECONDS_MAX: Final = 30
CONNECT_RETRY_SECONDS: Final = 0.5


class CannotStart(Exception):
    """The service cannot start; the message says what to do."""


class Stores(NamedTuple):
    """What is behind a node. talk: carries what it and the other nodes on the same NATS tell each other, for ever."""

    journal: ArchivedJournal
    bodies: BodyStore
    talk: Callable[[Peers], Awaitable[None]]


@asynccontextmanager
async def open_stores(config: Config) -> AsyncGenerator[Stores, None]:
    """What the configuration names, on an own nats-server or the one that was named."""
    if config.nats_url is None:
        bytes_max = config.nats_store_bytes_max if config.nats_store_bytes_max > 0 else None
        async with run_server(config.data_dir, max_file_store_bytes=bytes_max) as server:
            endpoint = server.endpoint
            access = Access([endpoint.url], endpoint.user, endpoint.password)
            disk = Disk(server.max_file_store_bytes, partial(disk_free_bytes, config.data_dir), server.restart)
            async with open_on(access, config, disk) as stores:
                yield stores
    else:
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with open_on(Access([config.nats_url]), config) as stores:
            yield stores


@asynccontextmanager
async def open_on(access: Access, config: Config, disk: Disk | None = None) -> AsyncGenerator[Stores, None]:
    """The same on a server that runs. disk: where it stores, if it is ours."""
    room = Room(config.headroom_bytes)
    async with open_bridge(access) as bridge:
        store = await _streams_ready(bridge, room, access, config)
        async with (
            open_journal(bridge, room=room, disk=disk) as stream,
            with_archive(stream, config.data_dir) as journal,
        ):
            yield Stores(journal, store, partial(gossip, bridge))


async def _streams_ready(bridge: Bridge, room: Room, access: Access, config: Config) -> BodyStore:
    """Connect and see to the streams; a cluster that has not elected its leaders yet gets the time to do so."""
    trouble = "it does not answer"
    with trio.move_on_after(CONNECT_SECONDS_MAX):
        while True:
            await bridge.wait_available()
            try:
                await ensure_stream(bridge, StreamSettings(config.replicas, config.stream_bytes_max))
                return await open_body_store(config, bridge, room.take_beside)
            except JournalUnavailable as error:
                trouble = str(error)
                await trio.sleep(CONNECT_RETRY_SECONDS)
    where = access.scrub(config.nats_url or "its own nats-server")
    raise CannotStart(
        f"cannot use {where} within {CONNECT_SECONDS_MAX} s: {access.scrub(trouble)}. Is it running?"
        " See `arc-es doctor`."
    )
