"""`arc-es work`: a worker out of any program."""

from __future__ import annotations

import os
import shutil
import socket
from typing import Annotated, Final

from cyclopts import Parameter
from cyclopts.validators import Number

from arc_es.cli.options import DEFAULT_SERVER, EXIT_USAGE, CommandFailure, Json, Server, parse_target, run_trio

LEASE_SECONDS_MIN: Final = 10
"""The program is stopped 5 s before the lease ends; a shorter lease could never run one."""
LEASE_SECONDS_MAX: Final = 43_200
CONCURRENCY_MAX: Final = 1_000


def work(
    deployment: str,
    target: str,
    /,
    *program: str,
    concurrency: Annotated[int, Parameter(validator=Number(gte=1, lte=CONCURRENCY_MAX))] = 1,
    lease_seconds: Annotated[int, Parameter(validator=Number(gte=LEASE_SECONDS_MIN, lte=LEASE_SECONDS_MAX))] = 60,
    drain_seconds: Annotated[float, Parameter(validator=Number(gte=0))] = 30.0,
    once: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> int:
    """Take commands and run a program for each.

    The program gets the params on stdin; what it prints to stdout is the result. An exit status other than 0 makes an
    error answer, code EXIT_n, with the end of stderr as message. It finds ARC_COMMAND, ARC_COMMAND_ID,
    ARC_DEPLOYMENT, ARC_ATTEMPT and ARC_DEADLINE in its environment, but no token of ours. At ARC_DEADLINE (the
    command's deadline, or 5 s before the lease ends) it and its children are stopped: answer HANDLER_TIMEOUT.

    SIGTERM or Ctrl-C: no new commands; running programs may finish within --drain-seconds; the rest is stopped and its
    commands are given back. A second signal does not wait. A restart of the service is waited for.

    For example:

        arc-es work demo greeter -- sh -c 'tr a-z A-Z'

        arc-es work demo indexer:container --concurrency 4 --lease-seconds 600 -- ./handle.py

        arc-es work demo greeter --once -- jq '{hello: .name}'

    Args:
        deployment: Whose commands.
        target: ID, or ID:TYPE with the type worker, container or daemon (default daemon).
        program: The program and its arguments, after --.
        concurrency: Programs at the same time.
        lease_seconds: How long a program may take, plus 5; 10 to 43200.
        drain_seconds: How long running programs may go on after a signal.
        once: Take one command, answer it, leave; exit status 1 if the program failed.
        json: Print one JSON object for each command that ends here.
        server: Which service.
    """
    if not program:
        advice = "say what to run: arc-es work DEPLOYMENT TARGET -- PROGRAM ARGS"
        raise CommandFailure("no program given", advice=advice, exit_status=EXIT_USAGE)
    if shutil.which(program[0]) is None:
        advice = "check the name, and that it may be executed"
        raise CommandFailure(f"there is no program {program[0]!r}", advice=advice, exit_status=EXIT_USAGE)
    from arc_es.cli.worker import Settings, Worker

    settings = Settings(
        deployment=deployment,
        target=parse_target(target),
        program=program,
        concurrency=1 if once else concurrency,
        lease_seconds=lease_seconds,
        drain_seconds=drain_seconds,
        once=once,
        json=json,
        agent=f"{socket.gethostname()}-{os.getpid()}",
    )

    async def main() -> int:
        async with server.client("work") as client:
            return await Worker(client, settings).run()

    return run_trio(main)
