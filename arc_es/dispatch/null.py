"""Pushing to nobody: for tests, and for dry runs of a configuration."""

from __future__ import annotations

import logging

from arc_es.ports import PushOutcome

log = logging.getLogger("arc_es.dispatch")


class NullPusher:
    """Says that every worker accepted, and sends nothing. The commands come back when their delivery leases end."""

    async def push(self, url: str, token: str | None, envelope: bytes) -> PushOutcome:
        """See `ports.Pusher`."""
        log.info("An envelope of %d bytes was not sent: push = null", len(envelope))
        return PushOutcome("accepted")
