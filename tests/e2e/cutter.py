"""A TCP proxy that can stall, drop answers, reset and refuse, and that is told when."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Literal, TypeAlias

import trio

READ_BYTES = 65_536
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: closing sends RST."""

Mood: TypeAlias = Literal["pass", "stall", "drop", "refuse"]
TROUBLE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError)


class Cutter:
    """mood: `pass`, `stall` (nothing moves), `drop` (requests pass, answers vanish), `refuse` (new connections end)."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._mood: Mood = "pass"
        self._changed = trio.Event()
        self._connections: set[trio.SocketStream] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def set(self, mood: Mood) -> None:
        self._mood = mood
        self._changed.set()
        self._changed = trio.Event()

    def reset(self) -> None:
        """End all connections, in both directions, with RST."""
        for stream in list(self._connections):
            with suppress(*TROUBLE):
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            stream.socket.close()

    async def serve(self, client: trio.SocketStream) -> None:
        if self._mood == "refuse":
            await trio.aclose_forcefully(client)
            return
        try:
            service = await trio.open_tcp_stream("127.0.0.1", self._to)
        except OSError:
            await trio.aclose_forcefully(client)
            return
        both = {client, service}
        self._connections |= both
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._copy, client, service, nursery.cancel_scope)
                nursery.start_soon(self._copy, service, client, nursery.cancel_scope)
        finally:
            self._connections -= both
            for stream in both:
                stream.socket.close()

    async def _copy(self, source: trio.SocketStream, sink: trio.SocketStream, end: trio.CancelScope) -> None:
        answers = source.socket.fileno() >= 0 and sink.socket.fileno() >= 0 and self._is_service(source)
        with suppress(*TROUBLE):
            while data := await source.receive_some(READ_BYTES):
                while self._mood == "stall":
                    await self._changed.wait()
                if self._mood == "drop" and answers:
                    break
                await sink.send_all(data)
        end.cancel()

    def _is_service(self, stream: trio.SocketStream) -> bool:
        port: int = stream.socket.getpeername()[1]
        return port == self._to


@asynccontextmanager
async def cutting(port: int) -> AsyncGenerator[Cutter, None]:
    """A proxy in front of a port of this machine."""
    cutter = Cutter(port)
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, cutter.serve, 0, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await nursery.start(serve)
        cutter.port = listeners[0].socket.getsockname()[1]
        yield cutter
        nursery.cancel_scope.cancel()
