"""The public JSON of agents: what they ask for, what they hold, what they give back (`arc.v1` 2.4, 2.5, extensions)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from arc_es.domain.ids import Micros, Target
from arc_es.domain.limits import (
    ENTRIES_MAX,
    LEASE_COUNT_DEFAULT,
    LEASE_COUNT_MAX,
    LEASE_SECONDS_DEFAULT,
    LEASE_SECONDS_MAX,
    LEASE_SECONDS_MIN,
    RELEASE_DELAY_SECONDS_MAX,
    SECOND,
    WAIT_SECONDS_MAX,
)
from arc_es.domain.recorded import Agent
from arc_es.wire import (
    ErrorResponse,
    Json,
    SuccessResponse,
    WireError,
    clamp,
    count,
    labels_within_limits,
    name_text,
    optional,
    parse_field_object,
    parse_labels,
    parse_list,
    parse_object,
    parse_response,
    parse_target,
    required,
    text,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRequest:
    """What to lease (`arc.v1` 2.4), numbers already clamped. only: what the token allows, None for all."""

    deployment_id: str
    target: Target | None
    leases_max: int
    lease_seconds: int
    wait_seconds: int
    agent: Agent | None
    only: frozenset[Target] | None = None

    @property
    def agent_id(self) -> str | None:
        """What the agent calls itself."""
        return None if self.agent is None else self.agent.id


def parse_lease(value: object, only: frozenset[Target] | None = None) -> LeaseRequest:
    """Read what a caller whose token allows `only` these targets wants to lease. Raises WireError 422, or 400."""
    data = parse_object(value)
    return LeaseRequest(
        deployment_id=required(data, "deploymentId", text),
        target=optional(data, "target", parse_target),
        leases_max=clamp(optional(data, "maxLeases", count), 0, LEASE_COUNT_MAX, LEASE_COUNT_DEFAULT),
        lease_seconds=_lease_seconds(data),
        wait_seconds=clamp(optional(data, "waitSeconds", count), 0, WAIT_SECONDS_MAX, 0),
        agent=optional(data, "agent", _agent),
        only=only,
    )


def _agent(value: object, name: str) -> Agent:
    data = parse_field_object(value, name)
    return Agent(
        required(data, "id", name_text),
        optional(data, "version", name_text),
        labels_within_limits(optional(data, "labels", parse_labels) or {}),
    )


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer to a lease."""

    command_id: str
    lease_id: str
    response: SuccessResponse | ErrorResponse


@dataclass(frozen=True, slots=True)
class Renewal:
    """A lease that is to last so many seconds from now."""

    lease_id: str
    seconds: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An entry that cannot be read; name: what it is about, as far as it says."""

    name: str | None
    error: WireError


def parse_completions(value: object) -> list[Completion | Unreadable]:
    """The `complete` of a lease request. Raises WireError: 413, too many; 422, no list."""
    return _entries(value, "complete", "commandId", _completion)


def parse_renewals(value: object) -> list[Renewal | Unreadable]:
    """The `renew` of a lease request. Raises WireError: 413, too many; 422, no list."""
    return _entries(value, "renew", "leaseId", _renewal)


def _completion(data: Json) -> Completion:
    command_id = required(data, "commandId", text)
    return Completion(command_id, required(data, "leaseId", text), parse_response(data.get("response")))


def _renewal(data: Json) -> Renewal:
    return Renewal(required(data, "leaseId", text), _lease_seconds(data))


T = TypeVar("T")


def _entries(value: object, name: str, named_by: str, read: Callable[[Json], T]) -> list[T | Unreadable]:
    given = optional(parse_object(value), name, parse_list) or []
    if len(given) > ENTRIES_MAX:
        raise WireError(413, "PAYLOAD_TOO_LARGE", f"{name} has more than {ENTRIES_MAX} entries")
    entries: list[T | Unreadable] = []
    for entry in given:
        try:
            entries.append(read(parse_field_object(entry, f"{name}[{len(entries)}]")))
        except WireError as error:
            said = entry.get(named_by) if isinstance(entry, dict) else None
            entries.append(Unreadable(said if isinstance(said, str) else None, error))
    return entries


def parse_renew(value: object) -> int:
    """For how many seconds a lease is to be renewed. Raises WireError 422."""
    return _lease_seconds(parse_object(value))


def parse_release(value: object) -> Micros:
    """How long a command that is given back is to rest; whatever is no object says nothing (`arc.v1` 2.5).

    Raises:
        WireError: 422, `delaySeconds` is there and no number of seconds.
    """
    seconds = optional(value, "delaySeconds", count) if isinstance(value, dict) else None
    return clamp(seconds, 0, RELEASE_DELAY_SECONDS_MAX, 0) * SECOND


def _lease_seconds(data: Json) -> int:
    seconds = optional(data, "leaseSeconds", count)
    return clamp(seconds, LEASE_SECONDS_MIN, LEASE_SECONDS_MAX, LEASE_SECONDS_DEFAULT)
