"""The stream that the journal needs: made if it is absent, compared if it is there, changed only in its size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from arc_es.domain.limits import DECISIONS_MAX
from arc_es.journal.subjects import ALL, STREAM
from arc_es.nats_bridge import Bridge
from arc_es.nats_streams import Difference, api, compare, ensure, error_number
from arc_es.ports import JournalMismatch

__all__ = ["StreamSettings", "api", "check_server", "compare_stream", "ensure_stream", "error_number"]

SERVER_PAYLOAD_BYTES_MIN: Final = 3 * 1024 * 1024
DUPLICATE_WINDOW_SECONDS: Final = 120
NANOSECONDS: Final = 1_000_000_000
METADATA: Final = {"arc_es.schema": "1", "arc_es.owner": "arc_es"}


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What may differ between installations. max_bytes -1: no limit but the server's."""

    replicas: int = 1
    max_bytes: int = -1

    def config(self) -> dict[str, Any]:
        """The stream configuration, in the server's words."""
        return {
            "name": STREAM,
            "subjects": [ALL],
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "discard_new_per_subject": True,
            "max_msgs_per_subject": DECISIONS_MAX,
            "max_msgs": -1,
            "max_bytes": self.max_bytes,
            "max_age": 0,
            "max_msg_size": -1,
            "allow_direct": True,
            "allow_atomic": True,
            "compression": "none",
            "duplicate_window": DUPLICATE_WINDOW_SECONDS * NANOSECONDS,
            "num_replicas": self.replicas,
            "metadata": METADATA,
        }


async def compare_stream(bridge: Bridge, settings: StreamSettings) -> list[Difference] | None:
    """How the stream differs from the settings, but in its size, which is set; None if there is no stream.

    Raises:
        JournalUnavailable: JetStream cannot be reached.
    """
    return await compare(bridge, settings.config())


async def ensure_stream(bridge: Bridge, settings: StreamSettings | None = None) -> None:
    """Create the stream if it is absent, else see that it is as wanted, and as large as wanted.

    Raises:
        JournalMismatch: the stream or the server is not as this version needs it.
        JournalUnavailable: JetStream cannot be reached.
    """
    check_server(bridge)
    config = (settings or StreamSettings()).config()
    await ensure(bridge, config, size_setting="stream_bytes_max", mismatch=JournalMismatch)


def check_server(bridge: Bridge) -> None:
    """See that the connected server takes messages as large as ours. Raises as `ensure_stream`."""
    largest = bridge.server_info().max_payload_bytes
    if largest < SERVER_PAYLOAD_BYTES_MIN:
        raise JournalMismatch(
            f"max_payload of the NATS server is {largest} bytes, wanted at least {SERVER_PAYLOAD_BYTES_MIN}:"
            " set `max_payload: 4MB` in nats.conf."
        )
