"""Envelopes: what a receiver gets with a lease, with signed URLs of its own (`arc.v1` 3.9, 4.7)."""

from __future__ import annotations

from typing import Any

from arc_es.domain.ids import Micros
from arc_es.domain.limits import INLINE_BYTES_MAX, SECOND
from arc_es.leasing import Granted
from arc_es.signing import Signer, response_expires
from arc_es.wire import PROTOCOL, format_time, inline_body, target_json


class Envelopes:
    """Writes the envelopes of one lease answer.

    base: `{base}` for absolute URLs, None for URLs relative to the lease endpoint.
    """

    def __init__(self, signer: Signer, base: str | None, now: Micros, lease_seconds: int) -> None:
        self._signer = signer
        self._commands = "" if base is None else f"{base}/commands/"
        self._storage = "../storage/" if base is None else f"{base}/storage/"
        self._expires = response_expires(now, lease_seconds)

    def lease(self, granted: Granted) -> dict[str, Any]:
        """A LeaseInfo (`arc.v1` 3.11)."""
        return {
            "leaseId": granted.lease_id,
            "leaseExpiresAt": format_time(granted.expires_at),
            "commandId": granted.command_id,
            "attempt": granted.attempt,
            "envelope": self.envelope(granted),
        }

    def envelope(self, granted: Granted) -> dict[str, Any]:
        """An Envelope (`arc.v1` 3.9)."""
        facts = granted.facts
        envelope: dict[str, Any] = {
            "protocol": PROTOCOL,
            "deploymentId": facts.route.deployment_id,
            "target": target_json(granted.target.resource_id, granted.target.resource_type),
            "commandId": granted.command_id,
            "attempt": granted.attempt,
        }
        trace = facts.options.trace
        if trace is not None:
            envelope["traceContext"] = {"traceparent": trace.traceparent}
            if trace.tracestate is not None:
                envelope["traceContext"]["tracestate"] = trace.tracestate
        if facts.deadline is not None:
            envelope["deadline"] = format_time(facts.deadline)
        envelope["command"] = facts.route.command
        envelope["params"] = inline_body(granted.params_base64)
        envelope["responseHandling"] = self._response_handling(granted.command_id)
        return envelope

    def _response_handling(self, command_id: str) -> dict[str, Any]:
        expires = self._expires
        token = self._signer.response_token(command_id, expires)
        path = f"arc/commands/{command_id}/response"
        signature = self._signer.storage_signature("PUT", path, expires)
        return {
            "maxInlineBytes": INLINE_BYTES_MAX,
            "submitResponseUrl": f"{self._commands}{command_id}/response?response_token={token}&expires={expires}",
            "storageUploadRequest": {
                "backend": {
                    "type": "http",
                    "url": f"{self._storage}{path}?expires={expires}&signature={signature}",
                    "method": "PUT",
                    "headers": {},
                },
                "expiration": format_time(expires * SECOND),
                "operation": "put",
                "path": path,
            },
        }
