"""What a snapshot was written by: its bytes mean something only to the code that folds and stores in the same way.

The fingerprint is taken over the source of everything that decides what is in a projection. A changed field changes it,
and so does a changed fold, which no list of fields would show. A changed comment does too; that costs one full replay.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Final

from arc_es import __version__, codec

FORMAT: Final = 1
"""Of the file itself."""


@lru_cache(maxsize=1)
def fingerprint() -> str:
    """Hex digest of the versions of file, events and program, and of the code of domain, codec and projections."""
    return digest_of((FORMAT, codec.VERSION, __version__), _sources("arc_es.domain", "arc_es.codec", "projections"))


def digest_of(versions: Iterable[object], sources: Iterable[Path]) -> str:
    """Hex digest of versions, and of names and contents of files."""
    hashed = hashlib.sha256(f"{[*versions]}\n".encode())
    for path in sorted(sources):
        content = path.read_bytes()
        hashed.update(f"{path.parent.name}/{path.name} {len(content)}\n".encode() + content)
    return hashed.hexdigest()


def _sources(*modules: str) -> list[Path]:
    """The files of some modules; they are not imported, so that nothing here depends on them."""
    paths: list[Path] = []
    for name in modules:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ImportError(f"{name} has no source")
        if spec.submodule_search_locations:
            paths += [path for folder in spec.submodule_search_locations for path in Path(folder).rglob("*.py")]
        else:
            paths.append(Path(spec.origin))
    return paths
