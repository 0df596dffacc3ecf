"""Processes that share a listening socket: an even share, and nothing for one that is not ready."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager, closing

import trio

from arc_es.http.accepting import SharedListener
from arc_es.workers.board import Board, Line


class Acceptor:
    """Accepts and keeps what it has accepted."""

    def __init__(self, listener: socket.socket, line: Line, accepted: trio.MemorySendChannel[None]) -> None:
        self.line = line
        self.kept: list[trio.SocketStream] = []
        self._accepted = accepted
        self._shared = SharedListener(listener, line, lambda: len(self.kept))

    async def run(self) -> None:
        while True:
            self.kept.append(await self._shared.accept())
            await self._accepted.send(None)

    def close(self) -> None:
        for stream in self.kept:
            stream.socket.close()


class Room:
    """Acceptors on one socket, each as if in a process of its own."""

    def __init__(self, count: int) -> None:
        send, self._receive = trio.open_memory_channel[None](100)
        self.board = Board.made(count)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self._sockets = [self._listener.dup() for _ in range(count)]
        for each in self._sockets:
            each.settimeout(0)
        self.acceptors = [Acceptor(each, self.board.line(at), send) for at, each in enumerate(self._sockets, 1)]

    async def connect(self, count: int) -> list[int]:
        """Make connections, wait until all are accepted; how many each acceptor has."""
        with ExitStack() as opened, trio.fail_after(10):
            for _ in range(count):
                opened.enter_context(socket.create_connection(self._listener.getsockname()))
            for _ in range(count):
                await self._receive.receive()
        return [len(each.kept) for each in self.acceptors]

    def close(self) -> None:
        for acceptor in self.acceptors:
            acceptor.close()
        for each in (*self._sockets, self._listener):
            each.close()


@asynccontextmanager
async def accepting(count: int, *running: int) -> AsyncGenerator[Room, None]:
    """Acceptors, of which these run."""
    with closing(Room(count)) as room:
        async with trio.open_nursery() as nursery:
            for at in running:
                nursery.start_soon(room.acceptors[at].run)
            yield room
            nursery.cancel_scope.cancel()


async def test_both_get_about_half() -> None:
    async with accepting(2, 0, 1) as room:
        for each in room.acceptors:
            each.line.serve()
        assert min(await room.connect(40)) >= 10


async def test_one_that_is_not_ready_gets_nothing_while_another_is() -> None:
    async with accepting(2, 0, 1) as room:
        room.acceptors[0].line.serve()
        assert await room.connect(10) == [10, 0]


async def test_somebody_answers_while_none_is_ready() -> None:
    async with accepting(2, 0, 1) as room:
        assert sum(await room.connect(4)) == 4


async def test_one_that_is_frozen_keeps_nobody_waiting() -> None:
    """Its line says that it has fewer connections; the other one takes them all the same, a moment later."""
    async with accepting(2, 1) as room:
        frozen, busy = room.acceptors
        frozen.line.serve()
        busy.line.serve()
        assert await room.connect(5) == [0, 5]
        assert busy.line.others_have_fewer
        room.board.wipe(1)
        assert not busy.line.others_have_fewer


def test_the_board_says_how_far_the_others_are() -> None:
    board = Board.made(3)
    lines = [board.line(number) for number in (1, 2, 3)]
    lines[0].applied(2**40)
    lines[1].applied(7)
    assert [line.applied_max for line in lines] == [7, 2**40, 2**40]
    lines[0].serve()
    assert [line.may_accept for line in lines] == [True, False, False]
    lines[0].leave()
    assert all(line.may_accept for line in lines)
    board.wipe(1)
    assert lines[1].applied_max == 0
