"""The one place where settings come from: defaults < arc.toml < ARC_* environment < command line.

Units are in the names. A setting that is wrong is refused at start with the name of the setting and of its source.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from arc_es.domain import limits


class ConfigError(Exception):
    """A setting is missing, unknown or wrong; the message says which and where it came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of `arc-es serve`. Field docs are in `docs/reference/config.md`, checked by a test."""

    bind: str = "127.0.0.1:8420"
    data_dir: Path = Path("arc-data")
    nats_url: str | None = None
    public_url: str | None = None
    workers: int = 1
    replicas: int = 1
    stream_bytes_max: int = -1
    nats_store_bytes_max: int = -1
    admin_token: str | None = field(default=None, repr=False)
    signing_key: str | None = field(default=None, repr=False)
    signing_keys_previous: str | None = field(default=None, repr=False)
    trust_forwarded: bool = False
    body_store: str = "nats"
    body_store_bytes_max: int = -1
    storage_bytes_max: int = limits.STORAGE_BYTES_MAX
    s3_endpoint: str | None = None
    s3_region: str = "us-east-1"
    s3_access_key_id: str | None = field(default=None, repr=False)
    s3_secret_access_key: str | None = field(default=None, repr=False)
    sweep_seconds: float = 3_600.0
    orphan_seconds_min: float = 86_400.0
    checkpoint_seconds: float = 60.0
    snapshot_seconds: float = 600.0
    snapshot_events: int = 200_000
    snapshot_shared: bool = True
    as_of_messages_max: int = limits.AS_OF_MESSAGES_MAX
    archive_after_seconds: float = -1.0
    push: str = "http"
    pushes_per_target_max: int = limits.PUSHES_PER_TARGET_MAX
    pushes_max: int = limits.PUSHES_MAX
    headroom_bytes: int = -1
    log_level: str = "INFO"
    request_body_bytes_max: int = limits.REQUEST_BODY_BYTES_MAX
    batch_body_bytes_max: int = limits.BATCH_BODY_BYTES_MAX
    request_bodies_bytes_max: int = limits.REQUEST_BODIES_BYTES_MAX
    connections_max: int = limits.CONNECTIONS_MAX
    waiters_max: int = limits.WAITERS_MAX
    waiters_per_target_max: int = limits.WAITERS_PER_TARGET_MAX
    actors_max: int = limits.ACTORS_MAX
    cache_bytes_max: int = limits.CACHE_BYTES_MAX
    finished_in_memory_max: int = limits.FINISHED_IN_MEMORY_MAX
    append_seconds_max: float = limits.APPEND_SECONDS_MAX
    drain_seconds_max: float = 10.0
    slow_request_seconds_max: float = limits.SLOW_REQUEST_SECONDS_MAX

    @property
    def host(self) -> str:
        """The address part of `bind`, without the brackets of IPv6."""
        return self.bind.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port part of `bind`; 0 lets the system choose."""
        return int(self.bind.rpartition(":")[2])


_SECRETS: Final = {"admin_token", "signing_key", "signing_keys_previous", "s3_access_key_id", "s3_secret_access_key"}
_ENV_ONLY_REASON: Final = "put it in the environment variable ARC_ADMIN_TOKEN, or name a file with ARC_ADMIN_TOKEN_FILE"
SIGNING_KEY_BYTES_MIN: Final = 32
PORT_MAX: Final = 65_535
_S3_PLACE: Final = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_-][A-Za-z0-9._-]*)*/?")
_PUBLIC_URL: Final = re.compile(r"https?://[A-Za-z0-9._~:\[\]-]+(?:/[A-Za-z0-9._~/-]*)?")
PUSHERS: Final = ("http", "null")
ORPHAN_SECONDS_MIN: Final = 3_600
CHECKPOINT_SECONDS_MIN: Final = 1
ARCHIVE_AFTER_SECONDS_MIN: Final = 86_400
LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")


