"""PostgreSQL, Redis and beanstalkd, as durable as they can be, each on a free port of loopback and a new directory."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeAlias

from tests.bench.servers import service

START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 20
STOP = signal.SIGINT
"""What all three take as: end now, in good order. PostgreSQL would wait for its clients at SIGTERM."""
LOOPBACK = "127.0.0.1"
POSTGRES_USER = "postgres"

Serving: TypeAlias = Callable[[], AbstractContextManager[str]]
"""Runs a server and gives its URL."""

POSTGRES_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",  # no checkpoint in the middle of a round
    "max_connections": "200",
    "jit": "off",  # compiles for longer than these queries run
}
REDIS_SETTINGS = {
    "bind": LOOPBACK,
    "appendonly": "yes",
    "appendfsync": "always",
    "save": "",
    "auto-aof-rewrite-percentage": "0",  # no rewrite in the middle of a round
    "daemonize": "no",
}


class MissingError(Exception):
    """A server or interpreter that a system needs is not installed; the message says what to install."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def find(program: str, package: str) -> str:
    """The path of a server, also where Debian keeps PostgreSQL's.

    Raises:
        MissingError: it is not installed.
    """
    found = shutil.which(program)
    if found is None:
        versions = Path("/usr/lib/postgresql").glob(f"*/bin/{program}")
        found = max((str(path) for path in versions), default=None)
    if found is None:
        raise MissingError(f"{program} is not installed: apt-get install {package}")
    return found


def _as_postgres() -> list[str]:
    """PostgreSQL refuses to run as root: options for setpriv."""
    return [f"--reuid={POSTGRES_USER}", f"--regid={POSTGRES_USER}", "--clear-groups"] if os.geteuid() == 0 else []


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < ends and process.poll() is None:
        try:
            socket.create_connection((LOOPBACK, port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{process.args!r} did not start:\n{log.read_text()[-2_000:]}")


@contextmanager
def _server(command: list[str], port: int, folder: Path, *options: str) -> Iterator[None]:
    """Run a server until it is told to stop, or this process has gone in whatever way."""
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", *options, "--pdeathsig", STOP.name.removeprefix("SIG"), *command],
            cwd=folder,
            stdout=output,
            stderr=output,
        )
    try:
        _wait_for(port, process, log)
        yield
    finally:
        process.send_signal(STOP)
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def postgres() -> Iterator[str]:
    """A new cluster."""
    initdb, server = find("initdb", "postgresql"), find("postgres", "postgresql")
    with tempfile.TemporaryDirectory(prefix="peers-postgres-") as name:
        folder, port = Path(name), free_port()
        if os.geteuid() == 0:
            user = pwd.getpwnam(POSTGRES_USER)
            os.chown(folder, user.pw_uid, user.pw_gid)
        data = str(folder / "data")
        make = [initdb, "--auth=trust", "--username=bench", "--encoding=UTF8", "--no-locale", "-D", data]
        subprocess.run(["setpriv", *_as_postgres(), *make], check=True, stdout=subprocess.DEVNULL, cwd=folder)
        settings = [f"--{key}={value}" for key, value in POSTGRES_SETTINGS.items()]
        with _server([server, "-D", data, "-p", str(port), *settings], port, folder, *_as_postgres()):
            yield f"postgresql://bench@{LOOPBACK}:{port}/postgres"


@contextmanager
def redis() -> Iterator[str]:
    """An empty Redis that syncs its log before it answers."""
    server = find("redis-server", "redis-server")
    with tempfile.TemporaryDirectory(prefix="peers-redis-") as name:
        folder, port = Path(name), free_port()
        settings = [part for key, value in REDIS_SETTINGS.items() for part in (f"--{key}", value)]
        with _server([server, "--port", str(port), "--dir", name, *settings], port, folder):
            yield f"redis://{LOOPBACK}:{port}/0"


@contextmanager
def beanstalkd() -> Iterator[str]:
    """An empty beanstalkd that syncs its log at every write."""
    server = find("beanstalkd", "beanstalkd")
    with tempfile.TemporaryDirectory(prefix="peers-beanstalkd-") as name:
        folder, port = Path(name), free_port()
        binlog = folder / "binlog"
        binlog.mkdir()
        command = [server, "-l", LOOPBACK, "-p", str(port), "-b", str(binlog), "-f", "0"]
        with _server(command, port, folder):
            yield f"{LOOPBACK}:{port}"


@contextmanager
def nothing() -> Iterator[str]:
    """For arc_es over plain HTTP, whose script starts the service itself."""
    yield ""


@contextmanager
def arc_es() -> Iterator[str]:
    """A new service."""
    with service() as server:
        yield f"http://{LOOPBACK}:{server.port}"
