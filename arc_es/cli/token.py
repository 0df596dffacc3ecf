"""`arc-es token`: make, list and revoke access tokens."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from arc_es.cli.options import DEFAULT_SERVER, Json, Server, ask, parse_seconds, parse_target
from arc_es.cli.output import complain, print_json, print_table

_COLUMNS: Final = ("id", "scope", "deployments", "limits", "name", "created", "expires")
_WRAP: Final = ("deployments", "limits", "name")

token: Final = App(name="token", help="Make, list and revoke access tokens. Needs the admin token.", help_epilogue="")
Scope = Literal["admin", "sender", "receiver", "auditor", "operations"]
Some = Annotated[tuple[str, ...], Parameter(negative="")]


@token.command(help_epilogue="")
def create(
    scope: Scope,
    /,
    *,
    deployment: Some = (),
    target: Some = (),
    command: str | None = None,
    ttl: str | None = None,
    name: str | None = None,
    json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> int:
    """Make a token and print it. It is shown this once.

    For example:

        arc-es token create sender --deployment shop --name checkout

        arc-es token create receiver --deployment shop --target indexer:daemon --ttl 90d > indexer.token

    Args:
        scope: What it may do: admin, sender, receiver, auditor or operations.
        deployment: Only this one; give it several times for several. All if not given.
        target: Receivers only: just this one, ID or ID:TYPE; may be given several times.
        command: Operations only: the command that it may create for the operator.
        ttl: How long it is good, such as 12h or 90d. For ever if not given.
        name: For people: whose it is, or what for.
        json: Print the answer of the service as it is.
        server: Which service.
    """
    request: dict[str, Any] = {"scope": scope, "name": name, "command": command}
    request["deployments"] = list(deployment) or None
    targets = [parse_target(one) for one in target]
    request["targets"] = [{"resourceId": one.resource_id, "resourceType": one.resource_type} for one in targets] or None
    request["ttlSeconds"] = None if ttl is None else parse_seconds(ttl)
    answer = ask(server, "token", lambda client: client.create_token(request))
    if json:
        print_json(answer)
    else:
        print(answer["token"], flush=True)
        until = f" until {answer['expiresAt']}" if "expiresAt" in answer else ""
        complain(f"token {answer['id']} is good{until}", advice="it is not shown again")
    return 0


@token.command(name="list", help_epilogue="")
def list_all(*, json: Json = False, server: Server = DEFAULT_SERVER) -> int:
    """Show all tokens that nobody revoked, without their secrets.

    For example:

        arc-es token list

    Args:
        json: Print the answer of the service as it is.
        server: Which service.
    """
    answer = ask(server, "token", lambda client: client.tokens())
    if json:
        print_json(answer)
    else:
        print_table(_COLUMNS, map(_row, answer["tokens"]), empty="No tokens.", wrap=_WRAP)
    return 0


@token.command(help_epilogue="")
def revoke(token_id: str, /, *, server: Server = DEFAULT_SERVER) -> int:
    """End a token now. Whoever uses it gets 401 from then on.

    For example:

        arc-es token revoke 4bf92f3577b34da6a3ce

    Args:
        token_id: As shown by arc-es token list.
        server: Which service.
    """
    ask(server, "token", lambda client: client.revoke_token(token_id))
    return 0


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    targets = [f"{one['resourceId']}:{one['resourceType']}" for one in entry.get("targets", [])]
    return (
        str(entry["id"]),
        str(entry["scope"]),
        " ".join(entry.get("deployments", ["all"])),
        " ".join([*targets, *([entry["command"]] if "command" in entry else [])]),
        str(entry.get("name", "")),
        str(entry["createdAt"]),
        str(entry.get("expiresAt", "never")),
    )
