"""`arc-es queues`: what waits where."""

from __future__ import annotations

from typing import Any

from arc_es.cli.options import DEFAULT_SERVER, Json, Server, ask
from arc_es.cli.output import print_json, print_table

_COLUMNS = ("deployment", "target", "pending", "delayed", "leased", "oldest", "waiting", "last poll", "last agent")


def queues(*, json: Json = False, server: Server = DEFAULT_SERVER) -> int:
    """Show what waits, per deployment and target.

    oldest: how long the first one has been waiting. waiting: receivers that are asking for work right now.

    For example:

        arc-es queues

        arc-es queues --json | jq '.queues[] | select(.pending > 100)'

    Args:
        json: Print the answer of the service as it is.
        server: Which service.
    """
    answer = ask(server, "queues", lambda client: client.queues())
    if json:
        print_json(answer)
    else:
        rows = (_row(queue) for queue in answer["queues"])
        print_table(
            _COLUMNS, rows, empty="No queue has ever had a command.", wrap=("deployment", "target", "last agent")
        )
    return 0


def _row(queue: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(queue["deploymentId"]),
        _target(queue["target"]),
        str(queue["pending"]),
        str(queue.get("delayed", 0)),
        str(queue.get("leased", 0)),
        _age(queue.get("oldestPendingSeconds")),
        str(queue.get("waiting", 0)),
        str(queue.get("lastPollAt", "")),
        str(queue.get("lastAgent", "")),
    )


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
