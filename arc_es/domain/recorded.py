"""What was stored, as projections see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from arc_es.domain.events import Event
from arc_es.domain.ids import Micros


class CommandKey(NamedTuple):
    """Names the history of one command. A tuple, for speed: a replay makes one for every message."""

    deployment_id: str
    command_id: str


@dataclass(frozen=True, slots=True)
class DeploymentKey:
    """Names the history of one deployment. Not a tuple: keys of different kinds must never be equal."""

    deployment_id: str


@dataclass(frozen=True, slots=True)
class PayloadKey:
    """Names the history of what is stored under an id that has no command."""

    command_id: str


@dataclass(frozen=True, slots=True)
class TokenKey:
    """Names the history of one access token."""

    token_id: str


@dataclass(frozen=True, slots=True)
class LogKey:
    """Names a history about the log itself: of its keys (`keys`), or of the checkpoints of one day (`2026-11-21`)."""

    name: str


Key: TypeAlias = CommandKey | DeploymentKey | PayloadKey | TokenKey | LogKey


@dataclass(frozen=True, slots=True)
class Agent:
    """What an agent says of itself."""

    id: str
    version: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who caused a decision, as the server knows it; only what `agent` says is taken from the caller."""

    id: str
    kind: str
    address: str | None = None
    user_agent: str | None = None
    request_id: str | None = None
    agent: Agent | None = None


SERVICE = Principal("arc_es", "service")
"""The principal of what the service does by itself, such as expiry."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The events that one intent produced, stored as one message.

    `prev` is the SHA-256 (hex) of the public part of the message before it in the same history, None on the first: a
    hash chain. `is_erased`: its private fields are gone, and have their defaults, or are empty where they have none.
    """

    id: str
    at: Micros
    by: Principal
    events: tuple[Event, ...]
    prev: str | None = None
    is_erased: bool = False


@dataclass(slots=True)
class Recorded:
    """A decision as projections fold it: where it is stored, whose it is, when it was made, what happened."""

    position: int
    key: Key
    at: Micros
    events: tuple[Event, ...] = field(default=())
