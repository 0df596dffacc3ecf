"""SIGKILL of the service: its nats-server goes with it, and what was acknowledged is there at the next start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from arc_es.journal.data_lock import acquire_lock
from arc_es.journal.server import DataDirLocked, Endpoint, lock_holder, run_server
from tests.e2e.process import gone

SECONDS_MAX = 15
ACKED_BEFORE_KILL = 300
BURST = 50

SERVICE = """
import sys, trio
from pathlib import Path
from arc_es.journal.server import run_server

async def main():
    async with run_server(Path(sys.argv[1])) as server:
        print(server.pid, server.endpoint.url, server.endpoint.password, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


class RawClient:
    """As much NATS as these tests need; nats-py would bring asyncio."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._received = b""

    async def line(self) -> bytes:
        """The next line. Raises ConnectionError at the end."""
        while b"\r\n" not in self._received:
            some = await self._stream.receive_some(65_536)
            if not some:
                raise ConnectionError
            self._received += some
        line, _, self._received = self._received.partition(b"\r\n")
        return line

    async def answer(self) -> dict[str, object]:
        """The body of the next message; all bodies here are one line of JSON."""
        while not (await self.line()).startswith(b"MSG"):
            pass
        body: dict[str, object] = json.loads(await self.line())
        return body

    async def send(self, *messages: tuple[str, bytes]) -> None:
        parts = (b"PUB %s _in %d\r\n%s\r\n" % (to.encode(), len(body), body) for to, body in messages)
        await self._stream.send_all(b"".join(parts))


@asynccontextmanager
async def raw_client(endpoint: Endpoint) -> AsyncIterator[RawClient]:
    async with await trio.open_tcp_stream("127.0.0.1", int(endpoint.url.rpartition(":")[2])) as stream:
        login = json.dumps({"user": endpoint.user, "pass": endpoint.password, "verbose": False})
        await stream.send_all(f"CONNECT {login}\r\nSUB _in 1\r\n".encode())
        yield RawClient(stream)


@asynccontextmanager
async def service(data_dir: Path) -> AsyncIterator[tuple[trio.Process, int, Endpoint]]:
    """A process that runs the server until it is killed; with the server's pid and endpoint."""
    process = await trio.lowlevel.open_process([sys.executable, "-c", SERVICE, str(data_dir)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        said = b""
        while not said.endswith(b"\n"):
            some = await process.stdout.receive_some()
            assert some, "the service ended"
            said += some
        pid, url, password = said.decode().split()
        yield process, int(pid), Endpoint(url, "arc", password)
    finally:
        process.kill()
        with trio.move_on_after(5, shield=True):
            await process.wait()
            await process.stdout.aclose()


async def write_until_cut(client: RawClient, process: trio.Process) -> int:
    """Append in bursts, kill the service with a burst in flight, and return how many appends were acknowledged."""
    acked = 0
    try:
        while True:
            await client.send(*[("t.x", b"x" * 1_000)] * BURST)
            if acked >= ACKED_BEFORE_KILL:
                process.kill()
            for _ in range(BURST):
                assert "seq" in await client.answer()
                acked += 1
    except (ConnectionError, trio.BrokenResourceError):
        return acked


async def test_a_killed_service_takes_its_server_along_and_loses_nothing_acknowledged(tmp_path: Path) -> None:
    stream = {"name": "T", "subjects": ["t.>"], "storage": "file", "retention": "limits", "num_replicas": 1}
    with trio.fail_after(SECONDS_MAX):
        async with service(tmp_path) as (process, server_pid, endpoint):
            async with raw_client(endpoint) as client:
                await client.send(("$JS.API.STREAM.CREATE.T", json.dumps(stream).encode()))
                assert "error" not in await client.answer()
                acked = await write_until_cut(client, process)
            with trio.fail_after(3):
                await gone(server_pid)
        async with run_server(tmp_path) as server, raw_client(server.endpoint) as client:
            assert endpoint == server.endpoint
            await client.send(("$JS.API.STREAM.INFO.T", b""))
            state = (await client.answer())["state"]
    assert isinstance(state, dict)
    assert acked >= ACKED_BEFORE_KILL
    assert state["messages"] >= acked


async def test_a_start_waits_for_an_orphan_to_die(tmp_path: Path) -> None:
    """The orphan: any process of that name that inherited the lock."""
    with trio.fail_after(SECONDS_MAX):
        orphan = await orphan_with_lock(tmp_path)
        holder = lock_holder(tmp_path)
        assert holder is not None
        assert (orphan.pid, "nats-server", True) == (holder.pid, holder.name, holder.orphan)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(die_when_someone_waits, orphan)
            async with run_server(tmp_path) as server:
                assert server.running


async def test_an_orphan_that_stays_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arc_es.journal.data_lock.LOCK_SECONDS_MAX", 0.2)
    with trio.fail_after(SECONDS_MAX):
        orphan = await orphan_with_lock(tmp_path)
        with pytest.raises(DataDirLocked, match=rf"nats-server \(pid {orphan.pid}\), left over .*kill {orphan.pid}"):
            async with run_server(tmp_path):
                pass
        await die_when_someone_waits(orphan)


async def orphan_with_lock(data_dir: Path) -> trio.Process:
    program = data_dir / "nats-server"
    program.symlink_to("/bin/sleep")
    fd = await acquire_lock(data_dir)
    try:
        return await trio.lowlevel.open_process([str(program), "60"], pass_fds=[fd])
    finally:
        os.close(fd)


async def die_when_someone_waits(orphan: trio.Process) -> None:
    await trio.testing.wait_all_tasks_blocked()
    orphan.send_signal(signal.SIGKILL)
    await orphan.wait()
