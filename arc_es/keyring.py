"""The signing keys of an installation: the current one, and those that were current while URLs of theirs may live on.

`signing.key` holds the random key of a service that was given none. `signing-keys.json` holds every key that was ever
current, as long as it is of use. `checkpoint.key` is the Ed25519 seed that checkpoints are signed with, and
`checkpoint.key.old` the one before it until it has vouched for the new one. All are in the data dir, for the owner's
eyes only.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from arc_es.config import Config
from arc_es.domain.ids import Micros
from arc_es.domain.limits import SECOND, URL_SECONDS_MAX
from arc_es.sealing import Sealer
from arc_es.signing import OldKey, Signer, key_from_admin_token

KEY_BYTES: Final = 32
KEY_FILE: Final = "signing.key"
RING_FILE: Final = "signing-keys.json"
CHECKPOINT_KEY_FILE: Final = "checkpoint.key"
OLD_CHECKPOINT_KEY_FILE: Final = "checkpoint.key.old"
_PRIVATE: Final = 0o600
_OTHERS: Final = 0o077

log = logging.getLogger("arc_es.keyring")


class KeyFileError(Exception):
    """A key file cannot be used; the message says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The current key, and old ones that still verify."""

    current: bytes = field(repr=False)
    old: tuple[OldKey, ...] = ()

    def signer(self) -> Signer:
        """Signs URLs with the current key and verifies with all."""
        return Signer(self.current, self.old)

    def sealer(self) -> Sealer:
        """Seals push tokens with the current key and opens them with all."""
        return Sealer(self.current, [one.key for one in self.old])


def open_ring(config: Config, now: Micros) -> KeyRing:
    """The keys to use from now on; remembers the current one, and when the one before it was retired.

    Raises:
        KeyFileError: a key file is damaged, or not ours alone.
        OSError: the data dir cannot be written.
    """
    current = signing_key(config)
    config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = config.data_dir / RING_FILE
    before = _read_ring(path)
    retired = {key: until for key, until in before.items() if until is None or now <= until}
    for key, until in retired.items():
        if until is None and key != current:
            retired[key] = now + URL_SECONDS_MAX * SECOND
            log.info("The signing key has changed; URLs signed with the old one stay good until they expire")
    retired[current] = None
    if retired != before:
        write_secret(path, _ring_bytes(retired))
    kept = [OldKey(key, until) for key, until in retired.items() if key != current]
    return KeyRing(current, (*kept, *(OldKey(key) for key in _previous(config) if key != current)))


def signing_key(config: Config) -> bytes:
    """The current key: the configured one, else made from the admin token, else one kept in the data dir.

    Source: `arc.v1` 2.6. Raises as `open_ring`.
    """
    if config.signing_key is not None:
        return config.signing_key.encode()
    if config.admin_token is not None:
        return key_from_admin_token(config.admin_token)
    path = config.data_dir / KEY_FILE
    if not path.exists():
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_secret(path, secrets.token_bytes(KEY_BYTES))
    key = read_secret(path)
    if len(key) < KEY_BYTES:
        raise KeyFileError(f"{path} has {len(key)} bytes, not {KEY_BYTES}: restore it, or delete it to get a new key")
    return key


@dataclass(frozen=True, slots=True)
class CheckpointSeeds:
    """The Ed25519 seed that checkpoints are signed with, and the one before it while it is still to vouch for this."""

    current: bytes = field(repr=False)
    old: bytes | None = field(default=None, repr=False)
    old_file: Path | None = None

    def forget_old(self) -> None:
        """The old key has done its last duty. Raises OSError."""
        if self.old_file is not None:
            self.old_file.unlink(missing_ok=True)


def checkpoint_seeds(data_dir: Path) -> CheckpointSeeds:
    """The seeds in the data dir; a new one is made when there is none. Raises as `open_ring`."""
    path, old_path = data_dir / CHECKPOINT_KEY_FILE, data_dir / OLD_CHECKPOINT_KEY_FILE
    if not path.exists():
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_secret(path, secrets.token_bytes(KEY_BYTES))
    old = _seed(old_path) if old_path.exists() else None
    return CheckpointSeeds(_seed(path), old, None if old is None else old_path)


def _seed(path: Path) -> bytes:
    seed = read_secret(path)
    if len(seed) != KEY_BYTES:
        raise KeyFileError(f"{path} has {len(seed)} bytes, not {KEY_BYTES}: restore it, or delete it to get a new key")
    return seed


def _previous(config: Config) -> list[bytes]:
    """ARC_SIGNING_KEYS_PREVIOUS: keys as they were configured, or `hex:` and the raw key in hex."""
    return [_configured(text) for text in (config.signing_keys_previous or "").split()]


def _configured(text: str) -> bytes:
    if text.startswith("hex:"):
        try:
            return bytes.fromhex(text[len("hex:") :])
        except ValueError:
            pass
    return text.encode()


# --- files


def _read_ring(path: Path) -> dict[bytes, Micros | None]:
    """Key -> when it was retired plus the life of its URLs, None for the one that was current last."""
    if not path.exists():
        return {}
    try:
        stored: dict[str, Any] = json.loads(read_secret(path))
        keys: list[dict[str, Any]] = stored["keys"]
        return {
            bytes.fromhex(one["key"]): None
            if one.get("retiredAt") is None
            else (int(one["retiredAt"]) + URL_SECONDS_MAX) * SECOND
            for one in keys
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise KeyFileError(
            f"{path} is damaged: restore it, or delete it; then URLs signed with earlier keys are no longer accepted"
        ) from error


def _ring_bytes(keys: dict[bytes, Micros | None]) -> bytes:
    entries: list[dict[str, Any]] = []
    for key, until in keys.items():
        retired = {} if until is None else {"retiredAt": until // SECOND - URL_SECONDS_MAX}
        entries.append({"key": key.hex(), **retired})
    return json.dumps({"keys": entries}, indent=1).encode() + b"\n"


def read_secret(path: Path) -> bytes:
    """The bytes of a file that only its owner may read; if others could, that is ended and reported.

    Raises:
        KeyFileError: others can read it, and we cannot change that.
        OSError: it cannot be read.
    """
    mode = path.stat().st_mode
    if mode & _OTHERS:
        try:
            path.chmod(_PRIVATE)
        except OSError as error:
            raise KeyFileError(
                f"{path} can be read by others (mode {mode & 0o777:o}), and this user cannot change that:"
                f" chmod {_PRIVATE:o} {path}"
            ) from error
        log.warning("%s could be read by others (mode %o); now it is %o", path, mode & 0o777, _PRIVATE)
    return path.read_bytes()


def write_secret(path: Path, secret: bytes) -> None:
    """Write a file that only we can read, durably, whole or not at all."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)  # of a start that was cut off; its mode might be another
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name, too, must survive a power loss
    finally:
        os.close(folder)
