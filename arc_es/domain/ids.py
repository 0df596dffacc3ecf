"""Names of things: command ids, lease ids, targets."""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Micros: TypeAlias = int
"""A point in time: microseconds since the Unix epoch, UTC."""

ResourceType: TypeAlias = Literal["worker", "container", "daemon"]
Delivery: TypeAlias = Literal["pull", "push"]

OPERATOR: Final = "operator"
"""The reserved target id: always pull, always a daemon, never part of a deployment-wide lease (`arc.v1` 4.6, 4.8)."""
DEFAULT_TARGET: Final = "default"
"""The implicit target of an undeclared deployment without known targets (`arc.v1` 4.6)."""

COMMAND_ID_PATTERN: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True)
class Target:
    """One resource inside a deployment; equal only if both fields are (`arc.v1` 3.6).

    `resource_type` is None as long as nobody has said what the resource is.
    """

    resource_id: str
    resource_type: ResourceType | None = None


def command_id_of(random: uuid.UUID) -> str:
    """The id of a command that has no idempotency key."""
    return f"cmd_{random}"


def command_id_from_key(deployment_id: str, target_id: str, command: str, key: str, previous: str | None) -> str:
    """The id of a command that has an idempotency key: equal scopes meet at one id.

    `previous` is the command that held the key before, once its window is over. Parts are hashed with their lengths, so
    crafted ids cannot collide (`arc.v1` section 6). The result is a version 8 UUID (RFC 9562: free-form).
    """
    digest = hashlib.sha256()
    for part in (deployment_id, target_id, command, key, previous or ""):
        data = part.encode()
        digest.update(len(data).to_bytes(4, "big"))
        digest.update(data)
    raw = bytearray(digest.digest()[:16])
    raw[6] = 0x80 | (raw[6] & 0x0F)
    raw[8] = 0x80 | (raw[8] & 0x3F)
    return f"cmd_{uuid.UUID(bytes=bytes(raw))}"


def lease_id_of(random: uuid.UUID) -> str:
    """The id of a lease; made by the service, never taken from a worker."""
    return f"lease_{random}"
