"""What a connection took is given back when it ends, even if the collector froze it while it was alive."""

from __future__ import annotations

import gc
import socket
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio

from arc_es.bootstrap import assemble, build_app
from arc_es.config import Config
from arc_es.http import server
from arc_es.journal.memory import MemoryJournal
from arc_es.keyring import KeyRing
from arc_es.serving import hypercorn_settings

SECONDS_MAX = 10
REQUESTS = {
    "kept alive": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "waiting": b"POST /commands/leases HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b'Content-Length: 40\r\n\r\n{"deploymentId": "dep","waitSeconds":60}',
    "garbage": b"\x00\xff\r\n\r\n",
    "half a request": b"POST /comm",
}


@contextmanager
def freezing() -> Iterator[None]:
    """No collection but those that the test asks for, and nothing stays frozen after it."""
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    """A served node; yields its port."""
    config = Config()
    node = assemble(MemoryJournal(), config)
    app = build_app(node.service, config, KeyRing(b"example-signing-key"))
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0)

    async def serve(task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:  # noqa: ASYNC128 - passes it on
        settings = hypercorn_settings(config)
        until = trio.sleep_forever
        await server.serve_http(app, settings, listener, connections_max=10, until=until, task_status=task_status)

    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        await nursery.start(serve)
        yield listener.getsockname()[1]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("data", REQUESTS.values(), ids=REQUESTS)
async def test_a_connection_that_was_frozen_and_ended_is_freed(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    freed = trio.Event()
    watched: list[weakref.ref[server.PatientStream]] = []

    class Watched(server.PatientStream):
        def __init__(self, stream: trio.SocketStream, connection: trio.CancelScope) -> None:
            super().__init__(stream, connection)
            watched.append(weakref.ref(self, lambda _: freed.set()))

    monkeypatch.setattr(server, "PatientStream", Watched)
    with freezing(), trio.fail_after(SECONDS_MAX):
        async with serving() as port:
            async with await trio.open_tcp_stream("127.0.0.1", port) as client:
                while not watched:
                    await trio.lowlevel.checkpoint()
                gc.freeze()
                await client.send_all(data)
                if data == REQUESTS["kept alive"]:
                    assert (await client.receive_some()).startswith(b"HTTP/1.1 200")
            while not freed.is_set():
                gc.collect()  # takes young cycles, as of an error and its frames, but nothing that was frozen
                await trio.lowlevel.checkpoint()
    assert len(watched) == 1
