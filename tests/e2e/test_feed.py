"""The live feed over real sockets: through kills of the service, and with readers that never read."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import h11
import orjson
import pytest
import trio

from arc_es.domain import limits
from tests.e2e.http import READ_BYTES, SUCCESS, Client, NoAnswer, create_body, lease_body, submit_path
from tests.e2e.process import POLL_SECONDS, ServiceProcess, environ, serving

KILLS = 3
COMMANDS_BETWEEN_KILLS = 12
SLOW_READERS = 100
ROUNDS = 4
CREATES = 160
CLIENTS = 8
RATIO_MIN = 0.5
"""Of the rate of creates; the rounds are interleaved, and still the machine is noisy."""


class Follower:
    """A reader of the live feed that comes back after each end, with the last id that it saw."""

    def __init__(self, service: ServiceProcess) -> None:
        self._service = service
        self._pending: list[Any] = []
        self.events: list[Any] = []
        self.last_id = 0
        self._more = trio.Event()

    async def run(self) -> None:
        while True:
            with suppress(OSError, trio.BrokenResourceError, h11.ProtocolError):
                await self._read()
            self._pending = []  # without its id, a decision comes again
            await trio.sleep(POLL_SECONDS)  # until the service is back

    async def _read(self) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", self._service.port)
        async with stream:
            rest = b""
            async for piece in body(stream, {"Last-Event-ID": str(self.last_id)}):
                *blocks, rest = (rest + piece).split(b"\n\n")
                for block in blocks:
                    self._take(dict(line.split(b": ", 1) for line in block.split(b"\n") if not line.startswith(b":")))

    def _take(self, fields: dict[bytes, bytes]) -> None:
        if b"data" in fields:
            self._pending.append(orjson.loads(fields[b"data"]))
        if b"id" in fields:
            self.last_id = int(fields[b"id"])
            self.events += self._pending
            self._pending = []
            self._more.set()
            self._more = trio.Event()

    async def reached(self, position: int) -> None:
        while self.last_id < position:
            await self._more.wait()


async def body(stream: trio.SocketStream, headers: dict[str, str]) -> AsyncIterator[bytes]:
    """The pieces of the body of a live feed."""
    http = h11.Connection(h11.CLIENT)
    sent = {"Host": "127.0.0.1", "Accept": "text/event-stream", **headers}
    request = h11.Request(method="GET", target="/v1/events", headers=[*sent.items()])
    await stream.send_all((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some(READ_BYTES))
        elif isinstance(event, h11.Response):
            assert event.status_code in (200, 503), event  # 503: it is starting
        elif isinstance(event, h11.Data):
            yield bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return
        else:
            raise h11.RemoteProtocolError("the feed broke off")


async def run_commands(service: ServiceProcess, name: str, count: int) -> None:
    """Create, lease and answer that many commands, whatever happens to the service."""
    done = 0
    async with service.client() as client:
        while done < count:
            try:
                await client.call("POST", "/v1/commands", create_body(name))
                answer = await client.call("POST", "/v1/commands/leases", lease_body(name, waitSeconds=1))
                for lease in answer.json.get("leases", ()):
                    await client.call("PUT", submit_path(lease), SUCCESS)
                    done += 1
            except NoAnswer:
                await trio.sleep(POLL_SECONDS)  # another process cannot set our event


async def everything(client: Client) -> list[Any]:
    events: list[Any] = []
    page: Any = {"next": 0, "end": False}
    while not page["end"]:
        page = (await client.call("GET", f"/v1/events?limit=1000&after={page['next']}")).json
        events += page["events"]
    return events


@pytest.mark.slow
async def test_a_feed_through_kills_is_the_journal(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as service, trio.open_nursery() as nursery:
        follower = Follower(service)
        nursery.start_soon(follower.run)
        with trio.fail_after(120):
            for _ in range(KILLS):
                async with trio.open_nursery() as crowd:
                    for number in range(3):
                        crowd.start_soon(run_commands, service, f"t{number}", COMMANDS_BETWEEN_KILLS)
                    await follower.reached(follower.last_id + 1)
                    await service.kill()
                    await service.start()
            async with service.client() as client:
                whole = await everything(client)
            await follower.reached(whole[-1]["seq"])
        nursery.cancel_scope.cancel()
    assert follower.events == whole
    assert len(whole) >= 3 * 3 * KILLS * COMMANDS_BETWEEN_KILLS


async def test_a_live_feed_ends_whole_when_the_service_stops(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as service:
        await run_commands(service, "x", 1)
        async with await trio.open_tcp_stream("127.0.0.1", service.port) as stream, trio.open_nursery() as nursery:
            received = b""
            with trio.fail_after(limits.SEND_SECONDS_MAX):
                async for piece in body(stream, {}):
                    if received.count(b"id: ") < 3 <= (received + piece).count(b"id: "):
                        nursery.start_soon(service.terminate)
                    received += piece
        assert await service.wait() == 0
    assert received.endswith(b"\n\n")


@pytest.mark.slow
async def test_the_command_line_follows_through_a_kill_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as service:
        url = f"http://127.0.0.1:{service.port}"
        await run_commands(service, "before", 1)
        options = [sys.executable, "-m", "arc_es", "events", "--follow", "--json", "--deployment", "e2e", "--url", url]
        process = await trio.lowlevel.open_process(options, stdout=subprocess.PIPE, env=environ({}))
        assert process.stdout is not None
        lines = Lines(process.stdout)
        with trio.fail_after(60):
            await lines.until(3)
            await service.kill()
            await service.start()
            await run_commands(service, "after", 1)
            await lines.until(6)
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
        await process.stdout.aclose()
        async with service.client() as client:
            whole = await everything(client)
    assert lines.objects == [event for event in whole if event.get("deploymentId") == "e2e"][: len(lines.objects)]


@pytest.mark.slow
async def test_a_followed_history_ends_with_its_command(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as service, service.client() as client:
        command_id = (await client.call("POST", "/v1/commands", create_body("x"))).json["commandId"]
        options = ["history", "--follow", "--json", command_id, "--url", f"http://127.0.0.1:{service.port}"]
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "arc_es", *options], stdout=subprocess.PIPE, env=environ({})
        )
        assert process.stdout is not None
        lines = Lines(process.stdout)
        with trio.fail_after(60):
            await lines.until(1)
            (lease,) = (await client.call("POST", "/v1/commands/leases", lease_body("x"))).json["leases"]
            await lines.until(2)
            await client.call("PUT", submit_path(lease), SUCCESS)
            assert await process.wait() == 0
            await lines.until(3)
        await process.stdout.aclose()
        said = (await client.call("GET", f"/v1/commands/{command_id}/explain")).json
        assert (said["state"], said["facts"]["attempt"]) == ("SUCCEEDED", 1)
    assert [event["type"] for event in lines.objects] == ["CommandCreated", "CommandLeased", "CommandSucceeded"]


class Lines:
    """JSON objects, a line each, from a process."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._rest = b""
        self.objects: list[Any] = []

    async def until(self, count: int) -> None:
        while len(self.objects) < count:
            piece = await self._stream.receive_some(READ_BYTES)
            assert piece, "it ended"
            *lines, self._rest = (self._rest + piece).split(b"\n")
            self.objects += map(orjson.loads, lines)


