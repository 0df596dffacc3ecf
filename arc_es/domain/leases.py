"""What is left of a lease whose command was cancelled."""

from __future__ import annotations

from dataclasses import dataclass

from arc_es.domain.ids import Micros


@dataclass(frozen=True, slots=True)
class CancelledLease:
    """A lease that its holder still believes in. expires_at: when it would have ended. agent: who said to hold it."""

    lease_id: str
    command_id: str
    deployment_id: str
    agent: str | None
    expires_at: Micros
