"""The lock on a data directory: two nats-servers on one store corrupt it, and nats-server itself does not look.

flock belongs to the open file, not to the process: the service opens it, its nats-server inherits it, and the lock ends
when neither has it open any more. So it outlives a killed service for as long as its server does.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from arc_es.journal.server_files import ServerError

LOCK_SECONDS_MAX: Final = 10
"""How long a start waits for the server of a killed service to die."""
LOCK_POLL_SECONDS: Final = 0.05


class DataDirLocked(ServerError):
    """Another process uses the data directory; the message names it."""


@dataclass(frozen=True, slots=True)
class LockHolder:
    """A process that keeps the data directory locked. orphan: a nats-server whose service is gone."""

    pid: int
    name: str
    orphan: bool


async def acquire_lock(data_dir: Path) -> int:
    """Lock the directory until the file descriptor returned is closed, also in every child that inherited it.

    Raises:
        DataDirLocked: at once if a service has it; after `LOCK_SECONDS_MAX` if a server without its service has it.
    """
    fd = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        await _wait_for_lock(fd, data_dir)
    except BaseException:
        os.close(fd)
        raise
    return fd


async def _wait_for_lock(fd: int, data_dir: Path) -> None:
    with trio.move_on_after(LOCK_SECONDS_MAX):
        while not _try_lock(fd):
            holder = lock_holder(data_dir)
            if holder is not None and not holder.orphan:
                break
            await trio.sleep(LOCK_POLL_SECONDS)
        else:
            return
    raise DataDirLocked(_locked_message(data_dir, lock_holder(data_dir)))


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_holder(data_dir: Path) -> LockHolder | None:
    """Who keeps the data directory locked; None if nobody does, or nobody whom we may look at.

    The kernel is asked, not a pid file: that would name a process that died, or a stranger with its number.
    """
    try:
        lock = (data_dir / "lock").stat()
    except FileNotFoundError:
        return None
    holders = [(pid, _name_of(pid)) for pid in _processes() if _holds(pid, lock)]
    for pid, name in holders:
        if name != "nats-server":
            return LockHolder(pid, name, orphan=False)
    return LockHolder(*holders[0], orphan=True) if holders else None


def _locked_message(data_dir: Path, holder: LockHolder | None) -> str:
    if holder is None:
        who, remedy = "a process that cannot be seen from here", "look in other containers and at other users"
    elif holder.orphan:
        who = f"nats-server (pid {holder.pid}), left over from a service that was killed"
        remedy = f"stop it with `kill {holder.pid}`"
    else:
        who, remedy = f"{holder.name} (pid {holder.pid})", "stop it, or use another data directory"
    return f"data directory {data_dir} is in use by {who}; {remedy}"


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _name_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return "unknown"


def _holds(pid: int, lock: os.stat_result) -> bool:
    with suppress(OSError):  # it ended, or belongs to somebody else
        return any(_is_lock(pid, fd, lock) for fd in Path(f"/proc/{pid}/fd").iterdir())
    return False


def _is_lock(pid: int, fd: Path, lock: os.stat_result) -> bool:
    with suppress(OSError):  # closed meanwhile
        return os.path.samestat(fd.stat(), lock) and "FLOCK" in Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text()
    return False
