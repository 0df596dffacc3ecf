"""First-generation clients (`arc.v1` 5.6): no target, absolute URLs, a batch in sequence, no second try."""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.e2e.old_clients.http import Http
from tests.e2e.old_clients.receiver import Handler


class FirstWorker:
    """A polling worker runtime. lease_seconds: 60 in the field."""

    def __init__(self, http: Http, base: str, token: str, *, lease_seconds: int = 60) -> None:
        self._http = http
        self._url = f"{base}/v1/commands/leases"
        self._token = token
        self._lease_seconds = lease_seconds
        self.submitted: list[tuple[str, int]] = []

    async def lease(self, deployment: str) -> list[Any]:
        wanted = {"deploymentId": deployment, "maxLeases": 10, "leaseSeconds": self._lease_seconds}
        leases: list[Any] = (await self._http.call("POST", self._url, wanted, bearer=self._token)).ok()["leases"]
        return leases

    async def work(self, leases: list[Any], handler: Handler) -> None:
        """One after the other; what cannot be decoded is not answered."""
        for lease in leases:
            envelope = lease["envelope"]
            url = envelope["responseHandling"]["submitResponseUrl"]
            assert url.startswith("http"), "it hands the URL straight to its HTTP client"
            result = await handler(base64.b64decode(envelope["params"]["inlineBase64"]))
            encoded = base64.b64encode(json.dumps(result).encode()).decode()
            response = {"status": "success", "response": {"mode": "inline", "inlineBase64": encoded}}
            self.submitted.append((lease["commandId"], (await self._http.call("PUT", url, response)).status))


class FirstSender:
    """Reads what it needs and looks at nothing else; knows no targets."""

    def __init__(self, http: Http, base: str, token: str) -> None:
        self._http = http
        self._base = base
        self._token = token

    async def create(self, deployment: str, command: str, params: bytes = b"{}", **more: Any) -> str:
        body = {"mode": "inline", "inlineBase64": base64.b64encode(params).decode()}
        wanted = {"deploymentId": deployment, "command": command, "params": body, **more}
        created = (await self._http.call("POST", f"{self._base}/v1/commands", wanted, bearer=self._token)).ok()
        command_id: str = created["commandId"]
        return command_id

    async def status(self, command_id: str) -> Any:
        return (await self._http.call("GET", f"{self._base}/v1/commands/{command_id}", bearer=self._token)).ok()
