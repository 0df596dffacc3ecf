"""How the past is asked for: `asOf` on what answers about the present (extensions, "Audit")."""

from __future__ import annotations

from functools import partial
from typing import Any

from quart import Request

from arc_es.asof import LeaseThen, QueueThen, RowThen, parse_as_of
from arc_es.domain.ids import Micros, ResourceType, Target
from arc_es.domain.limits import SECOND
from arc_es.domain.queues import QueueCounts
from arc_es.domain.tokens import Grant
from arc_es.http.api import Api
from arc_es.http.connection import until_disconnected
from arc_es.snapshots.fold import TooFar
from arc_es.snapshots.moment import Moment
from arc_es.summaries import Find, Page
from arc_es.wire import WireError, format_time, target_json


def moment_of(request: Request) -> Moment | None:
    """The moment that a request asks about, None for the present. Raises WireError 422."""
    text = request.args.get("asOf")
    return None if text is None else parse_as_of(text)


async def row_then(api: Api, command_id: str, moment: Moment) -> tuple[RowThen, dict[str, Any]]:
    """A command as it was, and what an answer about it says besides. Raises CommandNotFound."""
    row, target, applied = await api.service.as_of.command(command_id, moment)
    return row, {"target": target_json(target.resource_id, target.resource_type), "appliedSeq": applied}


async def page_then(api: Api, request: Request, find: Find, moment: Moment) -> Page:
    """A page of a list as it was. Raises Overloaded: too many ask."""
    return await until_disconnected(request, partial(api.service.as_of.commands, find, moment))


async def queues_then(api: Api, request: Request, grant: Grant, moment: Moment) -> dict[str, Any]:
    """All queues as they were, with the leases. Who was asking for work is no event, so nothing says that.

    Raises:
        WireError: 422, it is too far from the nearest snapshot.
        Overloaded: too many ask.
    """
    try:
        then = await until_disconnected(request, partial(api.service.as_of.queues, moment))
    except TooFar:
        raise WireError(
            422,
            "INVALID_REQUEST",
            "Too much lies between that moment and the nearest snapshot before it; on the machine of the service"
            " `arc-es replay --queues --at MOMENT` has no such limit",
        ) from None
    seen = [queue for queue in then.queues if grant.covers(queue.counts.deployment_id, _target(queue))]
    return {"queues": [queue_json(queue, then.now) for queue in seen], "appliedSeq": then.position}


def _target(queue: QueueThen) -> Target:
    return Target(queue.counts.target_id, queue.resource_type)


def queue_json(queue: QueueThen, now: Micros) -> dict[str, Any]:
    """A queue as it was, with ages as of `now`."""
    leases = [_lease_json(lease) for lease in queue.leases]
    return {**counts_json(queue.counts, queue.resource_type, now), "leases": leases}


def _lease_json(lease: LeaseThen) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "commandId": lease.command_id,
        "leaseId": lease.lease_id,
        "leaseExpiresAt": format_time(lease.expires_at),
        "attempt": lease.attempt,
    }
    return entry if lease.agent is None else {**entry, "agent": lease.agent}


def counts_json(counts: QueueCounts, resource_type: ResourceType | None, now: Micros) -> dict[str, Any]:
    """What can be counted about a queue, with ages as of `now`."""
    entry: dict[str, Any] = {
        "deploymentId": counts.deployment_id,
        "target": target_json(counts.target_id, resource_type),
        "pending": counts.pending,
        "delayed": counts.delayed,
        "leased": counts.leased,
    }
    if counts.oldest_pending_at is not None:
        entry["oldestPendingSeconds"] = max(0, now - counts.oldest_pending_at) // SECOND
    if counts.paused:
        entry["paused"] = True
    if counts.leases_max is not None:
        entry["maxConcurrent"] = counts.leases_max
    return entry
