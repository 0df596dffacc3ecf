"""What can be counted about one queue."""

from __future__ import annotations

from dataclasses import dataclass

from arc_es.domain.ids import Micros


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """One target's queue: commands leasable now, commands that rest until later, commands under a lease.

    oldest_pending_at: creation time of the leasable command that has waited longest, None if there is none. paused:
    nothing is handed out; leases_max: at most so many at once.
    """

    deployment_id: str
    target_id: str
    pending: int
    delayed: int
    leased: int
    oldest_pending_at: Micros | None
    paused: bool = False
    leases_max: int | None = None
