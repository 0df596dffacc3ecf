"""`arc-es find`: commands by what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from arc_es.cli.options import DEFAULT_SERVER, Json, Server, ask
from arc_es.cli.output import print_json, print_table

if TYPE_CHECKING:
    from arc_es.client import ArcClient

PAGE_COMMANDS: Final = 1_000
_GROUP: Final = Group("Which commands", sort_key=10)
_COLUMNS: Final = ("created", "command id", "deployment", "target", "command", "state", "attempt", "agent", "error")


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True, slots=True)
class Filters:
    """Which commands; all that is given must be so."""

    deployment: Annotated[str | None, Parameter(help="Of this deployment.")] = None
    target: Annotated[str | None, Parameter(help="For the target with this id.")] = None
    command: Annotated[str | None, Parameter(help="With this name.")] = None
    state: Annotated[str | None, Parameter(help="In this state, such as PENDING or FAILED.")] = None
    origin: Annotated[
        str | None, Parameter(help="FAILED because of: agent, attempts, delivery, cancel or storage.")
    ] = None
    redriven: Annotated[bool | None, Parameter(help="Only what was redriven, or was not.")] = None
    label: Annotated[tuple[str, ...], Parameter(help="With this KEY:VALUE; may be repeated.", negative="")] = ()
    since: Annotated[str | None, Parameter(help="Created at this RFC 3339 time or later.")] = None
    until: Annotated[str | None, Parameter(help="Created before this RFC 3339 time.")] = None
    as_of: Annotated[str | None, Parameter(help="As it was then: a sequence number or an RFC 3339 time.")] = None

    def query(self) -> dict[str, str | Sequence[str]]:
        """As `GET /commands` takes them."""
        given: dict[str, str | Sequence[str] | None] = {
            "deploymentId": self.deployment,
            "target": self.target,
            "command": self.command,
            "state": self.state,
            "origin": self.origin,
            "redriven": None if self.redriven is None else str(self.redriven).lower(),
            "label": self.label or None,
            "createdAfter": self.since,
            "createdBefore": self.until,
            "asOf": self.as_of,
        }
        return {name: value for name, value in given.items() if value is not None}


ALL: Final = Filters()


def find(
    *,
    filters: Filters = ALL,
    limit: Annotated[int, Parameter(validator=Number(gte=1))] = 100,
    oldest_first: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> int:
    """List commands of any age, the newest first, as far as the token covers them; as they are, or were at a moment.

    For example:

        arc-es find --deployment dep-7 --since 2026-11-17T00:00:00Z --until 2026-11-18T00:00:00Z

        arc-es find --target indexer --state FAILED --json | jq -r .commandId

        arc-es find --target indexer --state PENDING --as-of 2026-11-17T14:02:00Z

    Args:
        filters: Which ones.
        limit: At most so many.
        oldest_first: The oldest first.
        json: One JSON object a line, for each command.
        server: Which service.
    """
    query = {**filters.query(), "order": "asc" if oldest_first else "desc"}
    found = ask(server, "find", lambda client: _pages(client, query, limit))
    if json:
        for summary in found:
            print_json(summary)
    else:
        print_table(_COLUMNS, map(_row, found), empty="No such command.", wrap=("deployment", "command", "error"))
    return 0


async def _pages(client: ArcClient, query: dict[str, str | Sequence[str]], limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < limit:
        page = await client.find({**query, "limit": str(min(PAGE_COMMANDS, limit - len(found)))})
        found += page["commands"]
        if "nextCursor" not in page:
            break
        query = {**query, "cursor": page["nextCursor"]}
    return found


def _row(summary: dict[str, Any]) -> tuple[str, ...]:
    error = summary.get("error")
    return (
        summary["createdAt"],
        summary["commandId"],
        summary["deploymentId"],
        summary["target"]["resourceId"],
        summary["command"],
        summary["state"],
        str(summary["attempt"]),
        summary.get("agent", ""),
        "" if error is None else f"{error['code']}: {error['message']}",
    )
