"""`arc-es erase`: what is private about a command goes for good."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from arc_es.cli.options import DEFAULT_SERVER, EXIT_FAILED, EXIT_USAGE, CommandFailure, Json, Server, ask
from arc_es.cli.output import complain, print_json

Yes = Annotated[bool, Parameter(negative="")]


def erase(
    command_id: str, /, *, reason: str, yes: Yes = False, json: Json = False, server: Server = DEFAULT_SERVER
) -> int:
    """Remove the bodies and personal fields of a command that has ended, for good. Needs the admin token.

    Params, answer, labels, idempotency key, error texts, and where those who asked were: all of it is overwritten.
    That there was a command, what became of it, when and by whom stays, and everything can be proved as before. Backups
    and exports that exist already are not touched.

    For example:

        arc-es erase cmd_3b1f6a52-6c1d-4f0e-9a55-0d3a1f2b7c11 --reason "asked for by the customer, case 17"

    Args:
        command_id: As printed by arc-es find or arc-es call --no-wait.
        reason: Why. It is stored for ever, so it may not name a person either.
        yes: Do not ask whether this is meant.
        json: Print the answer of the service as it is.
        server: Which service.
    """
    if not yes:
        _confirm(command_id)
    answer = ask(server, "erase", lambda client: client.erase(command_id, reason))
    if json:
        print_json(answer)
    else:
        erased = answer["erased"]
        print(f"{command_id} was erased at {erased['at']} by {erased['by']['id']}: {erased['reason']}")
        if not answer["gone"]:
            complain("not everything is gone yet", advice="the service goes on; repeat this to see whether it is done")
    return 0


def _confirm(command_id: str) -> None:
    if not sys.stdin.isatty():
        raise CommandFailure("there is nobody to ask", advice="give --yes if this is meant", exit_status=EXIT_USAGE)
    print(f"What is private about {command_id} will be gone for good. Type yes to go on: ", end="", file=sys.stderr)
    sys.stderr.flush()
    if sys.stdin.readline().strip() != "yes":
        raise CommandFailure("nothing was erased", exit_status=EXIT_FAILED)
