"""Streams of JetStream as we need them: made if absent, compared if there, changed only in size. And their API."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from arc_es.nats_bridge import Bridge
from arc_es.ports import JournalUnavailable

STREAM_NOT_FOUND: Final = 10059
STREAM_NAME_IN_USE: Final = 10058
MESSAGE_NOT_FOUND: Final = 10037
SETTABLE: Final = "max_bytes"
"""The one field that may be changed after a stream was made."""

log = logging.getLogger("arc_es.nats")


@dataclass(frozen=True, slots=True)
class Difference:
    """A field of a stream that is not as wanted."""

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


async def overwrite(bridge: Bridge, stream: str, subject: str, before: int | None = None) -> None:
    """Delete the messages of a subject before a position, None: all, one by one: only so their bytes are overwritten.

    Raises:
        JournalUnavailable: not all of it was possible now.
    """
    at = 0
    while (found := await stored_message(bridge, stream, {"seq": at + 1, "next_by_subj": subject})) is not None:
        at = int(found["seq"])
        if before is not None and at >= before:
            return
        answer = await api(bridge, f"STREAM.MSG.DELETE.{stream}", {"seq": at})
        if error_number(answer) and await stored_message(bridge, stream, {"seq": at}) is not None:
            raise JournalUnavailable(f"Message {at} cannot be deleted: {answer['error'].get('description')}")


async def stored_message(bridge: Bridge, stream: str, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """A message from a stream's leader, None if there is none. Raises JournalUnavailable."""
    answer = await api(bridge, f"STREAM.MSG.GET.{stream}", request)
    number = error_number(answer)
    if number == MESSAGE_NOT_FOUND:
        return None
    if number:
        raise JournalUnavailable(f"The stream cannot be read: {answer['error'].get('description')} ({number})")
    stored: dict[str, Any] = answer["message"]
    return stored


async def compare(bridge: Bridge, config: Mapping[str, Any]) -> list[Difference] | None:
    """How a stream differs from its configuration (in the server's words), but in its size; None if there is none.

    Raises:
        JournalUnavailable: JetStream cannot be reached.
    """
    found = await _look(bridge, config["name"])
    return None if found is None else _differences(found["config"], config)


async def ensure(bridge: Bridge, config: Mapping[str, Any], *, size_setting: str, mismatch: type[Exception]) -> None:
    """Create a stream if it is absent, else see that it is as wanted, and as large as wanted.

    Args:
        bridge: connected.
        config: in the server's words.
        size_setting: the setting that `max_bytes` comes from.
        mismatch: what to raise when the stream is not as wanted; the message says how it differs.

    Raises:
        JournalUnavailable: JetStream cannot be reached.
    """
    name = config["name"]
    found = await _look(bridge, name)
    if found is None:
        answer = await api(bridge, f"STREAM.CREATE.{name}", config)
        if error_number(answer) not in (0, STREAM_NAME_IN_USE):  # in use: another node was faster
            raise JournalUnavailable(f"The stream cannot be made: {answer['error'].get('description')}")
        found = await _look(bridge, name)
        if found is None:
            raise JournalUnavailable("The stream that was made is not there yet")
    if differences := _differences(found["config"], config):
        raise mismatch(
            f"The stream {name} is not as this version needs it: {'; '.join(map(str, differences))}."
            " Nothing was changed."
        )
    used, before, wanted = found["state"]["bytes"], found["config"][SETTABLE], config[SETTABLE]
    if before == wanted:
        return
    if -1 < wanted < used:  # what is stored stays, but nothing more could be
        raise mismatch(
            f"{size_setting} is {wanted}, but the stream {name} holds {used} bytes already. Nothing was changed."
        )
    answer = await api(bridge, f"STREAM.UPDATE.{name}", {**found["config"], SETTABLE: wanted})
    if error_number(answer):
        raise mismatch(f"The stream {name} cannot be given {SETTABLE} {wanted}: {answer['error'].get('description')}.")
    log.warning("The stream %s now has %s %d; it was %d", name, SETTABLE, wanted, before)


async def _look(bridge: Bridge, name: str) -> dict[str, Any] | None:
    answer = await api(bridge, f"STREAM.INFO.{name}")
    if error_number(answer) == STREAM_NOT_FOUND:
        return None
    if error_number(answer):
        raise JournalUnavailable(f"The stream cannot be looked at: {answer['error'].get('description')}")
    return answer


def _differences(found: Mapping[str, Any], config: Mapping[str, Any]) -> list[Difference]:
    differences = []
    for name, wanted in config.items():
        have = found.get(name, type(wanted)())
        if name == "metadata":
            have = {key: value for key, value in have.items() if key in wanted}  # the server adds its own
        elif name == "compression":
            have = have or "none"
        if have != wanted and name != SETTABLE:
            differences.append(Difference(name, have, wanted))
    return differences
