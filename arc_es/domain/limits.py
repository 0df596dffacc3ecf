"""Every number that bounds what a client or an operator can do, in one place; docs/reference/limits.md is made from it.

Source: `arc.v1` section 0, unless a text begins with "Ours". A text says first what is bounded, and after "Above it:"
what happens then. Limits that are settings are the defaults in `arc_es/config.py`. Numbers that only tune one algorithm
(pauses between tries, sizes of pages and groups) stay beside it.
"""

from typing import Final

SECOND: Final = 1_000_000
"""One second in the unit of all domain times, microseconds."""

# --- Bodies

INLINE_BYTES_MAX: Final = 150_000
"""Largest body, in raw bytes, that travels inside JSON answers. Above it: it is kept in the body store."""
EVENT_BODY_BYTES_MAX: Final = 4_096
"""Largest body, in raw bytes, stored inside an event (design section 3). Above it: it is a message beside the event."""
REQUEST_BODY_BYTES_MAX: Final = 2 * 1024 * 1024
"""JSON request body. Above it: 413, before the rest is read."""
BATCH_BODY_BYTES_MAX: Final = 32 * 1024 * 1024
"""JSON request body of a batch of creates, and of a lease request, which may bring answers (extensions). Above it: 413,
before the rest is read."""
ENTRIES_MAX: Final = 1_000
"""Commands of a batch of creates, answers and renewals of a lease request, each (extensions). Above it: 413."""
STORAGE_BYTES_MAX: Final = 100 * 1024 * 1024
"""Body of an upload to `/storage`. Above it: 413; with a Content-Length before anything is read."""
REQUEST_BODIES_BYTES_MAX: Final = 256 * 1024 * 1024
"""Ours: request bodies in memory at the same time. Above it: 503 OVERLOADED, before anything is read."""
UPLOAD_BUFFER_BYTES: Final = 1024 * 1024
"""Ours: what one streamed upload counts in that sum, whatever its length."""
CACHE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Ours: bodies kept in memory after use. Above it: the one used longest ago is read from the journal next time."""
FINISHED_IN_MEMORY_MAX: Final = 100_000
"""Ours: ended commands kept in memory. Above it: the one that ended first is read from the journal when asked for."""

AS_OF_MESSAGES_MAX: Final = 1_000_000
"""Ours: messages between the nearest snapshot and a moment of the past that queues are asked for. Above it: 422."""

# --- Requests

HEAD_BYTES_MAX: Final = 16 * 1024
"""Ours: request line and headers. Above it: 431 REQUEST_HEADER_TOO_LARGE, and the connection ends."""
HEAD_SECONDS_MAX: Final = 10.0
"""Ours: from the first byte of a request head, or the opening of the connection, to the end of the head. Above it: 408,
and the connection ends."""
SLOW_REQUEST_SECONDS_MAX: Final = 30.0
"""Ours: from the first look at a JSON body to its end. Above it: 408, and the connection ends."""
TRANSFER_GRACE_SECONDS: Final = 30.0
"""Ours: after that much time of waiting for its client, an upload must have kept up `TRANSFER_BYTES_PER_SECOND_MIN`."""
TRANSFER_BYTES_PER_SECOND_MIN: Final = 1_024
"""Ours: slowest upload, on average. Below it: 408, and the connection ends."""
TRANSFER_STALL_SECONDS_MAX: Final = 30.0
"""Ours: time in which an upload may bring nothing. Above it: 408, and the connection ends."""
INBOX_BYTES: Final = 64 * 1024
"""Ours: bytes of a request body that wait for its handler. Above it: no more is read from the connection."""
SKIPPED_BYTES_MAX: Final = 64 * 1024
"""Ours: request body that no handler wanted and that is read nevertheless, to keep the connection. Above it: the
connection ends with the answer."""
SKIPPED_SECONDS_MAX: Final = 1.0
"""Ours: time for reading such a body. Above it: the connection ends with the answer."""
ECHO_CHARS_MAX: Final = 1_000
"""Ours: message and details of an error answer, in characters; they may quote what was sent. Above it: cut."""
PRINCIPAL_CHARS_MAX: Final = 256
"""Ours: User-Agent and X-Request-Id as recorded in events, in characters. Above it: cut."""

# --- Connections

WORKERS_MAX: Final = 64
"""Ours: processes of one service (`workers`). Above it: refused at start."""
CONNECTIONS_MAX: Final = 15_000
"""Ours: connections at the same time. Above it: 503 OVERLOADED at once, and the connection ends."""
TURNED_AWAY_MAX: Final = 100
"""Ours: connections above that number that are being answered at the same time. Above it: closed without an answer."""
TURNED_AWAY_SECONDS_MAX: Final = 1.0
"""Ours: time to take that answer. Above it: the connection ends."""
OTHER_FILES_MAX: Final = 500
"""Ours: files kept free beside the connections of clients. Above it: a warning at start."""
IDLE_SECONDS_MAX: Final = 75.0
"""Ours: time between two requests on one connection. Above it: the connection ends."""
SEND_BYTES: Final = 64 * 1024
SEND_SECONDS_MAX: Final = 30.0
"""Ours: time in which a client must take `SEND_BYTES` of an answer. Above it: the connection ends."""
LEFT_SECONDS_MAX: Final = 1.0
"""Ours: time to tidy up after a client that has left; what is being stored is stored. Above it: the rest is dropped."""
LINGER_SECONDS_MAX: Final = 2.0
"""Ours: time that a client has to take the last answer of a connection. Above it: the connection ends."""

# --- Load

WAITERS_MAX: Final = 12_000
"""Ours: lease calls that wait at the same time. Above it: 503 OVERLOADED."""
WAITERS_PER_TARGET_MAX: Final = 10_000
"""Ours: lease calls that wait for the same target. Above it: 429 OVERLOADED."""
ACTORS_MAX: Final = 20_000
"""Ours: commands being changed at the same time. Above it: 503 OVERLOADED, before anything is written."""
REQUESTS_PER_COMMAND_MAX: Final = 1_000
"""Ours: requests that wait to change the same command. Above it: 503 OVERLOADED, before anything is written."""
APPENDS_QUEUED_MAX: Final = 10_000
"""Ours: decisions that wait for the journal. Above it: 503 JOURNAL_UNAVAILABLE, before anything is written."""
APPENDS_QUEUED_BYTES_MAX: Final = 256 * 1024 * 1024
"""Ours: their bytes. Above it: 503 JOURNAL_UNAVAILABLE, before anything is written."""
APPEND_SECONDS_MAX: Final = 10.0
"""Ours: time to record a decision. Above it: 503 JOURNAL_UNAVAILABLE."""
PUSHES_MAX: Final = 256
"""Ours: pushes under way, of all targets. Above it: commands wait."""
PUSHES_PER_TARGET_MAX: Final = 8
"""Ours: pushes under way to one target. Above it: its commands wait."""

# --- Controls

CONCURRENT_MAX: Final = 1_000_000
"""Ours: commands of one target at once that a limit may allow. Above it: clamped."""
REASON_CHARS_MAX: Final = 1_000
"""Ours: why deliveries are paused, in characters. Above it: cut."""

# --- The feed

FEED_READERS_MAX: Final = 200
"""Ours: readers of the live feed at the same time. Above it: 503 OVERLOADED."""
FEED_RING_BYTES_MAX: Final = 16 * 1024 * 1024
"""Ours: recent events kept for all live readers together. Above it: the oldest is read from the journal; the feed of
a reader that was up to date and fell so far behind ends."""
FEED_PAGE_EVENTS_MAX: Final = 1_000
"""Events of one page of the feed (extensions). Above it: clamped."""
FEED_PAGE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Ours: size of one such page. Above it: it ends early."""
FEED_SCAN_MAX: Final = 5_000
"""Ours: decisions looked at for one such page, whether they are wanted or not. Above it: it ends early."""
FEED_SILENCE_SECONDS_MAX: Final = 15.0
"""Longest silence of a live feed (extensions). Above it: a comment line is sent."""
FEED_PAUSE_SECONDS: Final = 0.05
"""Ours: pause of a live reader before it looks for more. Below it: events are sent together."""

