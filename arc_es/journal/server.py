"""The embedded nats-server: a child process that lives as long as the service, and not longer.

Rules of its life:

1. One server a data directory: a second service is refused and told who has it (data_lock.py).
2. It dies with us. However the service ends, the kernel kills the child (launch.py); the next start waits for that.
3. We survive it. A dead child is started again, same port, same store, same password; `running` is False meanwhile.
4. It ends last: its clients leave before the body of `run_server` ends. It has a session of its own, so that Ctrl-C in
   the terminal reaches the service only.

Credentials go from nats.env to the child's environment: never to a command line, never to a log. Linux only.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from arc_es.journal.data_lock import DataDirLocked, LockHolder, acquire_lock, lock_holder
from arc_es.journal.server_files import (
    LOOPBACK,
    USER,
    ConfigMissing,
    NatsServerMissing,
    NatsServerTooOld,
    ServerError,
    Variables,
    checked_nats_server,
    config_path,
    create_data_dir,
    disk_free_bytes,
    find_nats_server,
    nats_server_version,
    port_is_free,
    settle_variables,
    unsynced_config,
)
from arc_es.journal.server_process import END_SECONDS_MAX, Endpoint, Recipe, answers, end, wait_end

__all__ = [
    "ConfigMissing",
    "DataDirLocked",
    "EmbeddedServer",
    "Endpoint",
    "LockHolder",
    "NatsServerMissing",
    "NatsServerTooOld",
    "ServerDidNotStart",
    "ServerError",
    "checked_nats_server",
    "config_path",
    "disk_free_bytes",
    "find_nats_server",
    "lock_holder",
    "nats_server_version",
    "run_server",
]

logger = logging.getLogger(__name__)

START_SECONDS_MAX: Final = 120
"""Reading a store back takes 1.4 s for a million subjects, more after a crash."""
START_POLL_SECONDS: Final = 0.02
START_TRIES_MAX: Final = 3
"""First starts, each with another port, when somebody took the port that was free a moment ago."""
RESTART_SECONDS_MIN: Final = 0.1
RESTART_SECONDS_MAX: Final = 5
RESTART_FORGIVEN_SECONDS: Final = 60
"""A server that ran this long is started again without the delay that earlier deaths earned."""


class ServerDidNotStart(ServerError):
    """nats-server ended or did not answer in time after its start; the message quotes its log."""


class EmbeddedServer:
    """A nats-server that is kept alive. Made by `run_server`."""

    def __init__(self, recipe: Recipe, variables: Variables) -> None:
        self._recipe = recipe
        self._variables = variables
        self._child = recipe.spawn(variables)
        self._running = False
        self._restarts = 0
        self._changed = trio.Event()

    @property
    def endpoint(self) -> Endpoint:
        """Where to connect: the same for the life of this object, restarts of the child included."""
        return Endpoint(f"nats://{LOOPBACK}:{self._variables.port}", USER, self._variables.password)

    @property
    def max_file_store_bytes(self) -> int:
        """Most bytes that it stores."""
        return self._variables.max_file_store_bytes

    @property
    def pid(self) -> int:
        """Process id of the present child, or of the last one."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the server answered after its last start and has not died since."""
        return self._running

    @property
    def restarts(self) -> int:
        """How often a new child took over from a dead one."""
        return self._restarts

    async def wait_changed(self) -> None:
        """Wait until `running` changes."""
        await self._changed.wait()

    def _set_running(self, *, running: bool) -> None:
        self._running = running
        self._changed.set()
        self._changed = trio.Event()

    def restart(self) -> None:
        """Have the present child end; `supervise` starts another. What was acknowledged has been fsynced."""
        self._child.kill()

    async def start(self) -> None:
        """Wait until JetStream of the first child answers.

        Raises:
            ServerDidNotStart: it ended, or did not answer within `START_SECONDS_MAX`.
            ServerError: no port is free.
        """
        for tries_left in reversed(range(START_TRIES_MAX)):
            trouble = await self._trouble_starting()
            if trouble is None:
                self._set_running(running=True)
                return
            await end(self._child)
            if tries_left == 0 or port_is_free(self._variables.port):
                raise ServerDidNotStart(trouble)
            self._variables = settle_variables(self._recipe.data_dir, self._variables.max_file_store_bytes)
            self._child = self._recipe.spawn(self._variables)

    async def supervise(self) -> None:
        """Start a new child whenever the present one dies, for ever."""
        delay_seconds: float = RESTART_SECONDS_MIN
        while True:
            since = trio.current_time()
            await wait_end(self._child)
            self._set_running(running=False)
            if trio.current_time() - since > RESTART_FORGIVEN_SECONDS:
                delay_seconds = RESTART_SECONDS_MIN
            died = "nats-server (pid %d) died with status %s; another is started in %.1f s; its log is %s"
            logger.warning(died, self.pid, self._child.returncode, delay_seconds, self._recipe.log_path)
            await trio.sleep(delay_seconds)
            delay_seconds = min(2 * delay_seconds, RESTART_SECONDS_MAX)
            await self._restart()

    async def _restart(self) -> None:
        try:
            self._child = self._recipe.spawn(self._variables)
        except OSError as error:  # too many processes, say; the next round tries again
            logger.warning("nats-server cannot be restarted now: %s", error)
            return
        trouble = await self._trouble_starting()
        if trouble is not None:
            logger.warning("nats-server was not restarted: %s", trouble)
            await end(self._child)
            return
        self._restarts += 1
        self._set_running(running=True)
        logger.info("nats-server runs again (pid %d)", self.pid)

    async def stop(self) -> None:
        """End the child, within `END_SECONDS_MAX` if it hangs, else in some ms. Not cancelled."""
        if not await end(self._child):
            logger.warning("nats-server (pid %d) does not die", self.pid)
        self._set_running(running=False)

    async def _trouble_starting(self) -> str | None:
        """Wait until the child answers (None), or it is known that it will not (why)."""
        trouble = f"nats-server gave no answer in {START_SECONDS_MAX} s"
        with trio.move_on_after(START_SECONDS_MAX):
            while self._child.poll() is None:
                if await answers(self.endpoint):
                    return None
                await trio.sleep(START_POLL_SECONDS)
            trouble = f"nats-server ended with status {self._child.returncode}"
        return f"{trouble}; its last words:\n{self._recipe.last_words()}".replace(self.endpoint.password, "***")


