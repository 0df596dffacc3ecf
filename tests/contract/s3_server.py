"""A real server for tests that speaks S3: `rclone serve s3` on a free port of 127.0.0.1."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import trio

from arc_es.storage.s3 import S3Access

READY_SECONDS = 20
KEY_ID = "test-key-id"
SECRET = "test-secret-key"
BUCKET = "bodies"


class S3Server:
    """One server with an empty bucket. It may be killed and started again: same port, same files."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._directory = directory
        (directory / BUCKET).mkdir()
        self._process: subprocess.Popen[bytes] | None = None

    def access(self, *, prefix: str = "", bucket: str = BUCKET, secret: str = SECRET) -> S3Access:
        """Who may do everything in the bucket."""
        return S3Access(bucket, prefix, f"http://127.0.0.1:{self.port}", key_id=KEY_ID, secret=secret)

    async def start(self) -> None:
        """Start and wait until it listens."""
        binary = Path(sys.executable).with_name("rclone")
        options = [f"--addr=127.0.0.1:{self.port}", f"--auth-key={KEY_ID},{SECRET}", "--no-cleanup"]
        self._process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
            [binary, "serve", "s3", "--config=/dev/null", *options, self._directory],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
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
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it run on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)
