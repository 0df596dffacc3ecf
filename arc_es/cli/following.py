"""What `events` and `history` share: events as lines, and following the feed through whatever breaks meanwhile."""

from __future__ import annotations

import json as json_text
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from arc_es.cli.options import failure_of
from arc_es.cli.output import complain, printable

if TYPE_CHECKING:
    from arc_es.client import ArcClient

RECONNECT_SECONDS: Final = 1.0
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_DIGEST_CHARS: Final = 12
_COLUMNS: Final = {"seq": 8, "at": 27, "event": 18, "deployment": 12, "command": 40, "by": 24}
Follow = Annotated[bool, Parameter(negative="")]
Event = dict[str, Any]
Show = Callable[[Event], None]


async def follow_feed(client: ArcClient, after: int, filters: Mapping[str, str], show: Callable[[Event], bool]) -> None:
    """Show all events after a position, and then what happens, each once, until `show` says that it has seen enough.

    Raises:
        CommandFailure: the service cannot be reached at first, or refuses.
    """
    import trio

    from arc_es.client import ArcError

    reached = complained = False
    while True:
        try:
            async with client.feed(after, filters) as decisions, aclosing(decisions):
                reached, complained = True, False
                async for decision in decisions:
                    enough = [show(event) for event in decision.events]
                    if any(enough):
                        return
                    after = decision.position
        except ArcError as error:
            if not error.retryable or not reached:
                raise failure_of(error) from error
            if not complained:
                complain(str(error), advice="will go on as soon as it is back")
            complained = True
        await trio.sleep(RECONNECT_SECONDS)


# --- events as text


def shower(*, json: bool) -> Show:
    """What prints one event a line, as JSON or, under a heading, for people."""
    if json:
        return _show_json
    print(_line(_COLUMNS, "data"), flush=True)
    return _show_line


def _show_json(event: Event) -> None:
    print(json_text.dumps(event, ensure_ascii=False), flush=True)


def _show_line(event: Event) -> None:
    shown = (event["seq"], event["at"], event["type"], event.get("deploymentId", ""), event.get("commandId", ""))
    print(_line([*map(str, shown), who(event)], data_text(event.get("data") or {})), flush=True)


def _line(cells: Iterable[str], last: str) -> str:
    padded = [printable(cell).ljust(width) for cell, width in zip(cells, _COLUMNS.values(), strict=True)]
    return "  ".join([*padded, printable(last)]).replace("\n", " ").rstrip()


def who(event: Event) -> str:
    """Who caused an event, and from where."""
    by = event.get("by") or {}
    found = str(by.get("id") or by.get("kind") or "")
    return f"{found} @ {by['address']}" if by.get("address") else found


def data_text(data: Mapping[str, Any]) -> str:
    """What an event says, on one line."""
    return " ".join(f"{name}={_value(value)}" for name, value in data.items())


def _value(value: Any) -> str:
    """For people: digests shortened, bodies as size and digest. All of it is in --json."""
    if isinstance(value, str):
        return f"{value[:_DIGEST_CHARS]}\u2026" if _DIGEST.fullmatch(value) else value
    if isinstance(value, dict) and "sha256" in value:
        return f"{value.get('size', '?')}B:{_value(value['sha256'])}"
    return json_text.dumps(value, ensure_ascii=False, separators=(",", ":"))
