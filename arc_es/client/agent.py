"""The agent loop: which calls are made when. Runs handlers, and never makes one wait for the network.

Two tasks share the work. The poller holds a long-poll open while a place is free. The reporter sends everything else:
answers, renewals, and with them the wish for the next commands. One report is under way at a time; what comes up
meanwhile leaves with the next one. So an idle agent answers at once, and a busy one makes one call for many commands.

Leases are renewed from here, in the event loop that runs the handlers: if that hangs, its leases end. No thread renews.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from arc_es.client.client import ArcClient
from arc_es.client.context import GiveBack
from arc_es.client.errors import ArcError, BadAnswer
from arc_es.client.handlers import Handler
from arc_es.client.job import Job
from arc_es.client.lease import JsonObject, Lease
from arc_es.client.notes import Notes
from arc_es.client.outbox import Answer, Outbox
from arc_es.client.receiving import AgentAnswer
from arc_es.client.retry import Backoff
from arc_es.client.watching import Outcome, Watch
from arc_es.domain.ids import Target

RELEASE_SECONDS_MAX: Final = 3.0
CALL_SECONDS_MAX: Final = 10.0
"""For an answer, beside what it was asked to wait; and a third of the lease at most: a renewal has two tries."""
LISTEN_SECONDS: Final = 5.0
"""A busy agent, which has no long-poll open, asks this often what it holds that nobody wants any more."""
_QUICK_SECONDS: Final = 1.0
"""An empty answer that came sooner was not waited for: the service does not know waitSeconds."""
_EMPTY_PAUSE: Final = Backoff(initial_seconds=1.0, factor=1.5, max_seconds=10.0)
_TROUBLE_PAUSE: Final = Backoff(initial_seconds=0.2, max_seconds=15.0)

log = logging.getLogger("arc_es.client")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a worker was told. commands_max: after so many it takes no more."""

    deployment: str
    target: Target
    concurrency: int
    lease_seconds: int
    wait_seconds: int
    agent: JsonObject
    commands_max: float
    on_outcome: Callable[[Outcome], None]
    on_trouble: Callable[[ArcError | None], None]
    watch: Watch