# --- Names and texts

NAME_BYTES_MAX: Final = 1_024
"""deploymentId, targetResourceId, command and idempotencyKey, each, in UTF-8. Above it: 400."""
ERROR_TEXT_BYTES_MAX: Final = 150_000
"""code, message and details of an error response, in UTF-8. Above it: the rest is cut."""
LABELS_MAX: Final = 32
"""Labels of a command (extensions). Above it: 400 INVALID_COMMAND."""
LABEL_KEY_BYTES_MAX: Final = 64
"""Key of a label (extensions). Above it: 400 INVALID_COMMAND."""
LABEL_VALUE_BYTES_MAX: Final = 256
"""Value of a label (extensions). Above it: 400 INVALID_COMMAND."""
PRIORITY_MAX: Final = 100
"""Priority, to both sides of 0 (extensions). Above it: 422."""

# --- Leases and time

IDEMPOTENCY_WINDOW: Final = 86_400 * SECOND
"""Time after its creation in which an idempotency key finds a command, in microseconds."""
UPLOAD_WINDOW: Final = 86_400 * SECOND
"""Time to upload params, in microseconds. Above it: the command is EXPIRED."""
LEASE_COUNT_DEFAULT: Final = 1
LEASE_COUNT_MAX: Final = 1_000
"""Leases of one call. Above it: clamped."""
LEASE_SECONDS_DEFAULT: Final = 60
LEASE_SECONDS_MIN: Final = 1
LEASE_SECONDS_MAX: Final = 43_200
"""Length of a lease. Above it: clamped."""
RELEASE_DELAY_SECONDS_MAX: Final = 43_200
"""Ours: rest that a holder may ask for when it gives a command back. Above it: clamped."""
CANCEL_REASON_BYTES_MAX: Final = 1_024
"""Ours: reason of a cancellation, in UTF-8. Above it: the rest is cut."""
ERASE_REASON_BYTES_MAX: Final = 1_024
"""Ours: reason of an erasure, in UTF-8. Above it: the rest is cut."""
WAIT_SECONDS_MAX: Final = 60
"""How long a call may wait for something to happen (extensions). Above it: clamped."""
ATTEMPTS_DEFAULT: Final = 20
ATTEMPTS_MAX: Final = 1_000
"""Ours: attempts that may be set for a command, so that its history stays below `DECISIONS_MAX`. Above it: clamped."""
PUSH_SECONDS_MAX: Final = 10
"""How long one push may take, from connecting to the status of the answer. Above it: its result is unclear."""
DELIVERY_LEASE_EXTRA_SECONDS: Final = 60
WORKER_TIMEOUT_SECONDS_DEFAULT: Final = 180

