"""The handler behind `arc-es work`: a program for each command, on the worker of the SDK."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, Final

from arc_es.cli.options import EXIT_FAILED, CommandFailure, Server, failure_of
from arc_es.cli.output import complain, print_json, printable
from arc_es.cli.program import OUTPUT_BYTES_MAX, Outcome, output_file, run_program
from arc_es.cli.transfers import Bars
from arc_es.client import ArcError, CommandError, Context, FileBody, Worker
from arc_es.client import Outcome as Ending
from arc_es.client.files import Moved

_OUR_SECRETS: Final = ("ARC_TOKEN", "ARC_ADMIN_TOKEN", "ARC_ADMIN_TOKEN_FILE", "ARC_SIGNING_KEY")


@dataclass(slots=True)
class ProgramWorker:
    """Runs a program for each command, and says what became of each."""

    program: tuple[str, ...]
    once: bool
    json: bool
    exit_status: int = 0
    bars: Bars = field(default_factory=Bars)

    async def work(self, server: Server, timeout_seconds: float | None, **options: Any) -> int:
        """Work until a signal, a refusal, or once; the exit status."""
        worker = self._worker(server, timeout_seconds, options)
        try:
            await worker.run(commands_max=1 if self.once else float("inf"), signals=True)
        except ArcError as error:
            failure: CommandFailure = failure_of(error)
            complain(failure.message, advice=failure.advice)
            return EXIT_FAILED
        return self.exit_status

    def _worker(self, server: Server, timeout_seconds: float | None, options: Mapping[str, Any]) -> Worker:
        worker = server.worker(
            "work", on_outcome=self._tell, on_trouble=self._note, watch=self._watch, timeout=None, **options
        )
        worker.any_command(timeout=timeout_seconds)(self.run)
        return worker

    async def run(self, params: BinaryIO, ctx: Context) -> FileBody:
        """One command: its params on stdin, its result from stdout."""
        output = ctx.until_answered.enter_context(output_file())
        try:
            outcome = await run_program(self.program, params, output, _environ(ctx))
        except OSError as error:
            raise CommandError("PROGRAM_NOT_STARTED", f"{self.program[0]}: {error.strerror}") from error
        if outcome.exit_status != 0:
            raise _failure(outcome, self.program[0])
        output.seek(0)
        return FileBody(output)

    def _watch(self, what: str, size: int | None) -> AbstractContextManager[Moved]:
        return self.bars.bar(what, size)

    def _note(self, trouble: ArcError | None) -> None:
        complain("the service answers again" if trouble is None else f"{trouble}; trying again until it works")

    def _tell(self, ending: Ending) -> None:
        if self.once and ending.result != "succeeded":
            self.exit_status = EXIT_FAILED
        if self.json:
            told = {"commandId": ending.command_id, "command": ending.command, "attempt": ending.attempt}
            more = {"code": ending.code} if ending.code else {}
            print_json({**told, "outcome": ending.result, **more, "seconds": round(ending.seconds, 3)})
            return
        why = f" ({ending.code})" if ending.code else ""
        name = printable(ending.command)
        complain(
            f"{ending.command_id} {name}, attempt {ending.attempt}: {ending.result}{why} after {ending.seconds:.1f} s"
        )


def _environ(ctx: Context) -> dict[str, str]:
    """What the program finds in its environment: ours but for our secrets, and what it is about."""
    ends_at = datetime.now(UTC) + timedelta(seconds=ctx.remaining_seconds)
    return {
        **{name: value for name, value in os.environ.items() if name not in _OUR_SECRETS},
        "ARC_COMMAND": ctx.command,
        "ARC_COMMAND_ID": ctx.command_id,
        "ARC_DEPLOYMENT": ctx.deployment,
        "ARC_ATTEMPT": str(ctx.attempt),
        "ARC_DEADLINE": ends_at.isoformat().replace("+00:00", "Z"),
    }


def _failure(outcome: Outcome, program: str) -> CommandError:
    if outcome.too_long:
        return CommandError("OUTPUT_TOO_LARGE", f"{program} printed more than {OUTPUT_BYTES_MAX} bytes")
    if outcome.unkept:
        return CommandError("OUTPUT_NOT_KEPT", f"what {program} printed could not be kept: {outcome.unkept}")
    told = outcome.stderr_tail.decode(errors="replace").strip()
    said = told or f"{program} ended with status {outcome.exit_status} and wrote nothing to stderr"
    return CommandError(f"EXIT_{outcome.exit_status}", said)
