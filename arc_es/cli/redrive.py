"""`arc-es redrive`: commands that failed or expired run again."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from arc_es.cli.find import ALL, Filters
from arc_es.cli.options import DEFAULT_SERVER, EXIT_FAILED, EXIT_USAGE, CommandFailure, Json, Server, ask
from arc_es.cli.output import complain, print_json, printable

if TYPE_CHECKING:
    from arc_es.client import ArcClient

PAGE_COMMANDS: Final = "100"


def redrive(
    command_id: str | None = None,
    /,
    *,
    filters: Filters = ALL,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> int:
    """Let a command that failed or expired run again, as a new command; or all that some filters find, oldest first.

    It is safe to repeat: a command whose newest redrive still runs, or succeeded, is not redriven again.

    For example:

        arc-es redrive cmd_3b1f6a52-6c1d-4f0e-9a55-0d3a1f2b7c11

        arc-es redrive --deployment dep-7 --origin attempts --no-redriven --dry-run

    Args:
        command_id: Only this one; prints the id of the new command.
        filters: Or these; say at least --state FAILED, --state EXPIRED or an --origin.
        dry_run: Say what would be done, and do nothing.
        json: The answer of the service as it is; with filters one JSON object a line, for each command.
        server: Which service.
    """
    if command_id is None:
        return _many(filters, dry_run=dry_run, json=json, server=server)
    if dry_run or filters != ALL:
        raise CommandFailure("give a command id, or filters", advice="see --help", exit_status=EXIT_USAGE)
    answer = ask(server, "redrive", lambda client: client.redrive(command_id))
    if json:
        print_json(answer)
    else:
        print(answer["commandId"], flush=True)
    return 0


@dataclass
class _Tally:
    """What has come of the commands so far; said on a terminal as it goes."""

    dry_run: bool
    json: bool
    counts: dict[str, int] = field(default_factory=lambda: {"new": 0, "running": 0, "refused": 0})

    def add(self, result: dict[str, Any]) -> None:
        error = result.get("error")
        kind = "refused" if error is not None else "new" if result["redriven"] else "running"
        self.counts[kind] += 1
        if self.json:
            print_json(result)
        elif error is not None:
            print(f"{result['commandId']}  refused  {printable(error['code'])}: {printable(error['message'])}")
        else:
            did = {"new": "would be redriven" if self.dry_run else "redriven as", "running": "runs already as"}[kind]
            print(f"{result['commandId']}  {did}  {result.get('redrivenAs', '')}".rstrip())

    def say(self, end: str) -> None:
        what = "would be redriven" if self.dry_run else "redriven"
        new, running, refused = self.counts.values()
        text = f"{new} {what}, {running} running or done already, {refused} refused"
        if end == "\n":
            complain(text)
        elif sys.stderr.isatty():
            print(f"\r{text} ", end="", file=sys.stderr, flush=True)


def _many(filters: Filters, *, dry_run: bool, json: bool, server: Server) -> int:
    query: dict[str, str | Sequence[str]] = {"order": "asc", "limit": PAGE_COMMANDS}
    # With an end: or what is redriven and fails again at once would come up again, and again.
    query |= {"createdBefore": datetime.now(UTC).isoformat().replace("+00:00", "Z"), **filters.query()}
    tally = _Tally(dry_run, json)

    async def all_pages(client: ArcClient) -> None:
        asked = query
        while True:
            page = await client.redrive_found(asked, dry_run=dry_run)
            for result in page["results"]:
                tally.add(result)
            tally.say("")
            if "nextCursor" not in page:
                return
            asked = {**query, "cursor": page["nextCursor"]}

    try:
        ask(server, "redrive", all_pages)
    finally:
        sys.stdout.flush()
        tally.say("\n")
    return EXIT_FAILED if tally.counts["refused"] else 0
