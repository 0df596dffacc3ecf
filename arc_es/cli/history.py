"""`arc-es history`: everything that happened to one command."""

from __future__ import annotations

import json as json_text
import re
from typing import Any, Final

from arc_es.cli.options import DEFAULT_SERVER, Json, Server, ask
from arc_es.cli.output import print_json, print_table

_COLUMNS = ("seq", "at", "event", "by", "data")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_DIGEST_CHARS: Final = 12


def history(command_id: str, /, *, json: Json = False, server: Server = DEFAULT_SERVER) -> int:
    """Show everything that happened to a command, in order.

    Every creation, lease, renewal, release, expiry and answer is a stored event, with who caused it and when.

    For example:

        arc-es history cmd_3b1f6a52-6c1d-4f0e-9a55-0d3a1f2b7c11

        arc-es history cmd_3b1f6a52-6c1d-4f0e-9a55-0d3a1f2b7c11 --json | jq '.events[].type'

    Args:
        command_id: As printed by arc-es call --no-wait.
        json: Print the answer of the service as it is.
        server: Which service.
    """
    answer = ask(server, "history", lambda client: client.events(command_id))
    if json:
        print_json(answer)
    else:
        print_table(_COLUMNS, (_row(event) for event in answer["events"]), empty="No events.", wrap=("by", "data"))
    return 0


def _row(event: dict[str, Any]) -> tuple[str, ...]:
    by = event.get("by") or {}
    who = str(by.get("id") or by.get("kind") or "")
    if by.get("address"):
        who += f" @ {by['address']}"
    data = event.get("data") or {}
    return str(event.get("seq", "")), str(event.get("at", "")), str(event.get("type", "")), who, _data(data)


def _data(data: dict[str, Any]) -> str:
    return " ".join(f"{name}={_value(value)}" for name, value in data.items())


def _value(value: Any) -> str:
    """For people: digests shortened, bodies as size and digest. All of it is in --json."""
    if isinstance(value, str):
        return f"{value[:_DIGEST_CHARS]}\u2026" if _DIGEST.fullmatch(value) else value
    if isinstance(value, dict) and "sha256" in value:
        return f"{value.get('size', '?')}B:{_value(value['sha256'])}"
    return json_text.dumps(value, ensure_ascii=False, separators=(",", ":"))
