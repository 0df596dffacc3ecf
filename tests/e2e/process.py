"""A real `arc-es serve` for tests: started, killed, frozen and started again, same port and same data."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from tests.e2e.http import Client

ROOT = Path(__file__).parents[2]
WORKERS = os.environ.get("ARC_TEST_WORKERS", "1")
"""How many processes serve in tests that do not say. `ARC_TEST_WORKERS=2 make test ARGS=tests/e2e` tries all so."""
READY_SECONDS = 30
END_SECONDS = 30
POLL_SECONDS = 0.01


def free_port() -> int:
    """A port below the ephemeral range, so that no outgoing connection takes it while the service is dead.

    Tests that run at the same time look in ranges of their own, so that none takes it meanwhile either.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 12
    begin = 20_000 + worker * 1_000
    for port in (begin + (os.getpid() + offset) % 1_000 for offset in range(1_000)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


def environ(more: Mapping[str, str]) -> dict[str, str]:
    """Ours without any ARC_ setting of the person who runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ARC_")}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


class ServiceProcess:
    """One service. Its stdout and stderr, of all its lives, are the files `stdout` and `stderr` beside the data dir."""

    def __init__(self, data_dir: Path, *options: str, bind: str = "", **env: str) -> None:
        self.data_dir = data_dir
        self.bind = bind or f"127.0.0.1:{free_port()}"
        self._options = options if "--workers" in options else ("--workers", WORKERS, *options)
        self._environ = environ(env)
        self._process: trio.Process | None = None
        self.stdout = data_dir.with_name(f"{data_dir.name}.stdout")
        self.stderr = data_dir.with_name(f"{data_dir.name}.stderr")
        self.ready_line = ""

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.bind.rpartition(":")[2])

    @property
    def process(self) -> trio.Process:
        """The running process."""
        assert self._process is not None, "not started"
        return self._process

    async def spawn(self) -> None:
        """Start the process and do not wait for anything."""
        arguments = ["serve", "--bind", self.bind, "--data-dir", str(self.data_dir), *self._options]
        with self.stdout.open("ab") as out, self.stderr.open("ab") as err:
            self._process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "arc_es", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=self._environ,
                cwd=self.data_dir.parent,
            )

    async def start(self) -> None:
        """Start and wait for the line that says it is ready."""
        seen = self.stdout.stat().st_size if self.stdout.exists() else 0
        await self.spawn()
        with trio.fail_after(READY_SECONDS):
            while not (said := self.stdout.read_text()[seen:]).endswith("\n"):
                assert self.process.poll() is None, f"it ended: {self.stderr.read_text()}"
                await trio.sleep(POLL_SECONDS)  # another process cannot set our event
        self.ready_line = said

    def client(self, **headers: str) -> Client:
        """A connection of its own, made when it is first used."""
        return Client("127.0.0.1", self.port, headers)

    def nats_pid(self) -> int | None:
        """Process id of its nats-server, None while there is none."""
        return next((pid for pid, command in self._children() if "/nats-server\0-c\0" in command), None)

    def worker_pids(self) -> list[int]:
        """Process ids of its workers, if it has several."""
        return [pid for pid, command in self._children() if "\0arc_es.workers.worker\0" in command]

    def _children(self) -> Iterator[tuple[int, str]]:
        """Process ids and commands of its children; those that become something else have not done so yet."""
        with suppress(OSError):
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            for pid in children:
                command = Path(f"/proc/{pid}/cmdline").read_text()
                if "/launch.py\0" not in command:
                    yield int(pid), command

    def signal_nats(self, number: int) -> int:
        """Send its nats-server a signal, if there is one; its process id or 0."""
        pid = self.nats_pid()
        with suppress(ProcessLookupError):
            if pid is not None:
                os.kill(pid, number)
        return pid or 0

    async def kill(self) -> None:
        """SIGKILL and wait for the end. Harmless if it is dead."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self.wait()

    async def terminate(self) -> int:
        """SIGTERM and wait; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return await self.wait()

    async def wait(self) -> int:
        """Wait until it has ended; the exit status."""
        with trio.fail_after(END_SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def serving(data_dir: Path, *options: str, **env: str) -> AsyncIterator[ServiceProcess]:
    """A service that is ready; killed at the end."""
    service = ServiceProcess(data_dir, *options, **env)
    try:
        await service.start()
        yield service
    finally:
        with trio.CancelScope(shield=True):
            await service.kill()


async def gone(pid: int) -> None:
    """Wait until a process that is not our child has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(fd)
    finally:
        os.close(fd)