# --- Histories and declarations

RENEWALS_PER_LEASE_MAX: Final = 5_000
"""Ours: renewals of one lease. Above it: it is not renewed again."""
LATE_RESPONSES_MAX: Final = 16
"""Ours: different late responses of one command that are recorded. Above it: only acknowledged."""
DECISIONS_MAX: Final = 100_000
"""Ours: messages of one command, a guard against runaway writers. Above it: the stream refuses."""
TARGETS_PER_DEPLOYMENT_MAX: Final = 10_000
"""Ours: targets of a declaration, and targets an undeclared deployment may come to know by use. Above it: refused."""

# --- Tokens and keys

NAMES_PER_TOKEN_MAX: Final = 200
"""Ours: deployments, and targets, that one token may name. Above it: 422."""
TOKEN_SECONDS_MAX: Final = 100 * 366 * 86_400
"""Ours: life of a token that has an end. Above it: clamped."""
TOKEN_LOOK_SECONDS: Final = 0.1
"""Ours: pause between two looks at the journal for tokens that this node does not know. Below it: the request waits."""
PUSH_TOKEN_CHARS_MAX: Final = 8_192
"""Ours: bearer token of a push target. Above it: 422."""
URL_SECONDS_MAX: Final = LEASE_SECONDS_MAX + 900
"""Life of the longest signed URL; so long a key that was replaced goes on verifying. Above it: its URLs are refused."""
