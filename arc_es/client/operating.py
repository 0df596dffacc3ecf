"""The operator's calls: let commands run again, declare deployments, pause and limit deliveries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from arc_es.client.lease import JsonObject
from arc_es.client.transport import Transport, segment

_REDRIVE_SECONDS_MAX = 60
"""More than an answer takes otherwise: the service may have to copy large params."""


class Operating:
    """Part of `ArcClient`. All calls are safe to repeat."""

    _http: Transport

    async def redrive(self, command_id: str) -> JsonObject:
        """Let a command that failed or expired run again as a new one: `{"commandId", "state", …}` of that."""
        path = f"/commands/{segment(command_id)}/redrive"
        return await self._http.json("POST", path, wait_seconds=_REDRIVE_SECONDS_MAX, needs=("commandId", "state"))

    async def redrive_found(self, filters: Mapping[str, str | Sequence[str]], *, dry_run: bool = False) -> JsonObject:
        """Do that with a page of what `find` finds, or say what would be done: `{"results", "nextCursor"?}`."""
        query = {**filters, "dryRun": "true" if dry_run else "false"}
        wait = _REDRIVE_SECONDS_MAX
        return await self._http.json("POST", "/commands/redrive", query=query, wait_seconds=wait, needs=("results",))

    async def deployments(self) -> JsonObject:
        """All declared deployments: `{"deployments": [...]}`."""
        return await self._http.json("GET", "/deployments", needs=("deployments",))

    async def deployment(self, deployment_id: str) -> JsonObject:
        """The declaration of one."""
        return await self._http.json("GET", f"/deployments/{segment(deployment_id)}", needs=("targets",))

    async def declare(self, deployment_id: str, declaration: Mapping[str, Any]) -> JsonObject:
        """Declare a deployment, or replace its declaration; what is stored."""
        path = f"/deployments/{segment(deployment_id)}"
        return await self._http.json("PUT", path, dict(declaration), needs=("targets",))

    async def controls(self, deployment_id: str) -> JsonObject:
        """What is paused or limited: `{"paused", "targets": [{"target", "paused", "maxConcurrent"?}]}`."""
        return await self._http.json("GET", f"/deployments/{segment(deployment_id)}/controls", needs=("paused",))

    async def control(self, deployment_id: str, what: str, request: Mapping[str, Any]) -> JsonObject:
        """`pause`, `resume` or `limit`, by the wire fields (`target`, `reason`, `maxConcurrent`); as `controls`."""
        path = f"/deployments/{segment(deployment_id)}/{what}"
        given = {name: value for name, value in request.items() if value is not None}
        return await self._http.json("POST", path, given, needs=("paused",))
