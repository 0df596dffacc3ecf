"""One snapshot as a file: two lines, then compressed frames.

    <SHA-256 of all that follows, 64 hex digits>
    {"format", "schema", "stream", "position", "message", "at", "events", "commands"}
    <4 bytes: length><zstandard frame of marshalled pieces> …

It appears whole or not at all: written beside its place, fsynced, then renamed. `marshal` is fast, and no format for
the bytes of strangers: the folder is our own, and nothing is read before the digest and the header agree.
"""

from __future__ import annotations

import fcntl
import hashlib
import marshal
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import orjson
import zstandard

from arc_es.domain.ids import Micros
from arc_es.snapshots.schema import FORMAT, fingerprint

Piece: TypeAlias = tuple[str, Any]
"""A named part of the projections as plain data (`ports.ReadModels.dump`)."""

SUFFIX: Final = ".snapshot"
PART: Final = ".part"
LEVEL: Final = 1
PIECES_PER_FRAME: Final = 32
"""About 2 MB before compression: good to compress, and little to hold."""
DIGEST_CHARS: Final = 64
LENGTH_BYTES: Final = 4
MARSHAL_VERSION: Final = 2
"""The newest one in which equal values are equal bytes, however often they are referred to."""


class SnapshotUnusable(Exception):
    """A snapshot cannot be used; the message says why. What it holds is in the journal, so nothing is lost."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a snapshot is of.

    stream: identity of the journal. position: of the last message that is in it. message: hex SHA-256 of that message.
    at: the latest time of any decision in it.
    """

    stream: str
    position: int
    message: str
    at: Micros
    events: int
    commands: int
    format: int = FORMAT
    schema: str = ""


def write(folder: Path, header: Header, pieces: Iterable[Piece]) -> Path:
    """Write a snapshot; returns its path. A part of one that somebody left behind is removed.

    Raises:
        OSError: no room, or no right to write; nothing is left.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove_parts(folder)
    path = folder / f"{header.position:020d}{SUFFIX}"
    part = folder / f"{path.name}.{os.getpid()}{PART}"
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write(file, header, pieces)
            file.flush()
            os.fsync(file.fileno())
            part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(folder)
    return path


def _write(file: BinaryIO, header: Header, pieces: Iterable[Piece]) -> None:
    said = orjson.dumps({**asdict(header), "format": FORMAT, "schema": fingerprint()}) + b"\n"
    hashed = hashlib.sha256(said)
    file.write(b"0" * DIGEST_CHARS + b"\n" + said)
    for frame in _frames(pieces):
        hashed.update(frame)
        file.write(frame)
    file.seek(0)
    file.write(hashed.hexdigest().encode())


def _frames(pieces: Iterable[Piece]) -> Iterator[bytes]:
    compressor = zstandard.ZstdCompressor(level=LEVEL)
    group: list[Piece] = []
    for piece in pieces:
        group.append(piece)
        if len(group) == PIECES_PER_FRAME:
            yield _frame(compressor, group)
            group = []
    if group:
        yield _frame(compressor, group)


def _frame(compressor: zstandard.ZstdCompressor, group: list[Piece]) -> bytes:
    data = compressor.compress(marshal.dumps(group, MARSHAL_VERSION))
    return len(data).to_bytes(LENGTH_BYTES, "big") + data


def digest_of(pieces: Iterable[Piece]) -> str:
    """Hex SHA-256 of what projections hold: equal for equal contents, whoever folded them."""
    hashed = hashlib.sha256()
    for piece in pieces:
        hashed.update(marshal.dumps(piece, MARSHAL_VERSION))
    return hashed.hexdigest()


def read_header(path: Path) -> Header:
    """What a file says that it is; nothing of it is checked but its form.

    Raises:
        SnapshotUnusable: it is no snapshot.
    """
    try:
        with path.open("rb") as file:
            return _header(file)
    except OSError as error:
        raise SnapshotUnusable(f"it cannot be read: {error.strerror}") from error


def _header(file: BinaryIO) -> Header:
    file.seek(DIGEST_CHARS + 1)
    try:
        return Header(**orjson.loads(file.readline(64 * 1024)))
    except (ValueError, TypeError) as error:
        raise SnapshotUnusable("it is no snapshot, or of another format") from error


def check(path: Path) -> Header:
    """See that a file is whole and written by code that folds as ours.

    Raises:
        SnapshotUnusable: it is not.
    """
    header = read_header(path)
    if (header.format, header.schema) != (FORMAT, fingerprint()):
        raise SnapshotUnusable("another version wrote it")
    try:
        with path.open("rb") as file:
            said = file.read(DIGEST_CHARS + 1).decode("latin-1").rstrip("\n")
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SnapshotUnusable(f"it cannot be read: {error.strerror}") from error
    if said != found:
        raise SnapshotUnusable("it is damaged")
    return header


def read(path: Path) -> Iterator[Piece]:
    """The pieces of a file that was checked. Raises SnapshotUnusable."""
    decompressor = zstandard.ZstdDecompressor()
    try:
        with path.open("rb") as file:
            _header(file)
            while length := file.read(LENGTH_BYTES):
                data = file.read(int.from_bytes(length, "big"))
                yield from marshal.loads(decompressor.decompress(data))  # noqa: S302 - see above
    except (OSError, zstandard.ZstdError, ValueError, EOFError, TypeError) as error:
        raise SnapshotUnusable(f"it cannot be read: {error}") from error


def remove_parts(folder: Path) -> None:
    """Remove what writers that were killed have left; one that still writes has its file locked."""
    for part in folder.glob(f"*{PART}"):
        with suppress(OSError), part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
