"""`arc-es deployments`: declare deployments, and stop, limit and resume their deliveries."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
from cyclopts import App, Parameter
from cyclopts.validators import Number

from arc_es.cli.options import DEFAULT_SERVER, EXIT_USAGE, CommandFailure, Json, Server, ask
from arc_es.cli.output import print_json, print_table

_LIST_COLUMNS: Final = ("deployment", "model", "targets", "attempts", "project")
_COLUMNS: Final = ("target", "type", "delivery", "at most", "paused since", "reason")

deployments: Final = App(
    name="deployments", help="Declare deployments; pause, resume and limit their deliveries.", help_epilogue=""
)


@deployments.command(name="list", help_epilogue="")
def list_all(*, json: Json = False, server: Server = DEFAULT_SERVER) -> int:
    """Show all declared deployments.

    For example:

        arc-es deployments list

    Args:
        json: Print the answer of the service as it is.
        server: Which service.
    """
    answer = ask(server, "deployments", lambda client: client.deployments())
    if json:
        print_json(answer)
    else:
        rows = [
            (
                one["deploymentId"],
                one["model"],
                str(len(one["targets"])),
                str(one["maxAttempts"]),
                one.get("projectId", ""),
            )
            for one in answer["deployments"]
        ]
        print_table(_LIST_COLUMNS, rows, empty="No deployment is declared.", wrap=("deployment", "project"))
    return 0


@deployments.command(help_epilogue="")
def show(deployment: str, /, *, json: Json = False, server: Server = DEFAULT_SERVER) -> int:
    """Show what a deployment is declared with, and what of it is paused or limited.

    For example:

        arc-es deployments show dep-7

    Args:
        deployment: Which one; it need not be declared.
        json: Both answers of the service, as {"declaration"?, "controls"}.
        server: Which service.
    """
    from arc_es.client import ArcClient, ArcError

    async def both(client: ArcClient) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        controls = await client.controls(deployment)
        try:
            return await client.deployment(deployment), controls
        except ArcError as error:
            if error.code != "DEPLOYMENT_NOT_FOUND":
                raise
            return None, controls

    declaration, controls = ask(server, "deployments", both)
    if json:
        declared = {} if declaration is None else {"declaration": declaration}
        print_json({**declared, "controls": controls})
    else:
        _print(declaration, controls)
    return 0


@deployments.command(help_epilogue="")
def declare(deployment: str, file: str, /, *, json: Json = False, server: Server = DEFAULT_SERVER) -> int:
    """Declare a deployment, or replace its declaration. Needs the admin token.

    For example:

        arc-es deployments declare dep-7 dep-7.json

    Args:
        deployment: Which one.
        file: JSON as for PUT /v1/deployments/{id}; - for standard input.
        json: Print the answer of the service, what is stored, as it is.
        server: Which service.
    """
    try:
        declaration = orjson.loads(sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise CommandFailure(f"cannot read {file}: {error}", exit_status=EXIT_USAGE) from error
    if not isinstance(declaration, dict):
        raise CommandFailure(f"{file} is not a JSON object", exit_status=EXIT_USAGE)
    answer = ask(server, "deployments", lambda client: client.declare(deployment, declaration))
    if json:
        print_json(answer)
    else:
        print(f"{deployment} is declared with {len(answer['targets'])} targets", flush=True)
    return 0


@deployments.command(help_epilogue="")
def pause(
    deployment: str,
    /,
    *,
    target: str | None = None,
    reason: str | None = None,
    json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> int:
    """Hand out no more commands of a target, or of the whole deployment, until they resume. Needs the admin token.

    Creates are accepted, and what is held is finished. Safe to repeat.

    For example:

        arc-es deployments pause dep-7 --target indexer --reason "its database moves"

    Args:
        deployment: Which one.
        target: Only this target. All of them if not given.
        reason: For people; shown by explain.
        json: Print the answer of the service as it is.
        server: Which service.
    """
    return _control(server, deployment, "pause", {"target": target, "reason": reason}, json=json)


@deployments.command(help_epilogue="")
def resume(
    deployment: str, /, *, target: str | None = None, json: Json = False, server: Server = DEFAULT_SERVER
) -> int:
    """End a pause. Safe to repeat. Needs the admin token.

    For example:

        arc-es deployments resume dep-7 --target indexer

    Args:
        deployment: Which one.
        target: That of this target. That of the whole deployment if not given; paused targets stay paused.
        json: Print the answer of the service as it is.
        server: Which service.
    """
    return _control(server, deployment, "resume", {"target": target}, json=json)


@deployments.command(help_epilogue="")
def limit(
    deployment: str,
    target: str,
    at_most: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    /,
    *,
    json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> int:
    """Let at most so many commands of a target be leased, or pushed, at once. Needs the admin token.

    For example:

        arc-es deployments limit dep-7 indexer 4

    Args:
        deployment: Which one.
        target: Which of its targets.
        at_most: How many; without it there is no limit any more.
        json: Print the answer of the service as it is.
        server: Which service.
    """
    return _control(server, deployment, "limit", {"target": target, "maxConcurrent": at_most}, json=json)


def _control(server: Server, deployment: str, what: str, request: dict[str, Any], *, json: bool) -> int:
    answer = ask(server, "deployments", lambda client: client.control(deployment, what, request))
    if json:
        print_json(answer)
    else:
        _print(None, answer)
    return 0


def _print(declaration: dict[str, Any] | None, controls: dict[str, Any]) -> None:
    declared = {} if declaration is None else {one["resourceId"]: one for one in declaration["targets"]}
    controlled = {one["target"]: one for one in controls["targets"]}
    rows = [
        _row(name, declared.get(name, {}), controlled.get(name, {})) for name in dict.fromkeys([*declared, *controlled])
    ]
    if controls["paused"]:
        rows.insert(0, _row("(all)", {}, controls))
    print_table(_COLUMNS, rows, empty="Nothing is paused or limited.", wrap=("target", "reason"))


def _row(name: str, declared: dict[str, Any], controls: dict[str, Any]) -> tuple[str, ...]:
    return (
        name,
        declared.get("resourceType", ""),
        declared.get("delivery", ""),
        str(controls.get("maxConcurrent", "")),
        controls.get("pausedAt", ""),
        controls.get("reason", ""),
    )
