"""`arc-es history`: everything that happened to one command."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

from arc_es.cli.following import Event, Follow, data_text, follow_feed, shower, who
from arc_es.cli.options import DEFAULT_SERVER, Json, Server, ask, failure_of, run_trio
from arc_es.cli.output import print_json, print_table

_COLUMNS = ("seq", "at", "event", "by", "data")
_ENDS: Final = frozenset({"CommandSucceeded", "CommandFailed", "CommandExpired"})


def history(command_id: str, /, *, follow: Follow = False, json: Json = False, server: Server = DEFAULT_SERVER) -> int:
    """Show everything that happened to a command, in order.

    Every creation, lease, renewal, release, expiry and answer is a stored event, with who caused it and when. With
    --follow it goes on with what happens, until the command has ended, or Ctrl-C.

    For example:

        arc-es history cmd_3b1f6a52-6c1d-4f0e-9a55-0d3a1f2b7c11

        arc-es history cmd_3b1f6a52-6c1d-4f0e-9a55-0d3a1f2b7c11 --json | jq '.events[].type'

        arc-es history cmd_3b1f6a52-6c1d-4f0e-9a55-0d3a1f2b7c11 --follow

    Args:
        command_id: As printed by arc-es call --no-wait.
        follow: Go on until the command has ended.
        json: Print the answer of the service as it is; with --follow one JSON object a line, for each event.
        server: Which service.
    """
    if follow:
        with suppress(KeyboardInterrupt):
            run_trio(_follow, server, command_id, json)
        return 0
    answer = ask(server, "history", lambda client: client.events(command_id))
    if json:
        print_json(answer)
    else:
        print_table(_COLUMNS, (_row(event) for event in answer["events"]), empty="No events.", wrap=("by", "data"))
    return 0


async def _follow(server: Server, command_id: str, json: bool) -> None:  # noqa: FBT001 - trio.run has no keywords
    from arc_es.client import ArcError

    async with server.client("history") as client:
        try:
            past = (await client.events(command_id))["events"]
        except ArcError as error:
            raise failure_of(error) from error
        show = shower(json=json)

        def shows_end(event: Event) -> bool:
            show(event)
            return event["type"] in _ENDS

        ends = [shows_end(event) for event in past]
        if not any(ends):
            await follow_feed(client, past[-1]["seq"], {"commandId": command_id}, shows_end)


def _row(event: dict[str, Any]) -> tuple[str, ...]:
    data = data_text(event.get("data") or {})
    return str(event.get("seq", "")), str(event.get("at", "")), str(event.get("type", "")), who(event), data
