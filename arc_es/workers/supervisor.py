"""The process that is the service when there are several workers: it serves nothing itself.

Rules of its life:

1. What there is once is here: the lock of the data dir, nats-server, the listening socket, the signals, the ready line.
2. Workers share the socket, so what waits to be accepted belongs to none of them, and dies with none of them.
3. No worker outlives us. However we end, the kernel kills them (`journal/launch.py`).
4. We survive them. A dead worker is replaced, with growing delay; the others do not notice.
5. A service whose workers cannot start ends and says why: at the first start at once, later after `TRIES_MAX` tries.
6. Linux only, like the embedded nats-server.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio

from arc_es.config import Config
from arc_es.journal import launch
from arc_es.journal.server import ServerError, run_server
from arc_es.journal.server_process import Child, wait_end
from arc_es.keyring import checkpoint_seeds, open_ring
from arc_es.nats_access import Access
from arc_es.ports import SystemClock
from arc_es.serving import EXIT_CANNOT_START, EXIT_OK, listen, run_logged, say_ready
from arc_es.snapshots.writer import LAST_SECONDS_MAX
from arc_es.workers.board import Board
from arc_es.workers.worker import OPENED, READY, RESTART, orders

RESTART_SECONDS_MIN: Final = 0.1
RESTART_SECONDS_MAX: Final = 5.0
RESTART_FORGIVEN_SECONDS: Final = 60.0
"""A worker that ran this long is replaced without the delay that earlier deaths earned."""
TRIES_MAX: Final = 5
"""Replacements in a row that end before they are ready."""
STOP_SECONDS_MIN: Final = 10.0
"""From the signal that stops at once to SIGKILL; and what a drain may take beyond the times that it is given."""
NATS_RESTART_SECONDS_MIN: Final = 10.0
"""Between two times that workers have nats-server started again: all of them see the same trouble."""

log = logging.getLogger("arc_es.workers")


class WorkerFailed(ServerError):
    """A worker cannot be started, and the service ends with it."""


@dataclass(eq=False, slots=True)
class Worker:
    """One worker process."""

    number: int
    child: Child
    since: float = field(default_factory=trio.current_time)
    ready: bool = False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; one that is frozen wakes up for it."""
        for each in (number, signal.SIGCONT):
            self.child.send_signal(each)


@dataclass(frozen=True, slots=True)
class Nats:
    """The server that all workers use. bytes_max: what our own one may store, None if it is not ours."""

    access: Access
    bytes_max: int | None = None
    restart: Callable[[], None] | None = None


