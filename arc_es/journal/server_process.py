"""One nats-server process: fork it, see whether it answers, wait for its end, end it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import trio

from arc_es.journal import launch
from arc_es.journal.server_files import LOOPBACK, Variables

Child: TypeAlias = subprocess.Popen[bytes]

ANSWER_SECONDS_MAX: Final = 1
ANSWER_BYTES_MAX: Final = 65_536
STOP_SECONDS_MAX: Final = 10
"""From SIGTERM to SIGKILL."""
KILL_SECONDS_MAX: Final = 5
"""From SIGKILL to giving up on a process that the kernel does not let die."""
END_SECONDS_MAX: Final = STOP_SECONDS_MAX + KILL_SECONDS_MAX + 1
MEMORY_LIMIT: Final = "1GiB"
"""Go's soft limit: it collects garbage harder above it. A million subjects need 260 MB."""
LOG_TAIL_BYTES: Final = 4_096
LOG_TAIL_LINES: Final = 10

ENVIRON_KEPT: Final = ("GODEBUG", "GOGC", "GOMAXPROCS", "GOMEMLIMIT", "LD_LIBRARY_PATH", "TZ")
"""What the child gets of our environment, which may hold secrets. Some Pythons need LD_LIBRARY_PATH for launch.py."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server listens and who may connect."""

    url: str
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make the process. lock_fd: the lock on the data directory, which the process inherits."""

    program: Path
    config: Path
    data_dir: Path
    lock_fd: int

    @property
    def log_path(self) -> Path:
        """What nats-server says; it rotates the file itself, see nats.conf."""
        return self.data_dir / "nats-server.log"

    @property
    def stderr_path(self) -> Path:
        """What nats-server says before it has a log, and the trace if it panics."""
        return self.data_dir / "nats-server.err"

    def spawn(self, variables: Variables) -> Child:
        """Fork in this thread, not in a worker: the child dies with the thread that forked it. Blocks some 2 ms.

        Raises:
            OSError: no process can be made now.
        """
        if self.stderr_path.exists() and self.stderr_path.stat().st_size > 0:
            self.stderr_path.replace(self.stderr_path.with_suffix(".err.1"))  # keeps one panic for whoever looks
        self.stderr_path.touch(mode=0o600)
        launcher = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid())]
        kept = {name: os.environ[name] for name in ENVIRON_KEPT if name in os.environ}
        with self.stderr_path.open("wb") as stderr:
            return subprocess.Popen(
                [*launcher, str(self.program), "-c", str(self.config), "-l", str(self.log_path)],
                env={"GOMEMLIMIT": MEMORY_LIMIT} | kept | variables.as_environ(),
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                cwd=self.data_dir,
                umask=0o077,
                pass_fds=[self.lock_fd],
                start_new_session=True,
            )

    def last_words(self) -> str:
        """The ends of both logs."""
        lines: list[str] = []
        for path in (self.log_path, self.stderr_path):
            with suppress(FileNotFoundError), path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
                lines += file.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join(lines)


async def answers(endpoint: Endpoint) -> bool:
    """Whether JetStream answers this user: the port opens only after all streams have been read back."""
    with trio.move_on_after(ANSWER_SECONDS_MAX), suppress(OSError, trio.BrokenResourceError):
        async with await trio.open_tcp_stream(LOOPBACK, int(endpoint.url.rpartition(":")[2])) as stream:
            return await _ask_jetstream(stream, endpoint)
    return False


async def _ask_jetstream(stream: trio.SocketStream, endpoint: Endpoint) -> bool:
    login = json.dumps({"user": endpoint.user, "pass": endpoint.password, "name": "arc-es readiness", "verbose": False})
    await stream.send_all(f"CONNECT {login}\r\nSUB _ready 1\r\nPUB $JS.API.INFO _ready 0\r\n\r\n".encode())
    received = b""
    while len(received) < ANSWER_BYTES_MAX:
        some = await stream.receive_some()
        received += some
        if not some or b"-ERR" in received:
            break
        body = received.partition(b"\r\nMSG _ready ")[2].partition(b"\r\n")[2]
        if body.endswith(b"\r\n"):
            return b'"error"' not in body
    return False


async def wait_end(child: Child) -> None:
    """Wait until the child is dead, and reap it."""
    if child.poll() is not None:
        await trio.lowlevel.checkpoint()
        return
    fd = os.pidfd_open(child.pid)  # its own number still: it is not reaped
    try:
        await trio.lowlevel.wait_readable(fd)
    finally:
        os.close(fd)
    child.wait()


async def end(child: Child) -> bool:
    """SIGTERM, then SIGKILL; whether it is dead. Bounded, and not cancelled: nobody else would end the child."""
    for number, seconds in ((signal.SIGTERM, STOP_SECONDS_MAX), (signal.SIGKILL, KILL_SECONDS_MAX)):
        child.send_signal(number)
        with trio.move_on_after(seconds, shield=True):
            await wait_end(child)
            return True
    return False
