"""The stream that the journal needs: made if it is absent, compared if it is there, changed only in its size."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from arc_es.domain.limits import DECISIONS_MAX
from arc_es.journal.subjects import ALL, STREAM
from arc_es.nats_bridge import Bridge
from arc_es.ports import JournalMismatch, JournalUnavailable

SERVER_PAYLOAD_BYTES_MIN: Final = 3 * 1024 * 1024
DUPLICATE_WINDOW_SECONDS: Final = 120
NANOSECONDS: Final = 1_000_000_000
STREAM_NOT_FOUND: Final = 10059
STREAM_NAME_IN_USE: Final = 10058
SETTABLE: Final = "max_bytes"
"""The one field that may be changed after the stream was made."""
METADATA: Final = {"arc_es.schema": "1", "arc_es.owner": "arc_es"}

log = logging.getLogger("arc_es.nats")


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


@dataclass(frozen=True, slots=True)
class Difference:
    """A field of the stream that is not as wanted."""

    field: str
    found: object
    wanted: object

    def __str__(self) -> str:
        return f"{self.field} is {self.found!r}, wanted {self.wanted!r}"


async def api(bridge: Bridge, subject: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Ask the JetStream API. The answer may be an `error` object. Raises JournalUnavailable."""
    (message,) = await bridge.ask([(f"$JS.API.{subject}", orjson.dumps(body) if body else b"")])
    answer: dict[str, Any] = orjson.loads(message.data)
    return answer


def error_number(answer: Mapping[str, Any]) -> int:
    """The number of the error in an API answer, 0 if there is none."""
    error = answer.get("error")
    return 0 if error is None else int(error.get("err_code") or error["code"])


async def compare_stream(bridge: Bridge, settings: StreamSettings) -> list[Difference] | None:
    """How the stream differs from the settings, but in its size, which is set; None if there is no stream.

    Raises:
        JournalUnavailable: JetStream cannot be reached.
    """
    found = await _look(bridge)
    return None if found is None else _differences(found["config"], settings)


async def ensure_stream(bridge: Bridge, settings: StreamSettings | None = None) -> None:
    """Create the stream if it is absent, else see that it is as wanted, and as large as wanted.

    Raises:
        JournalMismatch: the stream or the server is not as this version needs it.
        JournalUnavailable: JetStream cannot be reached.
    """
    settings = settings or StreamSettings()
    check_server(bridge)
    found = await _look(bridge)
    if found is None:
        answer = await api(bridge, f"STREAM.CREATE.{STREAM}", settings.config())
        if error_number(answer) not in (0, STREAM_NAME_IN_USE):  # in use: another node was faster
            raise JournalUnavailable(f"The stream cannot be made: {answer['error'].get('description')}")
        found = await _look(bridge)
        if found is None:
            raise JournalUnavailable("The stream that was made is not there yet")
    if differences := _differences(found["config"], settings):
        raise JournalMismatch(
            f"The stream {STREAM} is not as this version needs it: {'; '.join(map(str, differences))}."
            " Nothing was changed."
        )
    if found["config"][SETTABLE] != settings.max_bytes:
        await _resize(bridge, found, settings.max_bytes)


async def _look(bridge: Bridge) -> dict[str, Any] | None:
    answer = await api(bridge, f"STREAM.INFO.{STREAM}")
    if error_number(answer) == STREAM_NOT_FOUND:
        return None
    if error_number(answer):
        raise JournalUnavailable(f"The stream cannot be looked at: {answer['error'].get('description')}")
    return answer


def _differences(found: Mapping[str, Any], settings: StreamSettings) -> list[Difference]:
    differences = []
    for name, wanted in settings.config().items():
        have = found.get(name, type(wanted)())
        if name == "metadata":
            have = {key: value for key, value in have.items() if key in METADATA}  # the server adds its own
        elif name == "compression":
            have = have or "none"
        if have != wanted and name != SETTABLE:
            differences.append(Difference(name, have, wanted))
    return differences


async def _resize(bridge: Bridge, found: Mapping[str, Any], max_bytes: int) -> None:
    """Give the stream another size, never one below what it holds: its events stay, but nothing could end any more."""
    used, before = found["state"]["bytes"], found["config"][SETTABLE]
    if -1 < max_bytes < used:
        raise JournalMismatch(
            f"stream_bytes_max is {max_bytes}, but the stream {STREAM} holds {used} bytes already. Nothing was changed."
        )
    answer = await api(bridge, f"STREAM.UPDATE.{STREAM}", {**found["config"], SETTABLE: max_bytes})
    if error_number(answer):
        raise JournalMismatch(
            f"The stream {STREAM} cannot be given {SETTABLE} {max_bytes}: {answer['error'].get('description')}."
        )
    log.warning("The stream %s now has %s %d; it was %d", STREAM, SETTABLE, max_bytes, before)


def check_server(bridge: Bridge) -> None:
    """See that the connected server takes messages as large as ours. Raises as `ensure_stream`."""
    largest = bridge.server_info().max_payload_bytes
    if largest < SERVER_PAYLOAD_BYTES_MIN:
        raise JournalMismatch(
            f"max_payload of the NATS server is {largest} bytes, wanted at least {SERVER_PAYLOAD_BYTES_MIN}:"
            " set `max_payload: 4MB` in nats.conf."
        )
