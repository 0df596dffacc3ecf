"""Envelopes: what a receiver gets with a lease, and a worker by push, with signed URLs of its own (`arc.v1` 3.9)."""

from __future__ import annotations

from typing import Any

from arc_es.domain.limits import INLINE_BYTES_MAX
from arc_es.leasing import Granted
from arc_es.links import TRANSFER_SECONDS, Links
from arc_es.ports import Slot
from arc_es.signing import TOLERANCE_SECONDS, response_seconds
from arc_es.wire import PROTOCOL, format_time, target_json


class Envelopes:
    """Writes the envelopes of one lease answer, or of one push. Its URLs outlive the lease (`arc.v1` section 0)."""

    def __init__(self, links: Links, lease_seconds: int) -> None:
        self._links = links
        self._download_seconds = max(TRANSFER_SECONDS, lease_seconds + TOLERANCE_SECONDS)
        self._respond_seconds = response_seconds(lease_seconds)

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
        slot = Slot(granted.command_id, "params")
        envelope["params"] = self._links.body(slot, granted.params, self._download_seconds)
        envelope["responseHandling"] = self._response_handling(granted.command_id)
        return envelope

    def _response_handling(self, command_id: str) -> dict[str, Any]:
        """A ResponseHandling (`arc.v1` 3.10)."""
        seconds = self._respond_seconds
        return {
            "maxInlineBytes": INLINE_BYTES_MAX,
            "submitResponseUrl": self._links.respond_url(command_id, seconds),
            "storageUploadRequest": self._links.upload(Slot(command_id, "response"), seconds),
        }