class Supervisor:
    """Keeps the workers of a service alive until it is told to stop. ended: is told with what status one has."""

    def __init__(self, config: Config, listener: socket.socket, nats: Nats, ended: Callable[[int], None]) -> None:
        self._config = config
        self._listener = listener
        self._nats = nats
        self._board = Board.made(config.workers)
        self._workers: dict[int, Worker] = {}
        self._opened = trio.Event()
        self._all_ready = trio.Event()
        self._nats_restarted_at = -NATS_RESTART_SECONDS_MIN
        self._stop = trio.Event()
        self._ended = ended

    async def run(self) -> None:
        """Start all workers, say that they are ready, and keep them until `stop`; returns when all have ended.

        Raises:
            WorkerFailed: they cannot be kept.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._say_when_ready)
            try:
                async with trio.open_nursery() as keepers:
                    for number in range(1, self._config.workers + 1):
                        keepers.start_soon(self._keep, number)
            finally:
                with trio.CancelScope(shield=True):
                    await self._end_all()
                nursery.cancel_scope.cancel()

    async def _say_when_ready(self) -> None:
        await self._all_ready.wait()
        say_ready(self._listener)

    # --- one worker after the other

    async def _keep(self, number: int) -> None:
        """Have worker `number` run, whatever happens to it."""
        delay_seconds, failures = RESTART_SECONDS_MIN, 0
        while not self._stop.is_set():
            worker = self._workers[number] = self._spawn(number)
            await self._attend(worker)
            status = worker.child.wait()
            self._board.wipe(number)
            del self._workers[number]
            failures = 0 if worker.ready else failures + 1
            if self._stop.is_set():
                self._ended(max(status, EXIT_OK))  # below 0: by a signal of ours
                break
            self._must_go_on(worker, status, failures)
            if trio.current_time() - worker.since > RESTART_FORGIVEN_SECONDS:
                delay_seconds = RESTART_SECONDS_MIN
            died = "Worker %d (pid %d) died with status %d; another is started in %.1f s"
            log.warning(died, number, worker.child.pid, status, delay_seconds)
            with trio.move_on_after(delay_seconds):
                await self._stop.wait()
            delay_seconds = min(2 * delay_seconds, RESTART_SECONDS_MAX)

    def _must_go_on(self, worker: Worker, status: int, failures: int) -> None:
        """Raises WorkerFailed."""
        said_why = worker.ready and status == EXIT_CANNOT_START
        first = failures > 0 and status > 0 and not self._all_ready.is_set()
        if said_why or first or failures >= TRIES_MAX:
            self._ended(status)
            times = f", {failures} times in a row," if failures > 1 else ""
            when = "" if worker.ready else " before it was ready"
            raise WorkerFailed(
                f"worker {worker.number} ended with status {status}{times}{when}, so the service ends; see above why"
            )

    def _spawn(self, number: int) -> Worker:
        """Fork in this thread, which lives as long as we do: see `launch`. Raises OSError."""
        fds = [self._listener.fileno(), self._board.fd]
        launcher = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid())]
        child = subprocess.Popen(
            [*launcher, sys.executable, "-m", "arc_es.workers.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=fds,
            start_new_session=True,  # Ctrl-C in a terminal is for us
        )
        return Worker(number, child)

    async def _attend(self, worker: Worker) -> None:
        """Tell a worker what to do and hear what it says, until it has ended."""
        stdin, stdout = worker.child.stdin, worker.child.stdout
        assert stdin is not None, "a pipe was asked for"
        assert stdout is not None, "a pipe was asked for"
        with stdin, stdout:
            async with trio.lowlevel.FdStream(os.dup(stdout.fileno())) as stream, trio.open_nursery() as nursery:
                nursery.start_soon(self._tell, worker, os.dup(stdin.fileno()))
                nursery.start_soon(self._listen, worker, stream)
                await wait_end(worker.child)
                nursery.cancel_scope.cancel()

    async def _tell(self, worker: Worker, fd: int) -> None:
        """Give a worker its orders. The first one opens everything alone: it makes what all of them need."""
        async with trio.lowlevel.FdStream(fd) as stdin:
            if worker.number > 1:
                await self._opened.wait()
            nats, listener = self._nats, self._listener.fileno()
            told = orders(self._config, worker.number, listener, self._board, nats.access, nats.bytes_max)
            with suppress(trio.BrokenResourceError):  # it is dead
                await stdin.send_all(told)

    async def _listen(self, worker: Worker, stream: trio.lowlevel.FdStream) -> None:
        buffer = b""
        while chunk := await stream.receive_some():
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                self._heard(worker, line.decode(errors="replace"))

    def _heard(self, worker: Worker, word: str) -> None:
        if word == OPENED:
            self._opened.set()
        elif word == READY:
            worker.ready = True
            log.info("Worker %d (pid %d) is ready", worker.number, worker.child.pid)
            if sum(each.ready for each in self._workers.values()) == self._config.workers:
                self._all_ready.set()
        elif word == RESTART and self._nats.restart is not None:
            now = trio.current_time()
            if now >= self._nats_restarted_at + NATS_RESTART_SECONDS_MIN:
                self._nats_restarted_at = now
                self._nats.restart()

    # --- the end

    def stop(self) -> None:
        """Have all workers drain and end; called again, have them end at once."""
        self._stop.set()
        for worker in self._workers.values():
            worker.signal(signal.SIGTERM)

    async def _end_all(self) -> None:
        """Bounded, and not cancelled: nobody else would end the workers."""
        self.stop()
        with trio.move_on_after(STOP_SECONDS_MIN):
            for worker in [*self._workers.values()]:
                await wait_end(worker.child)
        for worker in self._workers.values():
            worker.child.kill()
            await wait_end(worker.child)

    @property
    def drain_seconds_max(self) -> float:
        """How long a drain may take: requests, pushes, the last snapshot."""
        return 2 * self._config.drain_seconds_max + LAST_SECONDS_MAX + STOP_SECONDS_MIN


def run(config: Config) -> int:
    """Run the service with several workers until SIGTERM or Ctrl-C; returns the exit status."""
    statuses: list[int] = []
    failed = run_logged(config, lambda: trio.run(_supervise, config, statuses.append))
    return max(failed, *statuses, EXIT_OK)


async def _supervise(config: Config, ended: Callable[[int], None]) -> None:
    if sys.platform != "linux":
        raise ServerError("several workers need Linux; leave --workers at 1")
    listener = listen(config)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with _nats(config) as nats:
            open_ring(config, SystemClock().now())  # made once, before several want to
            checkpoint_seeds(config.data_dir)
            supervisor = Supervisor(config, listener, nats, ended)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_watch_signals, signals, supervisor, config, nursery.cancel_scope)
                await supervisor.run()
                nursery.cancel_scope.cancel()


async def _watch_signals(signals: object, supervisor: Supervisor, config: Config, everything: trio.CancelScope) -> None:
    stopping = False
    async for number in signals:  # type: ignore[attr-defined]  # trio does not name the type
        if stopping:
            log.warning("%s again: stopping at once", signal.Signals(number).name)
            everything.cancel()
        else:
            log.info("%s: draining, up to %g s", signal.Signals(number).name, config.drain_seconds_max)
            supervisor.stop()
            stopping = True
            everything.deadline = trio.current_time() + supervisor.drain_seconds_max


@asynccontextmanager
async def _nats(config: Config) -> AsyncGenerator[Nats, None]:
    """Our own nats-server, or the one that was named."""
    if config.nats_url is not None:
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield Nats(Access([config.nats_url]))
        return
    bytes_max = config.nats_store_bytes_max if config.nats_store_bytes_max > 0 else None
    async with run_server(config.data_dir, max_file_store_bytes=bytes_max) as server:
        endpoint = server.endpoint
        access = Access([endpoint.url], endpoint.user, endpoint.password)
        yield Nats(access, server.max_file_store_bytes, partial(server.restart))
