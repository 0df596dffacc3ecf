"""Every number that bounds a command, in one place. Source: `arc.v1` section 0 unless a comment says otherwise."""

from typing import Final

SECOND: Final = 1_000_000
"""One second in the unit of all domain times, microseconds."""

INLINE_BYTES_MAX: Final = 150_000
"""Largest body, in raw bytes, that travels inside JSON."""
EVENT_BODY_BYTES_MAX: Final = 4_096
"""Largest body, in raw bytes, stored inside an event; larger ones are a message beside it (design section 3)."""
NAME_BYTES_MAX: Final = 1_024
"""Longest deploymentId, targetResourceId, command and idempotencyKey, in UTF-8 bytes."""
ERROR_TEXT_BYTES_MAX: Final = 150_000
"""Longest code, message or details of an error response, in UTF-8 bytes; the rest is cut."""

IDEMPOTENCY_WINDOW: Final = 86_400 * SECOND
UPLOAD_WINDOW: Final = 86_400 * SECOND

LEASE_COUNT_DEFAULT: Final = 1
LEASE_COUNT_MAX: Final = 1_000
LEASE_SECONDS_DEFAULT: Final = 60
LEASE_SECONDS_MIN: Final = 1
LEASE_SECONDS_MAX: Final = 43_200
WAIT_SECONDS_MAX: Final = 60

ATTEMPTS_DEFAULT: Final = 20
ATTEMPTS_MAX: Final = 1_000
"""Ours: a ceiling on the setting, so that the history of one command stays below `DECISIONS_MAX`."""

PUSH_SECONDS_MAX: Final = 10
"""How long one push may take, from connecting to the status of the answer."""
DELIVERY_LEASE_EXTRA_SECONDS: Final = 60
WORKER_TIMEOUT_SECONDS_DEFAULT: Final = 180

RENEWALS_PER_LEASE_MAX: Final = 5_000
"""Ours: a lease that was renewed this often is not renewed again."""
LATE_RESPONSES_MAX: Final = 16
"""Ours: how many different late responses of one command are recorded; later ones are only acknowledged."""
DECISIONS_MAX: Final = 100_000
"""Ours: the stream refuses more messages than this on one subject (a guard against runaway writers)."""

TARGETS_PER_DEPLOYMENT_MAX: Final = 10_000
"""Ours: how many targets a declaration may have, and an undeclared deployment may come to know by use."""
PRIORITY_MAX: Final = 100
LABELS_MAX: Final = 32
LABEL_KEY_BYTES_MAX: Final = 64
LABEL_VALUE_BYTES_MAX: Final = 256

REQUEST_BODIES_BYTES_MAX: Final = 256 * 1024 * 1024
"""Ours: request bodies in memory at the same time, of all requests; above it OVERLOADED before anything is read."""
UPLOAD_BUFFER_BYTES: Final = 1024 * 1024
"""Ours: what one streamed upload counts in that sum."""
TRANSFER_GRACE_SECONDS: Final = 30.0
TRANSFER_BYTES_PER_SECOND_MIN: Final = 1_024
"""Ours: after the grace, a streamed upload must have moved at least this much a second on average."""
TRANSFER_STALL_SECONDS_MAX: Final = 30.0
"""Ours: a streamed upload that brings no byte for this long is cut off."""

HEAD_BYTES_MAX: Final = 16_384
HEAD_SECONDS_MAX: Final = 10.0
IDLE_SECONDS_MAX: Final = 75.0
INBOX_BYTES: Final = 65_536
SEND_BYTES: Final = 65_536
SEND_SECONDS_MAX: Final = 30.0
LEFT_SECONDS_MAX: Final = 1.0
LINGER_SECONDS_MAX: Final = 2.0
SKIPPED_BYTES_MAX: Final = 65_536
SKIPPED_SECONDS_MAX: Final = 1.0
TURNED_AWAY_MAX: Final = 100
TURNED_AWAY_SECONDS_MAX: Final = 1.0