@pytest.mark.slow
async def test_readers_that_never_read_slow_nobody_down_and_are_cut_off(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", "--log-level", "WARNING") as service:
        for _ in range(3):
            await creates(service)
        files = open_files(service)
        readers: list[socket.socket] = []
        rates: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(ROUNDS):
            rates[False].append(await creates(service))
            readers += [slow_reader(service.port) for _ in range(SLOW_READERS)]
            await creates(service)  # they fill what the system keeps for them, and then stand still
            rates[True].append(await creates(service))
            assert open_files(service) > files + SLOW_READERS - CLIENTS
            while readers:
                readers.pop().close()
            await until_closed(service, files)
        assert median(rates[True]) > RATIO_MIN * median(rates[False]), rates
        readers += [slow_reader(service.port) for _ in range(SLOW_READERS)]
        assert open_files(service) > files + SLOW_READERS - CLIENTS
        await until_closed(service, files)  # though they are still there
        while readers:
            readers.pop().close()
        async with service.client() as client:
            assert (await client.call("GET", "/v1/events?limit=1")).status == 200


def open_files(service: ServiceProcess) -> int:
    return len(list(Path(f"/proc/{service.process.pid}/fd").iterdir()))


async def until_closed(service: ServiceProcess, files: int) -> None:
    """Wait until the service has no more connections than before."""
    with trio.fail_after(3 * limits.SEND_SECONDS_MAX):
        while open_files(service) > files + CLIENTS:  # noqa: ASYNC110 - another process cannot set our event
            await trio.sleep(0.1)


def slow_reader(port: int) -> socket.socket:
    """A connection that asks for the whole feed, sees that it begins, and takes nothing."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", port))
    reader.sendall(b"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
    assert reader.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 200"
    return reader


async def creates(service: ServiceProcess) -> float:
    """Creates a second, of several clients."""

    async def some() -> None:
        async with service.client() as client:
            for _ in range(CREATES // CLIENTS):
                assert (await client.call("POST", "/v1/commands", create_body("slow"))).status == 200

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(CLIENTS):
            nursery.start_soon(some)
    return CREATES / (trio.current_time() - began)
