"""Beginning an index with what another process of the same data dir has in its own, instead of a replay."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from arc_es.index import schema

AHEAD_MIN: Final = 10_000
"""By how many positions the other one must be ahead to be worth a copy."""

log = logging.getLogger("arc_es.index")


def seed(folder: Path, other: Path) -> None:
    """Copy the index in the folder `other` to `folder` if that one is well ahead. Never fails: without, one replays."""
    mine, theirs = folder / schema.FILE, other / schema.FILE
    draft = mine.with_suffix(".new")
    try:
        if _position(theirs) < _position(mine) + AHEAD_MIN:
            return
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        schema.remove(draft)
        with closing(sqlite3.connect(theirs)) as source, closing(sqlite3.connect(draft)) as copy:
            source.backup(copy)
        schema.remove(mine)
        draft.rename(mine)
    except (OSError, sqlite3.Error) as error:
        log.warning("The index in %s cannot be copied, so another is made: %s", other, error)


def _position(path: Path) -> int:
    """How far an index is; 0 if there is none that can be used."""
    if not schema.is_whole(path):
        return 0
    try:
        with closing(schema.connect(path)) as connection:
            stand = schema.stand_of(connection)
    except sqlite3.Error:
        return 0
    return 0 if stand is None else stand.position
