"""A backup: one directory with a snapshot of each stream, the keys of the data dir, and a manifest with their digests.

The journal is taken before the bodies. A body is stored before the event that names it, so every body that an event of
the snapshot names was there when the journal had been taken. See docs/decisions/backup.md.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import orjson
import trio

from arc_es import __version__
from arc_es.archive.archive import FOLDER as ARCHIVE_DIR
from arc_es.archive.segment import SUFFIX as SEGMENT_SUFFIX
from arc_es.journal.snapshot import CHUNK_BYTES, pieces, restore_snapshot, stream_names, take_snapshot
from arc_es.journal.subjects import STREAM
from arc_es.nats_bridge import Bridge

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
BUCKETS: Final = "OBJ_"
NOT_NEEDED: Final = "OBJ_ARC_SNAPSHOTS"
"""What is in it is made of the journal."""
"""How the streams of JetStream's object stores begin."""
KEY_FILES: Final = ("signing.key", "signing-keys.json", "checkpoint.key", "checkpoint.key.old")
SUFFIX: Final = ".snapshot"

Progress: TypeAlias = Callable[[str, int], None]
"""Told the name of the part and how many bytes of it are done."""


class BackupError(Exception):
    """The backup cannot be made or used; the message says why."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a backup. stream: what STREAM.RESTORE needs to know; None: a file of the data dir."""

    name: str
    size_bytes: int
    sha256: str
    stream: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in a backup, and where it came from."""

    format: int
    service: str
    nats_server: str
    made_at: str
    parts: tuple[Part, ...]

    @property
    def events_end(self) -> int:
        """The position up to which the journal is certainly in it."""
        return next(
            (
                int(part.stream["state"]["last_seq"])
                for part in self.parts
                if part.stream and part.name == STREAM + SUFFIX
            ),
            0,
        )

    @property
    def size_bytes(self) -> int:
        """Of all parts."""
        return sum(part.size_bytes for part in self.parts)


# --- making one


async def make_backup(bridge: Bridge, target: Path, data_dir: Path, progress: Progress) -> Manifest:
    """Make the directory `target`, whole or not at all.

    Raises:
        BackupError: it exists, or there is no journal.
        SnapshotError, JournalUnavailable: the NATS server does not give it.
        OSError: it cannot be written.
    """
    names = await stream_names(bridge)
    if STREAM not in names:
        raise BackupError(f"there is no stream {STREAM}: no service has used this NATS server yet")
    # The journal first.
    streams = [STREAM, *sorted(name for name in names if name.startswith(BUCKETS) and name != NOT_NEEDED)]
    with _draft(target) as draft:
        parts = [await _snapshot(bridge, name, draft, progress) for name in streams]
        parts += [_copy(data_dir / name, draft) for name in KEY_FILES if (data_dir / name).exists()]
        # After the journal: what was purged before its snapshot was in a segment by then, and segments never change.
        for segment in sorted((data_dir / ARCHIVE_DIR).glob(f"*{SEGMENT_SUFFIX}")):
            parts.append(await trio.to_thread.run_sync(_copy, segment, draft))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        manifest = Manifest(FORMAT, __version__, bridge.server_info().version, now, tuple(parts))
        with _private(draft / MANIFEST) as file:
            file.write(orjson.dumps(asdict(manifest), option=orjson.OPT_INDENT_2))
    return manifest


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A directory that becomes `target` if the body succeeds, and vanishes if not."""
    if target.exists():
        raise BackupError(f"{target} exists already")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    draft.mkdir(mode=0o700)
    try:
        yield draft
        _sync(draft)
        draft.rename(target)
        _sync(target.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


@contextmanager
def _private(path: Path) -> Iterator[BinaryIO]:
    """A new file that only we can read, on disk when the body ends."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _snapshot(bridge: Bridge, stream: str, draft: Path, progress: Progress) -> Part:
    digest, size_bytes = hashlib.sha256(), 0
    with _private(draft / (stream + SUFFIX)) as file:

        def store(chunk: bytes) -> None:
            file.write(chunk)
            digest.update(chunk)

        async def write(chunk: bytes) -> None:
            nonlocal size_bytes
            await trio.to_thread.run_sync(store, chunk)
            size_bytes += len(chunk)
            progress(stream, size_bytes)

        known = await take_snapshot(bridge, stream, write)
    return Part(stream + SUFFIX, size_bytes, digest.hexdigest(), known)


def _copy(source: Path, draft: Path) -> Part:
    content = source.read_bytes()
    with _private(draft / source.name) as file:
        file.write(content)
    return Part(source.name, len(content), hashlib.sha256(content).hexdigest())


# --- using one


def read_backup(backup: Path, progress: Progress) -> Manifest:
    """The manifest of a backup whose parts are all there and undamaged. Blocks as long as reading them takes.

    Raises:
        BackupError: it is none, it is damaged, or another version made it.
    """
    try:
        manifest = _manifest(orjson.loads((backup / MANIFEST).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackupError(f"{backup} is not a backup: {MANIFEST} cannot be read ({error})") from error
    if manifest.format != FORMAT:
        raise BackupError(f"{backup} has format {manifest.format}; this version reads {FORMAT}")
    for part in manifest.parts:
        if part.name != Path(part.name).name or _digest(backup / part.name, part, progress) != part.sha256:
            raise BackupError(f"{backup / part.name} is damaged: it is not what {MANIFEST} says")
    return manifest


def _manifest(found: Mapping[str, Any]) -> Manifest:
    parts = tuple(Part(**part) for part in found["parts"])
    return Manifest(**{**found, "parts": parts})


def _digest(path: Path, part: Part, progress: Progress) -> str:
    digest, done_bytes = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            for piece in iter(partial(file.read, CHUNK_BYTES), b""):
                digest.update(piece)
                done_bytes += len(piece)
                progress(f"verify {part.name}", done_bytes)
    except OSError as error:
        raise BackupError(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def restore_keys(backup: Path, manifest: Manifest, data_dir: Path) -> None:
    """Put the keys, and the segments of the archive, into a data dir.

    Raises:
        OSError: they cannot be written, or are there.
    """
    for part in manifest.parts:
        if part.stream is None:
            folder = data_dir / ARCHIVE_DIR if part.name.endswith(SEGMENT_SUFFIX) else data_dir
            folder.mkdir(mode=0o700, exist_ok=True)
            with _private(folder / part.name) as file:
                file.write((backup / part.name).read_bytes())


async def restore_streams(
    bridge: Bridge, backup: Path, manifest: Manifest, progress: Progress, *, replicas: int
) -> None:
    """Make all streams anew, the journal last: without it nothing starts.

    Raises:
        BackupError: the server did not restore all that the manifest counts.
        SnapshotError: the server refused.
        JournalUnavailable: the server does not answer.
        OSError: the backup cannot be read.
    """
    for part in reversed(manifest.parts):
        if part.stream is not None:
            await _restore(bridge, backup / part.name, part.stream, progress, replicas)


async def _restore(bridge: Bridge, path: Path, stream: Mapping[str, Any], progress: Progress, replicas: int) -> None:
    config = {**stream["config"], "num_replicas": replicas}
    config.pop("placement", None)  # names servers that need not exist here
    sent_bytes = 0

    with path.open("rb") as file:

        async def told() -> Any:
            nonlocal sent_bytes
            async for piece in pieces(file):
                yield piece
                sent_bytes += len(piece)
                progress(f"restore {config['name']}", sent_bytes)

        state = await restore_snapshot(bridge, config, stream["state"], told())
    if state["last_seq"] < stream["state"]["last_seq"]:
        raise BackupError(
            f"stream {config['name']} was restored up to {state['last_seq']} of {stream['state']['last_seq']}"
        )
