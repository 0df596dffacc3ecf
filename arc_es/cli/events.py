"""`arc-es events`: everything that happened, to all commands, deployments and tokens; and then what happens."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter
from cyclopts.validators import Number

from arc_es.cli.following import Event, Follow, Show, follow_feed, shower
from arc_es.cli.options import DEFAULT_SERVER, EXIT_USAGE, CommandFailure, Json, Server, ask, run_trio

if TYPE_CHECKING:
    from arc_es.client import ArcClient
    from arc_es.domain.ids import Micros

PAGE_EVENTS: Final = 1_000


def events(
    *,
    follow: Follow = False,
    after: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    since: str | None = None,
    until: str | None = None,
    deployment: str | None = None,
    kind: Annotated[str | None, Parameter(name="--type")] = None,
    json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> int:
    """Show everything that happened, in order, as far as the token covers it.

    With --follow it goes on with what happens, until Ctrl-C. When the connection breaks or the service restarts it
    comes back by itself; nothing is left out, and nothing comes twice.

    For example:

        arc-es events --deployment dep-7 --type CommandLeased --since 2026-11-17T00:00:00Z --until 2026-11-18T00:00:00Z

        arc-es events --follow --json | jq -c '[.at, .type, .commandId]'

    Args:
        follow: Go on with what happens.
        after: Begin after this position (seq); 0 is the beginning.
        since: Begin with what was decided at this RFC 3339 time or later.
        until: End before what was decided at this time or later; not with --follow.
        deployment: Only of this deployment.
        kind: Only events of this type, such as CommandFailed.
        json: One JSON object a line, for each event.
        server: Which service.
    """
    end = _end(until, follow=follow)
    given = {"deploymentId": deployment, "type": kind, "since": since}
    filters = {name: value for name, value in given.items() if value is not None}
    show = shower(json=json)
    if follow:
        with suppress(KeyboardInterrupt):
            run_trio(_follow, server, after, filters, show)
    else:
        ask(server, "events", lambda client: _all(client, after, filters, end, show))
    return 0


def _end(until: str | None, *, follow: bool) -> Micros | None:
    if until is None:
        return None
    if follow:
        raise CommandFailure("--follow has no end: leave out --until", exit_status=EXIT_USAGE)
    from arc_es.wire import WireError, parse_time

    try:
        return parse_time(until, "until")
    except WireError:
        advice = "write a time such as 2026-11-18T00:00:00Z"
        raise CommandFailure(f"--until {until} is no time", advice=advice, exit_status=EXIT_USAGE) from None


async def _all(client: ArcClient, after: int, filters: Mapping[str, str], end: Micros | None, show: Show) -> None:
    from arc_es.wire import parse_time

    is_end = False
    while not is_end:
        page = await client.events_after(after, PAGE_EVENTS, filters)
        for event in page["events"]:
            if end is not None and parse_time(event["at"], "at") >= end:
                return
            show(event)
        after, is_end = page["next"], page["end"]
        filters = {name: value for name, value in filters.items() if name != "since"}  # `after` is further already


async def _follow(server: Server, after: int, filters: Mapping[str, str], show: Show) -> None:
    def show_on(event: Event) -> bool:
        show(event)
        return False

    async with server.client("events") as client:
        await follow_feed(client, after, filters, show_on)