class Agent:
    """Takes commands, runs handlers, answers."""

    def __init__(
        self, client: ArcClient, settings: Settings, handler_for: Callable[[str], Handler | None], notes: Notes
    ) -> None:
        self._client = client
        self._settings = settings
        self._handler_for = handler_for
        self._notes = notes
        self._jobs: dict[str, Job] = {}  # by command id: from the lease until the run has ended
        self._outbox = Outbox()
        self._busy = 0  # places taken, by handlers that run, threads of stopped ones included
        self._asked = 0  # places promised to calls under way
        self._left = settings.commands_max
        self._reporting = False
        self._heard_at = anyio.current_time()  # when the service last said what is cancelled
        self._was_heard = False  # so the URL is right, and what else answers there is a proxy in trouble
        self._changed = anyio.Event()
        self._polling = anyio.CancelScope()
        self._stopping = False
        self._failures = 0
        self._group: TaskGroup | None = None
        self._mute = False  # nobody sends answers any more
        self.refusal: ArcError | None = None

    # --- for the worker

    def begin(self, group: TaskGroup) -> None:
        """Take commands and work on them in a task group."""
        self._group = group
        group.start_soon(self._until_refused, self._poll)
        group.start_soon(self._until_refused, self._report)

    async def _until_refused(self, loop: Callable[[], Awaitable[None]]) -> None:
        """A refusal ends the loop, and with it the taking of commands (`arc.v1` 5.3)."""
        try:
            await loop()
        except ArcError as refusal:
            self.refusal = refusal
            self._mute = self._mute or loop == self._report
            self.stop()

    def stop(self) -> None:
        """Take no more commands."""
        self._stopping = True
        self._polling.cancel()
        self._change()

    def end_all(self) -> None:
        """Stop all handlers; their commands are given back."""
        for job in self._jobs.values():
            job.end("drained")

    @property
    def running(self) -> int:
        """How many commands are being worked on."""
        return len(self._jobs)

    async def stopped(self) -> None:
        """Wait until no more commands are taken."""
        while not self._stopping:
            await self._changed.wait()

    async def drained(self) -> None:
        """Wait until no command is being worked on."""
        while self._jobs:
            await self._changed.wait()

    async def answered(self) -> None:
        """Wait until all answers have been taken, or were given up."""
        while self._jobs or (self._outbox and not self._mute):
            await self._changed.wait()

    async def last_report(self) -> None:
        """Send what is left to be answered, once, and give up what is not taken then."""
        try:
            if self._outbox and not self._mute:
                await self._report_once()
        except ArcError as refusal:
            self.refusal = self.refusal or refusal
        finally:
            for one in self._outbox:
                self._settle(one, self.refusal or ArcError("the worker has ended"))

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    @property
    def _free(self) -> int:
        """How many more commands to ask for."""
        if self._stopping or len(self._outbox) > self._settings.concurrency:
            return 0
        return int(min(self._settings.concurrency - self._busy - self._asked, self._left - self._asked))

    # --- the two tasks

    async def _poll(self) -> None:
        """Hold a long-poll open while a place is free, until stopped or `commands_max` came.

        Raises:
            ArcError: the service refuses us for good.
        """
        empty = 0
        with self._polling:
            while self._left > 0:
                if self._free <= 0 or self._reporting or self._outbox:
                    await self._changed.wait()
                    continue
                asked_at = anyio.current_time()
                answer = await self._call(count=self._free, wait_seconds=self._settings.wait_seconds)
                quick = anyio.current_time() - asked_at < _QUICK_SECONDS
                empty = empty + 1 if answer and quick and not answer.leases else 0
                if empty and self._settings.wait_seconds:
                    await anyio.sleep(_EMPTY_PAUSE.delay_seconds(empty))
        self.stop()

    async def _report(self) -> None:
        """Send answers and renewals as they come up, for ever. Raises ArcError like `_poll`."""
        while True:
            call_at = self._call_at
            if not self._outbox and call_at > anyio.current_time():
                changed = self._changed
                with anyio.CancelScope(deadline=call_at):
                    await changed.wait()
                continue
            self._reporting = True
            try:
                await self._report_once()
            finally:
                self._reporting = False
                self._change()

    @property
    def _call_at(self) -> float:
        """When there is something to be said or heard, if nothing comes up before."""
        listen_at = self._heard_at + LISTEN_SECONDS if self._jobs and not self._asked else math.inf
        return min([listen_at, *(job.renew_at for job in self._jobs.values())])

    async def _report_once(self) -> None:
        answers = self._outbox.next()
        soon = anyio.current_time() + self._settings.lease_seconds / 20  # those of about the same time go together
        renew = [job for job in self._jobs.values() if job.renew_at <= soon]
        count = self._free if answers else 0
        await self._call(count=count, answers=answers, renew=renew)
        for one in self._outbox:
            if one.overdue:
                self._settle(one, ArcError("the service did not take it in time"))

    # --- one call

    async def _call(
        self,
        *,
        count: int,
        wait_seconds: int = 0,
        answers: list[Answer] | None = None,
        renew: list[Job] | None = None,
    ) -> AgentAnswer | None:
        """One call of the agent loop; None if it failed, after a rest."""
        settings, answers, renew = self._settings, answers or [], renew or []
        patience = min(CALL_SECONDS_MAX, settings.lease_seconds / 3) if not wait_seconds else CALL_SECONDS_MAX
        self._asked += count
        asked_at = anyio.current_time()
        try:
            with anyio.fail_after(wait_seconds + patience):
                found = await self._client.agent_loop(
                    settings.deployment,
                    settings.target,
                    count=count,
                    lease_seconds=settings.lease_seconds,
                    wait_seconds=wait_seconds,
                    agent=settings.agent,
                    complete=[one.completion for one in answers],
                    renew=[job.lease.lease_id for job in renew],
                )
        except (ArcError, TimeoutError) as error:
            trouble = error if isinstance(error, ArcError) else ArcError("no answer in time", retryable=True)
            if not trouble.retryable and not (self._was_heard and isinstance(trouble, BadAnswer)):
                raise trouble from error
            await self._rest(trouble)
            return None
        finally:
            self._asked -= count
        troubles = await self._take(found, answers, renew, asked_at)
        if troubles:
            await self._rest(troubles[0])
        else:
            self._well()
        return found

    async def _rest(self, trouble: ArcError) -> None:
        self._failures += 1
        if self._failures == 1:
            self._settings.on_trouble(trouble)
        await anyio.sleep(_TROUBLE_PAUSE.delay_seconds(self._failures, trouble))

    def _well(self) -> None:
        if self._failures:
            self._failures = 0
            self._settings.on_trouble(None)

    async def _take(
        self, found: AgentAnswer, answers: list[Answer], renew: list[Job], asked_at: float
    ) -> list[ArcError]:
        """Act on an answer; the errors of entries that are worth another try."""
        outcomes: list[ArcError | None] = []
        for one in answers:
            known = found.completed
            outcomes.append(known[one.command_id] if one.command_id in known else await self._submit(one))
            self._settle(one, outcomes[-1])
        outcomes += [self._renewed(job, found.renewed.get(job.lease.lease_id), asked_at) for job in renew]
        for job in self._jobs.values():
            if job.lease.lease_id in found.cancelled:
                job.end("cancelled")
        for problem in found.unreadable:
            log.warning("A lease could not be read, and will run out: %s", problem)
        self._heard_at, self._was_heard = anyio.current_time(), True
        for lease in found.leases:
            self._left -= 1
            self._start(lease, self._heard_at)
        self._change()
        return [error for error in outcomes if error is not None and error.retryable]

    async def _submit(self, one: Answer) -> ArcError | None:
        """Answer by the signed URL: the service does not know `complete`."""
        try:
            await self._client.submit(one.completion.lease.submit_url, one.completion.response)
        except ArcError as error:
            return error
        return None

    def _renewed(self, job: Job, found: datetime | ArcError | None, asked_at: float) -> ArcError | None:
        if isinstance(found, datetime):
            job.renewed(asked_at)
            return None
        if found is None:
            job.renewable = False  # the service does not know `renew`
        elif not found.retryable:
            job.end("lost")
        return found

    def _settle(self, one: Answer, error: ArcError | None) -> None:
        """An answer was taken, or refused; one that may be taken later stays."""
        if error is not None and error.retryable and not one.overdue:
            return
        self._outbox.remove(one)
        response = one.completion.response
        if error is not None:
            log.warning("The answer to %s was not taken: %s", one.command_id, error)
            self._tell(one.job, "unanswered", response.get("code"))
        else:
            self._forget(one.command_id)
            self._tell(one.job, "succeeded" if response["status"] == "success" else "failed", response.get("code"))
        self._change()

    def _forget(self, command_id: str) -> None:
        try:
            self._notes.forget(command_id)
        except OSError as error:  # no harm: it goes with age
            log.warning("The note of %s stays: %s", command_id, error)

    def _tell(self, job: Job, result: Any, code: str | None) -> None:
        lease, seconds = job.lease, anyio.current_time() - job.started_at
        told = Outcome(
            command_id=lease.command_id,
            command=lease.command,
            attempt=lease.attempt,
            result=result,
            code=code,
            seconds=seconds,
        )
        self._settings.on_outcome(told)

    # --- one command

    def _start(self, lease: Lease, received_at: float) -> None:
        """Run a lease; one of a command that this process has in hand goes back, or its answer is on its way."""
        assert self._group is not None
        if lease.command_id in self._outbox:
            return
        if lease.command_id in self._jobs or self._stopping:
            self._group.start_soon(self._release, lease)
            return
        handler = self._handler_for(lease.command)
        seconds = self._settings.lease_seconds
        job = Job(lease, handler, lease_seconds=seconds, received_at=received_at, on_life=self._change)
        self._jobs[lease.command_id] = job
        self._busy += 1
        self._group.start_soon(self._work, job)

    def _freed(self) -> None:
        self._busy -= 1
        self._change()

    async def _work(self, job: Job) -> None:
        answer: JsonObject | GiveBack | None = None
        ended = False
        try:
            answer = await job.run(self._client, self._notes, self._settings.watch, self._freed)
            ended = True
        finally:
            job.until_answered.close()
            if not ended:
                job.stop = job.stop or "drained"  # the worker itself was cancelled
            if isinstance(answer, dict):
                self._outbox.post(job, answer)
            else:
                with anyio.move_on_after(RELEASE_SECONDS_MAX, shield=True):
                    await self._let_go(job, answer)
            del self._jobs[job.lease.command_id]
            self._change()

    async def _let_go(self, job: Job, wish: GiveBack | None) -> None:
        """No answer: give the command back, unless nobody wants it."""
        if job.stop == "cancelled":
            self._forget(job.lease.command_id)
            self._tell(job, "cancelled", None)
            return
        delay_seconds = wish.delay_seconds if wish else 0
        released = await self._release(job.lease, delay_seconds)
        self._tell(job, "released" if released else "lost", None)

    async def _release(self, lease: Lease, delay_seconds: int = 0) -> bool:
        try:
            await self._client.release(lease.lease_id, delay_seconds=delay_seconds)
        except ArcError as error:  # no harm: the lease runs out
            log.info("%s was not given back: %s", lease.command_id, error)
            return False
        return True
