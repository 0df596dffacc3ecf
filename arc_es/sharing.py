"""Snapshots for other nodes: one node offers what it starts from, a new one begins with that.

A node needs two things to begin in the middle of the journal: a snapshot of the projections, and an index of commands
that is not behind it, for what the snapshot has forgotten. Both are offered together, the snapshot last, so that where
there is a snapshot there is an index. Whoever takes them checks them as it does its own; whatever does not fit means a
full replay. Any node may offer: nobody asks who, and the newest that fits wins.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from arc_es.index import schema as index_schema
from arc_es.ports import BodyStoreError, BodyStoreMismatch, JournalUnavailable
from arc_es.snapshots import file
from arc_es.snapshots.file import Header, SnapshotUnusable
from arc_es.snapshots.schema import fingerprint
from arc_es.storage.shelf import Shelf

KEPT: Final = 2
"""Offers of each kind: somebody may be reading the older one."""
KINDS_KEPT: Final = 3
"""While nodes are upgraded one after the other there are offers of two versions; the newest kinds are kept."""
AHEAD_MIN: Final = 100_000
"""Messages that a new offer is ahead of the last one, or a tenth of the journal: so all offers together cost little."""
INDEX_SECONDS_MAX: Final = 30.0
"""How long the index of a running service may take to come as far as the snapshot."""
BROKEN_OFF_SECONDS: Final = 3_600.0
"""What was begun before and is not finished never will be."""
COPY: Final = "copy-to-share.sqlite"
_INDEX, _SNAPSHOT = ".index", ".snapshot"

log = logging.getLogger("arc_es.snapshots")


@dataclass(frozen=True, slots=True, order=True)
class Offer:
    """A snapshot and its index on the shelf. kind: who can use it. at: when it was made, in Unix seconds."""

    position: int
    at: int
    kind: str
    mark: str

    @property
    def name(self) -> str:
        """Without the ending."""
        return f"{self.position:020d}-{self.at}-{self.kind}-{self.mark}"


def kind_of(stream: str) -> str:
    """What must be the same for an offer to be of use: the stream, and the code that folds and indexes."""
    said = f"{stream} {fingerprint()} {index_schema.FINGERPRINT}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _parsed(name: str) -> Offer | None:
    parts = name.removesuffix(_SNAPSHOT).removesuffix(_INDEX).split("-")
    if len(parts) != 4 or not (parts[0].isdecimal() and parts[1].isdecimal()):  # noqa: PLR2004 - as in `Offer.name`
        return None
    return Offer(int(parts[0]), int(parts[1]), parts[2], parts[3])


async def _offers(shelf: Shelf) -> list[Offer]:
    """All offers, the newest position first."""
    names = [name for name in await shelf.names() if name.endswith(_SNAPSHOT)]
    return sorted(filter(None, map(_parsed, names)), reverse=True)


# --- offering


async def share(shelf: Shelf, snapshot: Path, index_dir: Path) -> Offer | None:
    """Offer a snapshot, if it is far enough ahead of what is offered already; None if not.

    Raises:
        SnapshotUnusable: it is not whole, or the index beside it does not come so far.
        BodyStoreError, OSError: it cannot be stored now.
    """
    header = await trio.to_thread.run_sync(file.check, snapshot)
    kind = kind_of(header.stream)
    there = [offer.position for offer in await _offers(shelf) if offer.kind == kind]
    if there and header.position - there[0] < max(AHEAD_MIN, there[0] // 10):
        return None
    offer = Offer(header.position, int(time.time()), kind, secrets.token_hex(4))
    copy = index_dir / COPY
    try:
        await _copy_index(index_dir, copy, header)
        await shelf.put(offer.name + _INDEX, copy)
        await shelf.put(offer.name + _SNAPSHOT, snapshot)
    finally:
        copy.unlink(missing_ok=True)
    await _tidy(shelf)
    return offer


async def _copy_index(index_dir: Path, copy: Path, header: Header) -> None:
    """A copy of the index as of one moment, not before the snapshot; the service may go on writing it."""
    with trio.move_on_after(INDEX_SECONDS_MAX):
        while not await trio.to_thread.run_sync(_copied, index_dir / index_schema.FILE, copy, header):  # noqa: ASYNC110 - another process writes it
            await trio.sleep(1)
        return
    raise SnapshotUnusable("the index of commands does not come so far")


def _copied(source: Path, copy: Path, header: Header) -> bool:
    copy.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=5)) as there:
            stand = index_schema.stand_of(there)
            if stand is None or stand.stream != header.stream or stand.position < header.position:
                return False
            with closing(sqlite3.connect(copy)) as here:
                there.backup(here)
    except sqlite3.Error as error:
        raise OSError(f"the index of commands cannot be copied: {error}") from error
    return True


async def _tidy(shelf: Shelf) -> None:
    """Keep a bounded number, and nothing that was broken off long ago."""
    offers = await _offers(shelf)
    kinds = sorted({offer.kind for offer in offers}, key=lambda kind: max(o.at for o in offers if o.kind == kind))
    kept = {offer for kind in kinds[-KINDS_KEPT:] for offer in _newest(offers, kind)}
    for offer in set(offers) - kept:
        await shelf.remove(offer.name + _SNAPSHOT)
        await shelf.remove(offer.name + _INDEX)
    names = {offer.name for offer in kept}
    old = time.time() - BROKEN_OFF_SECONDS
    for name in {*await shelf.names(), *await shelf.broken_off()}:
        begun = _parsed(name)
        if begun is not None and begun.name not in names and begun.at < old:
            await shelf.remove(name)


def _newest(offers: Sequence[Offer], kind: str) -> list[Offer]:
    return [offer for offer in offers if offer.kind == kind][:KEPT]


async def withdraw(shelf: Shelf, before: int) -> None:
    """Overwrite all offers of an earlier position, in which is what was erased by then. Raises BodyStoreError."""
    for name in {*await shelf.names(), *await shelf.broken_off()}:
        offer = _parsed(name)
        if offer is not None and offer.position < before:
            await shelf.remove(name, overwrite=True)


# --- taking


async def adopt(shelf: Shelf, stream: str, snapshots: Path, index_dir: Path) -> Path | None:
    """Take over the newest offer that fits, into a data directory without an index; None if there is none.

    Raises:
        BodyStoreError, OSError: it cannot be told, or written, now.
    """
    kind = kind_of(stream)
    for offer in await _offers(shelf):
        if offer.kind != kind:
            continue
        path = snapshots / f"{offer.position:020d}{file.SUFFIX}"
        index = index_dir / index_schema.FILE
        try:
            await shelf.get(offer.name + _SNAPSHOT, path)
            await trio.to_thread.run_sync(file.check, path)
            await shelf.get(offer.name + _INDEX, index)
        except (BodyStoreError, SnapshotUnusable) as error:
            log.warning("The shared snapshot of position %d is not used: %s", offer.position, error)
            path.unlink(missing_ok=True)
        else:
            log.info("Took over the shared snapshot of position %d", offer.position)
            return path
    return None


TROUBLES: Final = (BodyStoreError, BodyStoreMismatch, JournalUnavailable, SnapshotUnusable, OSError)
"""Why nothing is shared now; nobody depends on it."""
