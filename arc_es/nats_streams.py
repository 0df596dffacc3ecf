"""Streams of JetStream as we need them: made if absent, compared if there, never changed. And the API that says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from arc_es.nats_bridge import Bridge
from arc_es.ports import JournalUnavailable

STREAM_NOT_FOUND: Final = 10059
STREAM_NAME_IN_USE: Final = 10058
OWN_METADATA: Final = "arc_es."


async def api(bridge: Bridge, subject: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Ask the JetStream API. The answer may be an `error` object. Raises JournalUnavailable."""
    (message,) = await bridge.ask([(f"$JS.API.{subject}", orjson.dumps(body) if body else b"")])
    answer: dict[str, Any] = orjson.loads(message.data)
    return answer


def error_number(answer: Mapping[str, Any]) -> int:
    """The number of the error in an API answer, 0 if there is none."""
    error = answer.get("error")
    return 0 if error is None else int(error.get("err_code") or error["code"])


async def differences(bridge: Bridge, config: Mapping[str, Any]) -> list[str] | None:
    """How the stream of that name differs from a configuration (in the server's words); None if there is no stream.

    Raises:
        JournalUnavailable: JetStream cannot be reached.
    """
    answer = await api(bridge, f"STREAM.INFO.{config['name']}")
    if error_number(answer) == STREAM_NOT_FOUND:
        return None
    if error_number(answer):
        raise JournalUnavailable(f"The stream cannot be looked at: {answer['error'].get('description')}")
    found = answer["config"]
    found["metadata"] = {
        key: value for key, value in found.get("metadata", {}).items() if key.startswith(OWN_METADATA)
    }  # the server adds its own
    return [
        f"{name} is {have!r}, wanted {wanted!r}"
        for name, wanted in config.items()
        if (have := found.get(name, type(wanted)())) != wanted
    ]


async def make(bridge: Bridge, config: Mapping[str, Any]) -> list[str]:
    """Make the stream if it is absent; how it differs from the configuration otherwise. Raises as `differences`."""
    found = await differences(bridge, config)
    if found is None:
        answer = await api(bridge, f"STREAM.CREATE.{config['name']}", config)
        if error_number(answer) not in (0, STREAM_NAME_IN_USE):  # in use: another node was faster
            raise JournalUnavailable(f"The stream cannot be made: {answer['error'].get('description')}")
        found = await differences(bridge, config)
    return found or []
