"""Segment files: JSON Lines in zstandard frames, written once and never changed.

Each line but the last is one command: its event messages as they were stored, with their positions, and the bodies that
lay beside them. The last line counts the others and has their SHA-256, and names the segments that this one replaces,
because a command of theirs was erased. `zstd -dc FILE` shows all of it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import zstandard

from arc_es.codec import decode, digest
from arc_es.domain.recorded import CommandKey
from arc_es.domain.state import needs_body
from arc_es.ports import JournalCorrupt, JournalUnavailable

FORMAT: Final = "arc-es-archive/1"
SUFFIX: Final = ".jsonl.zst"
FRAME_BYTES: Final = 256 * 1024
"""Before compression, about: what is read to get at one command."""
_LEVEL: Final = 6
_PRIVATE: Final = 0o600


class ArchiveDamaged(JournalUnavailable):
    """What was archived cannot be read; the message says which file. Put it back from a backup, then try again."""


@dataclass(frozen=True, slots=True)
class Record:
    """One command: its messages and the bodies beside them, each with its position."""

    key: CommandKey
    messages: tuple[tuple[int, bytes], ...]
    bodies: tuple[tuple[int, bytes], ...] = ()

    def line(self) -> bytes:
        """How it is stored."""
        return orjson.dumps(
            {
                "deploymentId": self.key.deployment_id,
                "commandId": self.key.command_id,
                "messages": [[position, payload.decode()] for position, payload in self.messages],
                "bodies": [[position, base64.b64encode(raw).decode()] for position, raw in self.bodies],
            }
        )

    def broken(self) -> str | None:
        """What is wrong with it: the hash chain, or a body that is not what its event says; None: nothing."""
        bodies = dict(self.bodies)
        before: str | None = None
        for position, payload in self.messages:
            decision = decode(payload)
            if decision.prev != before:
                return f"message {position} does not follow from the one before it"
            before = digest(payload)
            for event in decision.events:
                body = needs_body(event)
                if body is not None and body.place == "message":
                    raw = bodies.get(position - 1)
                    if raw is None or hashlib.sha256(raw).hexdigest() != body.sha256:
                        return f"the body of message {position} is missing or another one"
        return None if self.messages else "it has no messages"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command is in a segment: a frame, and a line in it; with the digest of that line."""

    offset: int
    length: int
    line: int
    sha256: str


def parsed(line: bytes) -> Record:
    """The record in a line. Raises ValueError, KeyError, TypeError."""
    found = orjson.loads(line)
    return Record(
        CommandKey(found["deploymentId"], found["commandId"]),
        tuple((position, payload.encode()) for position, payload in found["messages"]),
        tuple((position, base64.b64decode(raw, validate=True)) for position, raw in found["bodies"]),
    )


@dataclass(frozen=True, slots=True)
class Segment:
    """All that is in a file. replaces: names of segments that it is in place of."""

    content: list[tuple[Place, Record]]
    replaces: tuple[str, ...] = ()


def write(folder: Path, records: Sequence[Record], replaces: Sequence[str] = ()) -> Path:
    """A new segment, on disk under its name when this returns. It may be there already: then it is the same.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    lines = [record.line() for record in records]
    total = _digest_of(lines)
    manifest = orjson.dumps(_manifest(lines, replaces))
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
    path = folder / f"{records[0].messages[0][0]:012d}-{len(lines)}-{total[:12]}{SUFFIX}"
    draft = folder / f".{path.name}.{secrets.token_hex(4)}"
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE), "wb") as file:
            for frame in [*_frames(lines), [manifest]]:
                file.write(compressor.compress(b"".join(line + b"\n" for line in frame)))
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        _sync(folder)
    except BaseException:
        with suppress(FileNotFoundError):
            draft.unlink()
        raise
    return path


def _manifest(lines: Sequence[bytes], replaces: Sequence[str]) -> dict[str, Any]:
    said = {"format": FORMAT, "commands": len(lines), "sha256": _digest_of(lines)}
    return {**said, "replaces": list(replaces)} if replaces else said


def _frames(lines: Sequence[bytes]) -> Iterator[list[bytes]]:
    frame: list[bytes] = []
    size = 0
    for line in lines:
        frame.append(line)
        size += len(line)
        if size >= FRAME_BYTES:
            yield frame
            frame, size = [], 0
    if frame:
        yield frame


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest_of(lines: Sequence[bytes]) -> str:
    total = hashlib.sha256()
    for line in lines:
        total.update(line + b"\n")
    return total.hexdigest()


def read_whole(path: Path) -> Segment:
    """All commands of a segment, and where they are; everything in it has been checked. Raises ArchiveDamaged."""
    found: list[tuple[Place, bytes]] = []
    try:
        rest = path.read_bytes()
        offset = 0
        while rest:
            frame = zstandard.ZstdDecompressor().decompressobj()
            lines = frame.decompress(rest).splitlines()
            length = len(rest) - len(frame.unused_data)
            if not frame.eof:
                raise ArchiveDamaged(f"{path} is damaged: it ends too early")
            found += [
                (Place(offset, length, number, hashlib.sha256(line).hexdigest()), line)
                for number, line in enumerate(lines)
            ]
            offset, rest = offset + length, frame.unused_data
        manifest: dict[str, Any] = orjson.loads(found.pop()[1]) if found else {}
        replaces = tuple(manifest.get("replaces", ()))
        if manifest != _manifest([line for _, line in found], replaces):
            raise ArchiveDamaged(f"{path} is damaged: its last line does not describe it")
        records = [(place, parsed(line)) for place, line in found]
        troubles = [trouble for _, record in records if (trouble := record.broken()) is not None]
    except (OSError, zstandard.ZstdError, ValueError, KeyError, TypeError, JournalCorrupt) as error:
        raise ArchiveDamaged(f"{path} cannot be read: {error}") from error
    if troubles:
        raise ArchiveDamaged(f"{path} is damaged: {troubles[0]}")
    return Segment(records, replaces)


def read_frame(path: Path, offset: int, length: int) -> list[bytes]:
    """The lines of one frame, not checked. Raises ArchiveDamaged."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            raw = file.read(length)
        return zstandard.ZstdDecompressor().decompress(raw).splitlines()
    except (OSError, zstandard.ZstdError) as error:
        raise ArchiveDamaged(f"{path} cannot be read: {error}") from error