@asynccontextmanager
async def run_server(
    data_dir: Path, *, max_file_store_bytes: int | None = None, unsynced: bool = False
) -> AsyncIterator[EmbeddedServer]:
    """Run nats-server on a data directory, made if need be, for the length of the body.

    Call it from the main thread: the child dies with the calling thread. An exception of the body leaves in a group.
    max_file_store_bytes: most bytes on disk; None means what is used plus 90 % of what is free.
    unsynced: what is stored may be lost when power fails, until the body has ended; only to fill a store that nobody
    relies on yet.

    Raises:
        DataDirLocked: another process uses the directory.
        NatsServerMissing, NatsServerTooOld, ConfigMissing: the installation is incomplete.
        ServerDidNotStart: it ended or did not answer; the message quotes its log.
        ServerError: not on Linux, or no port is free.
        OSError: the directory cannot be made or written.
    """
    if sys.platform != "linux":
        raise ServerError("the embedded nats-server needs Linux; run a server of your own and use --nats-url")
    program = await trio.to_thread.run_sync(checked_nats_server)
    data_dir = create_data_dir(data_dir)
    config = unsynced_config(data_dir) if unsynced else config_path()
    lock_fd = await acquire_lock(data_dir)
    try:
        variables = await trio.to_thread.run_sync(settle_variables, data_dir, max_file_store_bytes)
        server = EmbeddedServer(Recipe(program, config, data_dir, lock_fd), variables)
        try:
            await server.start()
            logger.info("nats-server (pid %d) listens at %s", server.pid, server.endpoint.url)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.supervise)
                yield server
                nursery.cancel_scope.cancel()
        finally:
            with trio.move_on_after(END_SECONDS_MAX, shield=True):
                await server.stop()
                if unsynced:
                    config.unlink()
                    await trio.to_thread.run_sync(os.sync)
    finally:
        os.close(lock_fd)
