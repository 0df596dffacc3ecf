"""The names of stored bodies: `<slot path>/<Unix seconds>-<random hex>` of a sealed one, the slot path of an upload."""

from __future__ import annotations

import re
import secrets
from typing import Final, cast

from arc_es.domain.ids import COMMAND_ID_PATTERN, Micros
from arc_es.domain.limits import SECOND
from arc_es.ports import BodyKind, Slot, StoredName

RANDOM_BYTES: Final = 16
_NAME: Final = re.compile(
    rf"arc/commands/(?P<id>{COMMAND_ID_PATTERN.pattern})/(?P<kind>params|response)"
    r"(?:/(?P<seconds>[0-9]{1,12})-[0-9a-f]{8,64})?"
)


def new_ref(slot: Slot, now: Micros) -> str:
    """A ref that nobody has had and nobody can guess.

    Raises:
        ValueError: the command id has characters that no command id has; in a subject or a path they could do harm.
    """
    if _NAME.fullmatch(slot.path) is None:
        raise ValueError(f"{slot.command_id!r} is not the id of a command")
    return f"{slot.path}/{now // SECOND}-{secrets.token_hex(RANDOM_BYTES)}"


def slot_of(name: str) -> Slot | None:
    """Whose ref or slot path this is; None if it is neither."""
    parts = _NAME.fullmatch(name)
    return None if parts is None else Slot(parts["id"], cast("BodyKind", parts["kind"]))


def is_ref(name: str) -> bool:
    """Whether this is a ref, and not a slot path or something else."""
    parts = _NAME.fullmatch(name)
    return parts is not None and parts["seconds"] is not None


def stored_ref(ref: str) -> StoredName | None:
    """What a ref says of itself; None if it is no ref."""
    parts = _NAME.fullmatch(ref)
    if parts is None or parts["seconds"] is None:
        return None
    slot = Slot(parts["id"], cast("BodyKind", parts["kind"]))
    return StoredName(ref, slot, int(parts["seconds"]) * SECOND, is_upload=False)
