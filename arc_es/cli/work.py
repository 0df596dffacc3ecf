"""`arc-es work`: a worker out of any program."""

from __future__ import annotations

import shlex
import shutil
from functools import partial
from typing import Annotated, Final

from cyclopts import Parameter
from cyclopts.validators import Number

from arc_es import __version__
from arc_es.cli.options import DEFAULT_SERVER, EXIT_USAGE, CommandFailure, Json, Server, parse_target, run_trio

LEASE_SECONDS_MIN: Final = 10
"""A program is stopped some seconds before the lease ends; a shorter lease could hardly run one."""
LEASE_SECONDS_MAX: Final = 43_200
CONCURRENCY_MAX: Final = 1_000


def work(  # noqa: PLR0913 - one parameter an option
    deployment: str,
    target: str,
    /,
    *program: str,
    exec_: Annotated[str | None, Parameter(name="--exec")] = None,
    concurrency: Annotated[int, Parameter(validator=Number(gte=1, lte=CONCURRENCY_MAX))] = 1,
    lease_seconds: Annotated[int, Parameter(validator=Number(gte=LEASE_SECONDS_MIN, lte=LEASE_SECONDS_MAX))] = 60,
    timeout: Annotated[float | None, Parameter(validator=Number(gt=0))] = None,
    drain_seconds: Annotated[float, Parameter(validator=Number(gte=0))] = 30.0,
    once: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> int:
    """Take commands and run a program for each.

    The program gets the params on stdin; what it prints to stdout is the result. An exit status other than 0 makes an
    error answer, code EXIT_n, with the end of stderr as message. It finds ARC_COMMAND, ARC_COMMAND_ID,
    ARC_DEPLOYMENT, ARC_ATTEMPT and ARC_DEADLINE in its environment, but no token of ours. At ARC_DEADLINE (the end of
    --timeout, or the command's deadline) it and its children are stopped: answer HANDLER_TIMEOUT. They are also
    stopped when somebody cancels the command.

    The service gives a command to somebody else when it has heard nothing of us for --lease-seconds. A program with a
    longer --timeout is kept alive by renewals meanwhile; without one it has to end within the lease.

    SIGTERM or Ctrl-C: no new commands; running programs may finish within --drain-seconds; the rest is stopped and its
    commands are given back. A second signal does not wait. A restart of the service is waited for.

    For example:

        arc-es work demo greeter -- sh -c 'tr a-z A-Z'

        arc-es work demo indexer:container --concurrency 4 --timeout 600 -- ./handle.py

        arc-es work demo greeter --once --exec "jq '{hello: .name}'"

    Args:
        deployment: Whose commands.
        target: ID, or ID:TYPE with the type worker, container or daemon (default daemon).
        program: The program and its arguments, after --.
        exec_: The same as one text, which is split as a shell splits words (no shell runs it).
        concurrency: Programs at the same time.
        lease_seconds: After how long without a sign of us a command goes to somebody else; 10 to 43200.
        timeout: How many seconds a program may take; default: 5 less than the lease.
        drain_seconds: How long running programs may go on after a signal.
        once: Take one command, answer it, leave; exit status 1 if the program failed.
        json: Print one JSON object for each command that ends here.
        server: Which service.
    """
    program = _program(program, exec_)
    from arc_es.cli.worker import ProgramWorker
    from arc_es.client.job import margin_seconds

    worker = ProgramWorker(program, once, json)
    return run_trio(
        partial(
            worker.work,
            server,
            lease_seconds - margin_seconds(lease_seconds) if timeout is None else timeout,
            deployment=deployment,
            target=parse_target(target),
            concurrency=1 if once else concurrency,
            lease_seconds=lease_seconds,
            drain_seconds=drain_seconds,
            agent={"version": __version__},
        )
    )


def _program(given: tuple[str, ...], text: str | None) -> tuple[str, ...]:
    """The program and its arguments, from after `--` or from one text. Raises CommandFailure."""
    if given and text is not None:
        raise CommandFailure("give the program after --, or with --exec, not both", exit_status=EXIT_USAGE)
    try:
        words = given if text is None else tuple(shlex.split(text))
    except ValueError as error:
        raise CommandFailure(f"--exec cannot be split into words: {error}", exit_status=EXIT_USAGE) from error
    if not words:
        advice = "say what to run: arc-es work DEPLOYMENT TARGET -- PROGRAM ARGS"
        raise CommandFailure("no program given", advice=advice, exit_status=EXIT_USAGE)
    if shutil.which(words[0]) is None:
        advice = "check the name, and that it may be executed"
        raise CommandFailure(f"there is no program {words[0]!r}", advice=advice, exit_status=EXIT_USAGE)
    return words
