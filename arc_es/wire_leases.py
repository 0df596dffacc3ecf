"""The public JSON of agents: what they ask for, what they hold, what they give back (`arc.v1` 2.4, 2.5, extensions)."""

from __future__ import annotations

from dataclasses import dataclass

from arc_es.domain.ids import Micros, Target
from arc_es.domain.limits import (
    LEASE_COUNT_DEFAULT,
    LEASE_COUNT_MAX,
    LEASE_SECONDS_DEFAULT,
    LEASE_SECONDS_MAX,
    LEASE_SECONDS_MIN,
    RELEASE_DELAY_SECONDS_MAX,
    SECOND,
    WAIT_SECONDS_MAX,
)
from arc_es.wire import (
    Json,
    clamp,
    count,
    name_text,
    optional,
    parse_field_object,
    parse_object,
    parse_target,
    required,
    text,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRequest:
    """POST /commands/leases (`arc.v1` 2.4), numbers already clamped. only: what the token allows, None for all."""

    deployment_id: str
    target: Target | None
    leases_max: int
    lease_seconds: int
    wait_seconds: int
    agent: str | None
    only: frozenset[Target] | None = None


def parse_lease(value: object, only: frozenset[Target] | None = None) -> LeaseRequest:
    """Read a lease request of a caller whose token allows `only` these targets. Raises WireError 422."""
    data = parse_object(value)
    agent = optional(data, "agent", parse_field_object)
    return LeaseRequest(
        deployment_id=required(data, "deploymentId", text),
        target=optional(data, "target", parse_target),
        leases_max=clamp(optional(data, "maxLeases", count), 0, LEASE_COUNT_MAX, LEASE_COUNT_DEFAULT),
        lease_seconds=_lease_seconds(data),
        wait_seconds=clamp(optional(data, "waitSeconds", count), 0, WAIT_SECONDS_MAX, 0),
        agent=None if agent is None else required(agent, "id", name_text),
        only=only,
    )


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
