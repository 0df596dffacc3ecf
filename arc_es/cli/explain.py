"""`arc-es explain`: why a command is where it is."""

from __future__ import annotations

from arc_es.cli.following import data_text
from arc_es.cli.options import DEFAULT_SERVER, Json, Server, ask
from arc_es.cli.output import print_json, print_table


def explain(command_id: str, /, *, json: Json = False, server: Server = DEFAULT_SERVER) -> int:
    """Say why a command is where it is: what it waits for and since when, who holds it, or how it ended.

    For example:

        arc-es explain cmd_3b1f6a52-6c1d-4f0e-9a55-0d3a1f2b7c11

    Args:
        command_id: As printed by arc-es call --no-wait.
        json: Print the answer of the service as it is.
        server: Which service.
    """
    answer = ask(server, "explain", lambda client: client.explain(command_id))
    if json:
        print_json(answer)
    else:
        print_table(("state", "because"), [(answer["state"], answer["because"])], empty="", wrap=("because",))
        print()
        rows = [(name, _fact(value)) for name, value in answer["facts"].items()]
        print_table(("fact", "value"), rows, empty="", wrap=("value",))
    return 0


def _fact(value: object) -> str:
    if isinstance(value, dict):
        return data_text(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
