"""A real nats-server for tests: on a free port of 127.0.0.1, its store in a directory of the test's own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import trio

READY_SECONDS = 10


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class NatsProcess:
    """One nats-server. It may be killed and started again: same port, same store."""

    def __init__(self, directory: Path, *, max_payload: str = "4MB", users: str = "") -> None:
        self.port = _free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._config = directory / "nats.conf"
        self._process: subprocess.Popen[bytes] | None = None
        self._config.write_text(
            f'listen: "127.0.0.1:{self.port}"\n'
            f"max_payload: {max_payload}\n"
            f'jetstream {{ store_dir: "{directory}/store", sync_interval: always, max_file_store: 4GB }}\n'
            + (f"authorization {{ users: [ {users} ] }}\n" if users else "")
        )

    async def start(self) -> None:
        """Start and wait until it listens."""
        binary = Path(sys.executable).with_name("nats-server")
        self._process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
            [binary, "-c", self._config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with trio.fail_after(READY_SECONDS):
            while not await self._listens():  # noqa: ASYNC110 - another process cannot set our event
                await trio.sleep(0.02)

    async def _listens(self) -> bool:
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        except OSError:
            return False
        await stream.aclose()
        return True

    def kill(self) -> None:
        """SIGKILL, and wait for the end of it. Harmless when it is dead already."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop it from running while its connections stay open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it run on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)
