"""`arc-es cancel`: nobody wants a command any more."""

from __future__ import annotations

from arc_es.cli.options import DEFAULT_SERVER, Json, Server, ask
from arc_es.cli.output import complain, print_json


def cancel(
    command_id: str, /, *, reason: str | None = None, json: Json = False, server: Server = DEFAULT_SERVER
) -> int:
    """End a command that nobody wants any more. Safe to repeat; what has ended already stays as it is.

    An agent that holds the command learns of it from its next call.

    For example:

        arc-es cancel cmd_3b1f6a52-6c1d-4f0e-9a55-0d3a1f2b7c11 --reason "ordered twice"

    Args:
        command_id: As printed by arc-es call --no-wait.
        reason: Why; it becomes the message of the answer.
        json: Print the answer of the service, the status of the command, as it is.
        server: Which service.
    """
    answer = ask(server, "cancel", lambda client: client.cancel(command_id, reason))
    if json:
        print_json(answer)
    elif answer.get("response", {}).get("code") == "CANCELLED":
        print(f"{command_id} is cancelled", flush=True)
    else:
        complain(f"{command_id} had ended already: it is {answer['state']}")
    return 0
