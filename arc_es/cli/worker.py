"""The loop behind `arc-es work`: lease, run, answer; and how it stops.

Times of the server count from the Date of its answer, on our monotonic clock: a wrong local clock does no harm.
"""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Final, TypeAlias

import trio

from arc_es import __version__
from arc_es.cli.options import EXIT_FAILED, failure_of
from arc_es.cli.output import complain, print_json, printable
from arc_es.cli.program import OUTPUT_BYTES_MAX, Outcome, output_file, run_program
from arc_es.cli.transfers import Bars
from arc_es.client import ArcClient, ArcError, Backoff, FileBody, Lease, Sink, retrying
from arc_es.domain.ids import Target

POLL_SECONDS: Final = 30
"""How long one lease call waits for a command."""
MARGIN_SECONDS: Final = 5.0
"""Left of a lease when the program is stopped: to end it and to answer (`arc.v1` 5.3)."""
SUBMIT_SECONDS_MAX: Final = 300.0
"""How long an answer is kept for a service that does not take it; first answers count also after the lease."""
RELEASE_SECONDS_MAX: Final = 3.0
_QUICK_SECONDS: Final = 1.0
"""An empty answer that came sooner was not waited for: the server does not know waitSeconds."""
_EMPTY_PAUSE: Final = Backoff(initial_seconds=1.0, factor=1.5, max_seconds=10.0)
_LEASE_BACKOFF: Final = Backoff(initial_seconds=0.3, max_seconds=15.0)
_OUR_SECRETS: Final = ("ARC_TOKEN", "ARC_ADMIN_TOKEN", "ARC_ADMIN_TOKEN_FILE", "ARC_SIGNING_KEY")