def load(
    flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] = os.environ, toml: Path | None = None
) -> Config:
    """The settings from all sources.

    Args:
        flags: values from the command line by field name; None values mean "not given".
        environ: environment variables; `ARC_<FIELD>` for each field, `ARC_CONFIG`, `ARC_ADMIN_TOKEN_FILE`.
        toml: the settings file; without it `ARC_CONFIG`, else `arc.toml` if there is one here.

    Raises:
        ConfigError: with the name of the setting and its source.
    """
    values: dict[str, Any] = {}
    _merge(values, *_from_toml(toml, environ))
    for entry in fields(Config):
        name = f"ARC_{entry.name.upper()}"
        if environ.get(name):
            values[entry.name] = _convert(entry.name, environ[name], name)
    if token_file := environ.get("ARC_ADMIN_TOKEN_FILE"):
        values["admin_token"] = _read_secret(Path(token_file), "ARC_ADMIN_TOKEN_FILE")
    for name, value in (flags or {}).items():
        if value is not None:
            values[name] = _convert(name, value, f"--{name.replace('_', '-')}")
    return _checked(Config(**values))


def _from_toml(toml: Path | None, environ: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    path = toml or (Path(environ["ARC_CONFIG"]) if environ.get("ARC_CONFIG") else None)
    if path is None:
        path = Path("arc.toml")
        if not path.exists():
            return {}, ""
    try:
        return tomllib.loads(path.read_text()), str(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error


def _merge(values: dict[str, Any], settings: Mapping[str, Any], source: str) -> None:
    known = {entry.name for entry in fields(Config)}
    for name, value in settings.items():
        if name in _SECRETS:
            raise ConfigError(f"{source}: {name} does not belong in a file that is shared; {_ENV_ONLY_REASON}")
        if name not in known:
            raise ConfigError(f"{source}: unknown setting {name}; known are {', '.join(sorted(known - _SECRETS))}")
        values[name] = _convert(name, value, source)


_KINDS: Final[Mapping[str, type[Any]]] = {
    "data_dir": Path,
    "workers": int,
    "replicas": int,
    "stream_bytes_max": int,
    "nats_store_bytes_max": int,
    "body_store_bytes_max": int,
    "storage_bytes_max": int,
    "sweep_seconds": float,
    "orphan_seconds_min": float,
    "checkpoint_seconds": float,
    "snapshot_seconds": float,
    "snapshot_events": int,
    "as_of_messages_max": int,
    "archive_after_seconds": float,
    "pushes_per_target_max": int,
    "pushes_max": int,
    "headroom_bytes": int,
    "trust_forwarded": bool,
    "snapshot_shared": bool,
    "request_body_bytes_max": int,
    "batch_body_bytes_max": int,
    "request_bodies_bytes_max": int,
    "connections_max": int,
    "waiters_max": int,
    "waiters_per_target_max": int,
    "actors_max": int,
    "cache_bytes_max": int,
    "finished_in_memory_max": int,
    "append_seconds_max": float,
    "drain_seconds_max": float,
    "slow_request_seconds_max": float,
}


def _convert(name: str, value: Any, source: str) -> Any:
    kind = _KINDS.get(name, str)
    if kind is bool:
        if isinstance(value, str) and value.lower() in ("true", "1", "yes", "false", "0", "no"):
            return value.lower() in ("true", "1", "yes")
        if not isinstance(value, bool):
            raise ConfigError(f"{source}: {name} must be true or false, not {value!r}")
        return value
    if isinstance(value, bool | dict | list):
        raise ConfigError(f"{source}: {name} must be of type {kind.__name__}")
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{source}: {name} must be of type {kind.__name__}, not {value!r}") from error


def _read_secret(path: Path, source: str) -> str:
    try:
        secret = path.read_text().strip()
    except OSError as error:
        raise ConfigError(f"{source}: {path} cannot be read: {error.strerror}") from error
    if not secret:
        raise ConfigError(f"{source}: {path} is empty")
    return secret


def _checked(config: Config) -> Config:
    host, colon, port = config.bind.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > PORT_MAX:
        raise ConfigError(f"bind must be HOST:PORT, such as 127.0.0.1:8420, not {config.bind!r}")
    if config.admin_token is None and not is_loopback(config.host):
        raise ConfigError(
            f"bind is {config.bind}: without an admin token everybody may do everything, so the service binds loopback"
            f" addresses only. Bind 127.0.0.1, or set an admin token: {_ENV_ONLY_REASON}."
        )
    if config.signing_key is not None and len(config.signing_key.encode()) < SIGNING_KEY_BYTES_MIN:
        raise ConfigError(f"ARC_SIGNING_KEY must have at least {SIGNING_KEY_BYTES_MIN} bytes")
    if any(len(key.encode()) < SIGNING_KEY_BYTES_MIN for key in (config.signing_keys_previous or "").split()):
        raise ConfigError(f"ARC_SIGNING_KEYS_PREVIOUS: each key must have at least {SIGNING_KEY_BYTES_MIN} bytes")
    if config.log_level.upper() not in LOG_LEVELS:
        raise ConfigError(f"log_level must be one of {', '.join(LOG_LEVELS)}, not {config.log_level!r}")
    if config.public_url is not None and not _PUBLIC_URL.fullmatch(config.public_url):
        raise ConfigError(f"public_url must be like https://example.org/arc, without query, not {config.public_url!r}")
    _check_body_store(config)
    _check_numbers(config)
    if not 1 <= config.workers <= limits.WORKERS_MAX:
        raise ConfigError(f"workers must be 1 to {limits.WORKERS_MAX}: one for each core that is to serve")
    if config.replicas not in (1, 3):
        raise ConfigError("replicas must be 1 or 3")
    if config.replicas == 3 and config.nats_url is None:  # noqa: PLR2004 - the two legal numbers of replicas
        raise ConfigError("replicas = 3 needs a cluster: name it with --nats-url")
    return config


def _check_numbers(config: Config) -> None:
    if config.finished_in_memory_max < 1:
        raise ConfigError("finished_in_memory_max must be at least 1")
    if config.snapshot_events < 1 or config.as_of_messages_max < 1:
        raise ConfigError("snapshot_events and as_of_messages_max must be at least 1; snapshot_seconds = 0 writes none")
    _check_push(config)
    _check_archive(config)


def _check_archive(config: Config) -> None:
    if config.archive_after_seconds == -1:
        return
    if not ARCHIVE_AFTER_SECONDS_MIN <= config.archive_after_seconds < math.inf:
        raise ConfigError(f"archive_after_seconds must be at least {ARCHIVE_AFTER_SECONDS_MIN}, or -1 for never")
    if config.nats_url is not None:
        raise ConfigError(
            "archive_after_seconds needs the service's own nats-server: the archive is in the data dir, where"
            " other nodes on the NATS of nats_url could not read it"
        )


def _check_push(config: Config) -> None:
    if config.push not in PUSHERS:
        raise ConfigError(f"push must be one of {', '.join(PUSHERS)}, not {config.push!r}")
    if config.pushes_per_target_max < 1 or config.pushes_max < 1:
        raise ConfigError("pushes_per_target_max and pushes_max must be at least 1; push = null sends nothing")


def _check_body_store(config: Config) -> None:
    if config.checkpoint_seconds < CHECKPOINT_SECONDS_MIN:
        raise ConfigError(f"checkpoint_seconds must be at least {CHECKPOINT_SECONDS_MIN}: each checkpoint is an event")
    if config.orphan_seconds_min < ORPHAN_SECONDS_MIN:
        raise ConfigError(f"orphan_seconds_min must be at least {ORPHAN_SECONDS_MIN}: longer than any request may take")
    if config.body_store == "nats":
        return
    if not _S3_PLACE.fullmatch(config.body_store):
        raise ConfigError(f"body_store must be nats, or like s3://bucket/prefix, not {config.body_store!r}")
    for name in ("s3_access_key_id", "s3_secret_access_key"):
        if not getattr(config, name):
            raise ConfigError(
                f"body_store is {config.body_store}: put the keys in the environment; ARC_{name.upper()} is missing"
            )
    if config.s3_endpoint is not None:
        endpoint = urlsplit(config.s3_endpoint)
        is_safe = endpoint.scheme == "https" or (endpoint.scheme == "http" and is_loopback(endpoint.hostname or ""))
        if not is_safe or not endpoint.hostname or endpoint.path.strip("/") or endpoint.query or endpoint.username:
            raise ConfigError(
                f"s3_endpoint must be like https://s3.example.org, and http on a loopback address only,"
                f" not {config.s3_endpoint!r}"
            )


def is_loopback(host: str) -> bool:
    """Whether an address or name can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
