"""The file that `arc-es export` writes: JSON Lines, each line in its one form, checked by `arc_es.proof.verify`.

    {"format":"arc-es-export/1","scope":[…],"keys":[…],"checkpoint":"…"}   first
    {"consistency":{"size":…,"root":"…","proof":[…]}}                      with an older checkpoint to compare with
    {"position":…,"subject":"…","index":…,"payload":"…","proof":[…]}       each message; `payload` as it is stored
    {"body":{"position":…,"event":…,"field":"…","base64":"…"}}             after its message, in one or more parts
    {"manifest":"…"}                                                       last: a signed note over what was exported

`scope` is what the export holds all of: `history <subject>` (all messages of it up to the checkpoint, any number of
these lines), `deployment <id>` (all messages of all commands of it), or `range <first> <end>` (all messages with these
indexes in the tree, without the end).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import orjson

FORMAT: Final = "arc-es-export/1"
BODY_PART_BYTES: Final = 768 * 1024
BODY_FIELDS: Final = ("params", "response", "body")
"""Fields of events that hold a `Body`."""


def line(record: dict[str, Any]) -> bytes:
    """One line of the file."""
    return orjson.dumps(record) + b"\n"


class Tally:
    """Counts what an export holds, in its order: what the manifest says, and what a verifier counts again."""

    def __init__(self) -> None:
        self.messages = 0
        self.bodies = 0
        self._leaves = hashlib.sha256()

    def message(self, leaf: bytes) -> None:
        """One message, by the hash of its leaf."""
        self.messages += 1
        self._leaves.update(leaf)

    def manifest(self, origin: str, size: int, scope: Sequence[str], *, with_bodies: bool) -> str:
        """The text of the manifest."""
        bodies = f"{self.bodies} bodies" if with_bodies else "no bodies"
        counted = f"{self.messages} messages {self._leaves.hexdigest()}"
        return "\n".join((f"{origin}/export", str(size), *scope, counted, bodies)) + "\n"
