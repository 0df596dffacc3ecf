"""The receiver's calls: take commands, keep them, answer them, give them back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx2
import orjson

from arc_es.client.answers import date_of, object_of
from arc_es.client.errors import ArcError, BadAnswer, entry_error
from arc_es.client.lease import JsonObject, Lease, parse_lease
from arc_es.client.transport import Transport, segment
from arc_es.domain.ids import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The answer to one lease. response: a CommandResponse (`arc.v1` 3.3)."""

    lease: Lease
    response: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentAnswer:
    """What one call of the agent loop brought.

    completed: by command id, None for taken, else why not. renewed: by lease id, the new end, else why not. Both lack
    what the service said nothing about, as one without this extension does. cancelled: ids of leases no longer wanted.
    unreadable: why some leases could not be read; they run out.
    """

    server_time: datetime
    leases: list[Lease] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    completed: dict[str, ArcError | None] = field(default_factory=dict)
    renewed: dict[str, datetime | ArcError] = field(default_factory=dict)
    cancelled: frozenset[str] = frozenset()


class Receiving:
    """The part of `ArcClient` for agents."""

    _http: Transport

    async def lease(
        self,
        deployment_id: str,
        target: Target | None = None,
        *,
        count: int = 1,
        lease_seconds: int = 60,
        wait_seconds: int = 0,
        agent: Mapping[str, Any] | None = None,
    ) -> list[Lease]:
        """Take up to `count` commands, waiting up to `wait_seconds` (to 60) for one; an empty list if none came."""
        found = await self.agent_loop(
            deployment_id, target, count=count, lease_seconds=lease_seconds, wait_seconds=wait_seconds, agent=agent
        )
        if found.unreadable and not found.leases:
            # Retryable: one bad envelope must not stop a worker; its lease runs out and somebody else may read it.
            raise BadAnswer(f"A lease answer has an unknown shape: {found.unreadable[0]}", status=200, retryable=True)
        return found.leases

    async def agent_loop(
        self,
        deployment_id: str,
        target: Target | None = None,
        *,
        count: int = 1,
        lease_seconds: int = 60,
        wait_seconds: int = 0,
        agent: Mapping[str, Any] | None = None,
        complete: Sequence[Completion] = (),
        renew: Sequence[str] = (),
    ) -> AgentAnswer:
        """Answer earlier leases, renew others for `lease_seconds`, and take new ones, in one call and in this order.

        Safe to repeat, but for leases that an answer brought which got lost: those run out.
        """
        request: JsonObject = {"deploymentId": deployment_id, "maxLeases": count, "leaseSeconds": lease_seconds}
        if target is not None:
            request["target"] = {"resourceId": target.resource_id, "resourceType": target.resource_type}
        if wait_seconds:
            request["waitSeconds"] = wait_seconds
        if agent is not None:
            request["agent"] = dict(agent)
        if complete:
            request["complete"] = [_complete_entry(one) for one in complete]
        if renew:
            request["renew"] = [{"leaseId": lease_id, "leaseSeconds": lease_seconds} for lease_id in renew]
        url = self._http.url("/commands/leases", {})
        response = await self._http.send("POST", url, content=orjson.dumps(request), wait_seconds=wait_seconds)
        return _read(object_of(response, "leases"), str(url.copy_with(query=None)), date_of(response))

    async def renew(self, lease_id: str, lease_seconds: int = 60) -> JsonObject:
        """Keep a leased command: `{"leaseId", "leaseExpiresAt", "cancelled"}`."""
        path = f"/commands/leases/{segment(lease_id)}/renew"
        return await self._http.json("POST", path, {"leaseSeconds": lease_seconds}, needs=("leaseExpiresAt",))

    async def release(self, lease_id: str, *, delay_seconds: int = 0) -> None:
        """Give a leased command back; it can be leased again at once, or after a delay."""
        url = self._http.url(f"/commands/leases/{segment(lease_id)}/release", {})
        body = {"delaySeconds": delay_seconds} if delay_seconds else {}
        await self._http.send("POST", url, content=orjson.dumps(body))

    async def submit(self, submit_url: str, response: Mapping[str, Any]) -> None:
        """Answer a command by its signed URL (`Lease.submit_url`), without a token. Safe to repeat.

        `response` is a CommandResponse (`arc.v1` 3.3).
        """
        content = orjson.dumps(dict(response))
        await self._http.send("PUT", httpx2.URL(submit_url), content=content, signed=True)


def _complete_entry(one: Completion) -> JsonObject:
    return {"commandId": one.lease.command_id, "leaseId": one.lease.lease_id, "response": dict(one.response)}


def _read(answer: JsonObject, endpoint: str, server_time: datetime) -> AgentAnswer:
    leases: list[Lease] = []
    unreadable: list[str] = []
    for info in answer["leases"]:
        try:
            leases.append(parse_lease(info, endpoint, server_time))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            unreadable.append(repr(error))
    try:
        return AgentAnswer(
            server_time=server_time,
            leases=leases,
            unreadable=unreadable,
            completed={one["commandId"]: entry_error(one) for one in answer.get("completed", ())},
            renewed={
                one["leaseId"]: entry_error(one) or datetime.fromisoformat(one["leaseExpiresAt"])
                for one in answer.get("renewed", ())
            },
            cancelled=frozenset(one["leaseId"] for one in answer.get("cancelled", ())),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadAnswer(f"A lease answer has an unknown shape: {error!r}", status=200, retryable=True) from error
