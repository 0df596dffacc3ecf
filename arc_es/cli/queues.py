"""`arc-es queues`: what waits where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from arc_es.cli.options import DEFAULT_SERVER, Json, Server, ask
from arc_es.cli.output import print_json, print_table

_COLUMNS_THEN: Final = ("deployment", "target", "pending", "delayed", "leased", "oldest")
_COLUMNS: Final = (*_COLUMNS_THEN, "held back", "waiting", "last poll", "last agent")
_LEASE_COLUMNS: Final = ("deployment", "target", "command", "agent", "attempt", "lease ends")
_NAMES: Final = ("deployment", "target", "last agent", "agent")
_NONE: Final = "No queue had ever had a command."


def queues(*, as_of: str | None = None, json: Json = False, server: Server = DEFAULT_SERVER) -> int:
    """Show what waits, per deployment and target, now or at any moment of the past.

    oldest: how long the first one has been waiting. held back: by a pause, a limit. waiting: receivers that ask for
    work right now. Of the past it says instead who held which command.

    For example:

        arc-es queues

        arc-es queues --as-of 2026-11-17T14:02:00Z

        arc-es queues --json | jq '.queues[] | select(.pending > 100)'

    Args:
        as_of: Sequence number or RFC 3339 time of the past. Takes seconds.
        json: Print the answer of the service as it is.
        server: Which service.
    """
    answer = ask(server, "queues", lambda client: client.queues(as_of))
    if json:
        print_json(answer)
    elif as_of is None:
        print_table(_COLUMNS, map(_row, answer["queues"]), empty=_NONE, wrap=_NAMES)
    else:
        show_then(answer["queues"])
        print(f"as of seq {answer['appliedSeq']:,}")
    return 0


def show_then(queues: Sequence[dict[str, Any]]) -> None:
    """Queues of the past as tables: what was in them, and who held what."""
    rows = (_row(queue)[: len(_COLUMNS_THEN)] for queue in queues)
    print_table(_COLUMNS_THEN, rows, empty=_NONE, wrap=_NAMES)
    leases = [
        (*_row(queue)[:2], lease["commandId"], lease.get("agent", ""), str(lease["attempt"]), lease["leaseExpiresAt"])
        for queue in queues
        for lease in queue["leases"]
    ]
    if leases:
        print()
        print_table(_LEASE_COLUMNS, leases, empty="", wrap=_NAMES)


def _row(queue: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(queue["deploymentId"]),
        _target(queue["target"]),
        str(queue["pending"]),
        str(queue.get("delayed", 0)),
        str(queue.get("leased", 0)),
        _age(queue.get("oldestPendingSeconds")),
        _held_back(queue),
        str(queue.get("waiting", 0)),
        str(queue.get("lastPollAt", "")),
        str(queue.get("lastAgent", "")),
    )


def _held_back(queue: dict[str, Any]) -> str:
    """What an administrator has said."""
    said = ("paused" if queue.get("paused") else "", f"{most} at once" if (most := queue.get("maxConcurrent")) else "")
    return ", ".join(filter(None, said))


def _target(target: dict[str, Any] | str) -> str:
    """As `arc-es work` takes it."""
    if isinstance(target, str):
        return target
    kind = target.get("resourceType")
    return f"{target['resourceId']}:{kind}" if kind else str(target["resourceId"])


def _age(seconds: float | None) -> str:
    """Two units at most: 3d 4h, 2m 5s."""
    if seconds is None:
        return ""
    left = int(seconds)
    parts: list[str] = []
    for name, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (name == "s" and not parts):
            parts.append(f"{count}{name}")
    return " ".join(parts[:2])
