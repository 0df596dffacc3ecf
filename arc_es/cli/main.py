"""`arc-es`: picks the sub-command, and turns every error of a user into one line and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

from cyclopts import App, CycloptsError

from arc_es import __version__
from arc_es.cli.backup import backup, restore
from arc_es.cli.bench import bench
from arc_es.cli.call import call
from arc_es.cli.cancel import cancel
from arc_es.cli.deployments import deployments
from arc_es.cli.doctor import doctor
from arc_es.cli.erase import erase
from arc_es.cli.events import events
from arc_es.cli.explain import explain
from arc_es.cli.export import export
from arc_es.cli.find import find
from arc_es.cli.history import history
from arc_es.cli.options import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, CommandFailure
from arc_es.cli.output import complain
from arc_es.cli.queues import queues
from arc_es.cli.redrive import redrive
from arc_es.cli.replay import replay
from arc_es.cli.serve import serve
from arc_es.cli.snapshot import snapshot
from arc_es.cli.token import token
from arc_es.cli.verify import verify
from arc_es.cli.work import work

_EPILOGUE: Final = """\
Try it, in three terminals:

    arc-es serve
    arc-es work demo greeter -- sh -c 'tr a-z A-Z'
    arc-es call demo greet '{"name":"ada"}' --target greeter

Server and token come from `--url` and `--token`, or `ARC_URL` and `ARC_TOKEN`. Exit status: 0 success, 1 failure,
2 wrong usage or settings, 3 time-out, 130 Ctrl-C. More, with examples: `arc-es call --help`, and so on.
"""


def build() -> App:
    """The whole command line. Sub-commands import what is slow to import when they run."""
    app = App(
        name="arc-es",
        help="A durable remote-command service whose every transition is an event.",
        help_epilogue=_EPILOGUE,
        help_format="markdown",
        version=__version__,
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    app.command(serve, help_epilogue="")
    app.command(call, help_epilogue="", usage="Usage: arc-es call DEPLOYMENT COMMAND [JSON|-|@FILE] [OPTIONS]\n")
    app.command(work, help_epilogue="", usage="Usage: arc-es work DEPLOYMENT TARGET [OPTIONS] -- PROGRAM [ARGS...]\n")
    app.command(cancel, help_epilogue="")
    app.command(redrive, help_epilogue="", usage="Usage: arc-es redrive [COMMAND] [OPTIONS]\n")
    app.command(find, help_epilogue="")
    app.command(history, help_epilogue="")
    app.command(events, help_epilogue="")
    app.command(explain, help_epilogue="")
    app.command(queues, help_epilogue="")
    app.command(deployments)
    app.command(erase, help_epilogue="", usage="Usage: arc-es erase COMMAND-ID --reason TEXT [OPTIONS]\n")
    app.command(token)
    app.command(doctor, help_epilogue="")
    app.command(backup, help_epilogue="")
    app.command(restore, help_epilogue="")
    app.command(export, help_epilogue="", usage="Usage: arc-es export [COMMAND...] --output FILE [OPTIONS]\n")
    app.command(verify, help_epilogue="")
    app.command(snapshot)
    app.command(bench, help_epilogue="")
    app.command(replay, help_epilogue="")
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    try:
        status = build()(_decoded(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except CycloptsError as error:
        complain(_one_line(str(error)), advice="see arc-es --help")
        return EXIT_USAGE
    except CommandFailure as failure:
        complain(failure.message, advice=failure.advice)
        return failure.exit_status
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone: `arc-es queues | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return status if isinstance(status, int) else 0


def _decoded(arguments: Sequence[str]) -> list[str]:
    """Python passes bytes that are not UTF-8 on as lone surrogates, which no request can carry."""
    for argument in arguments:
        if not argument.isascii() and any("\ud800" <= char <= "\udfff" for char in argument):
            raise CommandFailure(f"{argument!r} is not UTF-8", exit_status=EXIT_USAGE)
    return list(arguments)


def _one_line(text: str) -> str:
    return " ".join(text.split())