Response: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `arc-es work` was told."""

    deployment: str
    target: Target
    program: tuple[str, ...]
    concurrency: int
    lease_seconds: int
    drain_seconds: float
    once: bool
    json: bool
    agent: str


class Worker:
    """Leases commands and runs the program for each, until a signal, a fatal refusal, or once."""

    def __init__(self, client: ArcClient, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._running: set[str] = set()
        self._bars = Bars()
        self._freed = trio.Event()
        self._polling = trio.CancelScope()
        self._working = trio.CancelScope()
        self._exit_status = 0

    async def run(self) -> int:
        """Work; the exit status."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as watching:
                watching.start_soon(self._obey, signals)
                with self._working:
                    async with trio.open_nursery() as jobs:
                        with self._polling:
                            await self._lease_loop(jobs)
                watching.cancel_scope.cancel()
        return self._exit_status

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        """First signal: no new commands, and a deadline for the running ones. Second signal: now."""
        async for _ in signals:
            if self._polling.cancel_called:
                self._working.cancel()
                continue
            self._polling.cancel()
            self._working.deadline = trio.current_time() + self._settings.drain_seconds
            if self._running:
                complain(f"stopping; {len(self._running)} running, up to {self._settings.drain_seconds:g} s")

    # --- taking commands

    async def _lease_loop(self, jobs: trio.Nursery) -> None:
        empty = 0
        while True:
            free = self._settings.concurrency - len(self._running)
            if free <= 0:
                self._freed = trio.Event()
                await self._freed.wait()
                continue
            asked_at = trio.current_time()
            leases = await self._lease(free)
            if leases is None:
                return
            for lease in leases:
                await self._start(jobs, lease)
            if leases and self._settings.once:
                return
            quick = trio.current_time() - asked_at < _QUICK_SECONDS
            empty = empty + 1 if quick and not leases else 0
            if empty:
                await trio.sleep(_EMPTY_PAUSE.delay_seconds(empty))

    async def _lease(self, count: int) -> list[Lease] | None:
        """Up to `count` commands; None if the service has refused us for good."""
        failures = 0

        def note(error: ArcError, _: float) -> None:
            nonlocal failures
            failures += 1
            if failures == 1:
                complain(f"{error}; trying again until it works")

        try:
            leases = await retrying(
                lambda: self._client.lease(
                    self._settings.deployment,
                    self._settings.target,
                    count=count,
                    lease_seconds=self._settings.lease_seconds,
                    wait_seconds=POLL_SECONDS,
                    agent={"id": self._settings.agent, "version": __version__},
                ),
                backoff=_LEASE_BACKOFF,
                on_retry=note,
            )
        except ArcError as error:
            failure = failure_of(error)
            complain(failure.message, advice=failure.advice)
            self._exit_status = EXIT_FAILED
            return None
        if failures:
            complain("the service answers again")
        return leases

    async def _start(self, jobs: trio.Nursery, lease: Lease) -> None:
        if lease.command_id in self._running:  # our earlier lease ended; that run still goes on and its answer counts
            await self._release(lease)
            return
        self._running.add(lease.command_id)
        jobs.start_soon(self._job, lease, trio.current_time())

    # --- one command

    async def _job(self, lease: Lease, received_at: float) -> None:
        done = False
        try:
            with output_file() as output:
                response = await self._respond(lease, received_at, output)
            await self._submit(lease, response, trio.current_time() - received_at)
            done = True
        finally:  # not `except Cancelled`: out of a nursery it comes as a group
            if not done:
                with trio.move_on_after(RELEASE_SECONDS_MAX, shield=True):
                    await self._release(lease)
            self._running.discard(lease.command_id)
            self._freed.set()

    async def _respond(self, lease: Lease, received_at: float, output: BinaryIO) -> Response:
        """Run the program; its answer, inline or uploaded."""
        end = budget_end(lease)
        ends_at = received_at + (end - lease.server_time).total_seconds()
        try:
            with TemporaryFile() as params:
                with trio.fail_at(ends_at):
                    await self._fetch(lease, params)
                seconds, environ = ends_at - trio.current_time(), _environ(lease, end)
                outcome = await run_program(self._settings.program, params, output, environ, seconds)
        except trio.TooSlowError:
            return _error("HANDLER_TIMEOUT", "The params did not arrive in time")
        except ArcError as error:
            code = "INVALID_ENVELOPE" if lease.params.get("mode") == "inline" else "STORAGE_OPERATION_FAILED"
            return _error(code, str(error))
        except OSError as error:
            return _error("PROGRAM_NOT_STARTED", f"{self._settings.program[0]}: {error.strerror}")
        if outcome.exit_status != 0:
            return _failure(outcome, self._settings.program[0])
        return await self._success(lease, output)

    async def _fetch(self, lease: Lease, file: BinaryIO) -> None:
        """Write the params to a file, and go back to its start."""
        with self._bars.bar(f"params of {lease.command_id}", lease.params.get("size")) as moved:
            sink = Sink(file, moved)
            await retrying(lambda: self._client.save(lease.params, sink))
        file.seek(0)

    async def _success(self, lease: Lease, output: BinaryIO) -> Response:
        size = output.tell()
        output.seek(0)
        if size <= lease.inline_bytes_max:
            body: Response = {"mode": "inline", "inlineBase64": base64.b64encode(output.read()).decode()}
            return {"status": "success", "response": body}
        try:
            with self._bars.bar(f"result of {lease.command_id}", size) as moved:
                content = FileBody(output, moved)
                await self._insisting(lambda: self._client.put_object(lease.upload_request, content))
        except (ArcError, OSError) as error:
            return _error("STORAGE_OPERATION_FAILED", f"The result of {size} bytes was not taken: {error}")
        return {"status": "success", "response": {"mode": "storage", "size": size, "storagePutUsed": True}}

    async def _submit(self, lease: Lease, response: Response, seconds: float) -> None:
        outcome = "succeeded" if response["status"] == "success" else "failed"
        try:
            await self._insisting(lambda: self._client.submit(lease.submit_url, response))
        except ArcError as error:
            complain(f"the answer to {lease.command_id} was not taken: {error}")
            outcome = "unanswered"
        if self._settings.once and outcome != "succeeded":
            self._exit_status = EXIT_FAILED
        self._tell(lease, outcome, response.get("code"), seconds)

    async def _insisting(self, operation: Callable[[], Awaitable[None]]) -> None:
        """Repeat for a while: the service may be restarting. Raises the last error at the end."""
        last: ArcError | None = None

        def note(error: ArcError, _: float) -> None:
            nonlocal last
            if last is None:
                complain(f"{error}; trying again for up to {SUBMIT_SECONDS_MAX:g} s")
            last = error

        with trio.move_on_after(SUBMIT_SECONDS_MAX) as scope:
            await retrying(operation, on_retry=note)
        if scope.cancelled_caught:
            raise last or ArcError("it took too long")

    async def _release(self, lease: Lease) -> None:
        try:
            await self._client.release(lease.lease_id)
        except ArcError as error:  # no harm: the lease runs out
            complain(f"{lease.command_id} was not given back: {error}")
        else:
            self._tell(lease, "released", None, 0.0)

    def _tell(self, lease: Lease, outcome: str, code: str | None, seconds: float) -> None:
        if self._settings.json:
            told = {"commandId": lease.command_id, "command": lease.command, "attempt": lease.attempt}
            more = {"code": code} if code else {}
            print_json({**told, "outcome": outcome, **more, "seconds": round(seconds, 3)})
        else:
            why = f" ({code})" if code else ""
            name = printable(lease.command)
            complain(f"{lease.command_id} {name}, attempt {lease.attempt}: {outcome}{why} after {seconds:.1f} s")


def budget_end(lease: Lease) -> datetime:
    """When the program is stopped, by the server's clock."""
    end = lease.expires_at - timedelta(seconds=MARGIN_SECONDS)
    return end if lease.deadline is None else min(end, lease.deadline)


def _environ(lease: Lease, end: datetime) -> dict[str, str]:
    """Our environment without our secrets: a program that reads strangers' input should not hold the token."""
    kept = {name: value for name, value in os.environ.items() if name not in _OUR_SECRETS}
    return {
        **kept,
        "ARC_COMMAND_ID": lease.command_id,
        "ARC_COMMAND": lease.command.replace("\0", ""),
        "ARC_ATTEMPT": str(lease.attempt),
        "ARC_DEPLOYMENT": lease.deployment_id.replace("\0", ""),
        "ARC_DEADLINE": end.isoformat().replace("+00:00", "Z"),
    }


def _failure(outcome: Outcome, program: str) -> Response:
    if outcome.too_long:
        return _error("OUTPUT_TOO_LARGE", f"{program} printed more than {OUTPUT_BYTES_MAX} bytes")
    if outcome.unkept:
        return _error("OUTPUT_NOT_KEPT", f"what {program} printed could not be kept: {outcome.unkept}")
    if outcome.exit_status is None:
        return _error("HANDLER_TIMEOUT", f"{program} did not end in time")
    told = outcome.stderr_tail.decode(errors="replace").strip()
    said = told or f"{program} ended with status {outcome.exit_status} and wrote nothing to stderr"
    return _error(f"EXIT_{outcome.exit_status}", said)


def _error(code: str, message: str) -> Response:
    return {"status": "error", "code": code, "message": message}
