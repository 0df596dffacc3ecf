"""The use-cases: what callers, agents, auditors and operators can do. Knows ports only, no HTTP and no NATS."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final

import trio

from arc_es.actors.follower import Follower
from arc_es.actors.long_waits import LongWaits
from arc_es.actors.peers import Peers
from arc_es.actors.ticker import Ticker
from arc_es.actors.turns import Turns
from arc_es.actors.waiters import Waiters
from arc_es.archive.eraser import Eraser
from arc_es.asof import AsOf
from arc_es.bodies import (
    Answer,
    Bodies,
    Found,
    Inline,
)
from arc_es.cancellations import Cancellations
from arc_es.codec import decode
from arc_es.creating import Creating
from arc_es.declarations import resealed
from arc_es.domain.deployments import Control, Controls, Redeclare
from arc_es.domain.errors import (
    CommandNotFound,
    DeploymentNotFound,
    TargetNotFound,
)
from arc_es.domain.events import (
    CommandErased,
    DeploymentDeclared,
    TraceContext,
)
from arc_es.domain.ids import (
    OPERATOR,
    Micros,
    ResourceType,
    Target,
)
from arc_es.domain.queues import QueueCounts
from arc_es.domain.recorded import SERVICE, CommandKey, Decision, Principal
from arc_es.domain.state import TERMINAL, Facts, Leased
from arc_es.explaining import Explaining
from arc_es.feed import Feed
from arc_es.finding import Finding
from arc_es.holding import Holding
from arc_es.leasing import Granted, Leasing, Poll, target_of
from arc_es.lookup import Lookup
from arc_es.payloads import PayloadRequest, Payloads
from arc_es.ports import BodyStore, Clock, Journal, JournalError, Message, Slot
from arc_es.proof.export import Exports
from arc_es.pushing import Pushing
from arc_es.redriving import Redriving
from arc_es.responding import Responding
from arc_es.sealing import CannotUnseal, Sealer
from arc_es.settling import Settling
from arc_es.summaries import CommandIndex
from arc_es.tokens import Tokens
from arc_es.transfers import Transfers
from arc_es.views import ReadModels, Row
from arc_es.wire import (
    CreateRequest,
    ErrorResponse,
    SuccessResponse,
)
from arc_es.wire_leases import LeaseRequest

ABREAST_SECONDS_MAX: Final = 2.0
"""How long a request waits until this process knows what another one of the same service knew before."""

HELD_LOOKED_AT_MAX: Final = 10_000
"""Leases among which the oldest of each target is looked for."""

log = logging.getLogger("arc_es")


@dataclass(frozen=True, slots=True)
class Queue:
    """One target's queue with what is known of its agents."""

    counts: QueueCounts
    waiting: int
    last_poll: Poll | None
    oldest: Held | None


@dataclass(frozen=True, slots=True)
class Held:
    """The command that has been held longest, and when its agent last asked for work."""

    command_id: str
    lease: Leased
    agent_polled_at: Micros | None


class Service:
    """One public method a use-case. All raise JournalError, Overloaded and the `Rejected` that they name."""

    def __init__(  # noqa: PLR0913 - only the composition root calls it
        self,
        *,
        journal: Journal,
        models: ReadModels,
        follower: Follower,
        turns: Turns,
        waiters: Waiters,
        ticker: Ticker,
        clock: Clock,
        bodies: Bodies,
        pushing: Pushing,
        lookup: Lookup,
        index: CommandIndex,
        as_of: AsOf,
        peers: Peers,
        eraser: Eraser,
        exports: Exports | None = None,
        applied_by_others: Callable[[], int] = lambda: 0,
    ) -> None:
        self._journal = journal
        self._models = models
        self._follower = follower
        self._turns = turns
        self._clock = clock
        self._applied_by_others = applied_by_others
        self._long_waits = LongWaits()
        self._bodies = bodies
        self._pushing = pushing
        self.as_of = as_of
        self._eraser = eraser
        self._lookup = lookup
        self._responding = Responding(self._lookup, journal, turns, follower, bodies)
        self.redriving = Redriving(self._lookup, models, turns, bodies, clock)
        self._payloads = Payloads(models, turns, bodies, lookup)
        self._transfers = Transfers(self._lookup, models, turns, bodies, self._payloads)
        self.cancellations = Cancellations(models.cancelled, clock)
        self._leasing = Leasing(
            models=models,
            turns=turns,
            waiters=waiters,
            ticker=ticker,
            bodies=self._bodies,
            long_waits=self._long_waits,
            cancellations=self.cancellations,
            clock=clock,
            peers=peers,
        )
        self._peers = peers
        self._creating = Creating(
            journal=journal,
            models=models,
            turns=turns,
            bodies=bodies,
            pushing=pushing,
            lookup=lookup,
            long_waits=self._long_waits,
            clock=clock,
        )
        self.holding = Holding(self._lookup, models, turns, follower, clock)
        self.settling = Settling(self._responding, self.holding, turns, follower)
        self.feed = Feed(
            journal=journal, models=models, follower=follower, lookup=self._lookup, long_waits=self._long_waits
        )
        self.finding = Finding(index, lookup, follower, journal)
        self.explaining = Explaining(
            lookup=self._lookup, journal=journal, models=models, leasing=self._leasing, clock=clock
        )
        self.exports = exports
        self.tokens = Tokens(tokens=models.tokens, turns=turns, follower=follower, clock=clock)

    @property
    def store(self) -> BodyStore:
        """Where large bodies are; it moves their bytes itself."""
        return self._bodies.store

    # --- callers

    async def create(self, request: CreateRequest, by: Principal, trace: TraceContext | None = None) -> tuple[str, Row]:
        """Create a command, or find the one that its idempotency key names. Raises as `Creating.create`."""
        return await self._creating.create(request, by, trace)

    async def create_each(
        self, requests: Sequence[CreateRequest], by: Principal, trace: TraceContext | None = None
    ) -> list[tuple[str, Row] | Exception]:
        """Create many commands; what came of each. Raises as `Creating.create_each`."""
        return await self._creating.create_each(requests, by, trace)

    def need_room(self) -> None:
        """See that there is room for something new, and not only for what is to come to an end. Raises JournalFull."""
        self._creating.need_room()

    async def complete_upload(self, command_id: str, size: int, by: Principal) -> Row:
        """The params are uploaded, all `size` bytes of them. Raises as `Transfers.complete_upload`."""
        row = await self._transfers.complete_upload(command_id, size, by)
        return await self._creating.pushed(command_id, row)

    async def redrive(self, command_id: str, by: Principal) -> tuple[str, Row]:
        """Let a command that FAILED or EXPIRED run again as a new one, or find the one that does. As `Redriving`."""
        self.need_room()
        newest = await self.redriving.redrive(command_id, by)
        return newest, await self._creating.pushed(newest, await self.known(newest))

    async def status(self, command_id: str, wait_seconds: float = 0) -> Row:
        """The command as it is now, or as soon as it is terminal, at the latest after `wait_seconds`.

        Raises:
            CommandNotFound: unknown id.
        """
        row = await self._lookup.current_if_possible(command_id)
        if wait_seconds and not isinstance(row.state, TERMINAL):
            with self._long_waits.until(trio.current_time() + wait_seconds):
                while not isinstance(row.state, TERMINAL):
                    await self._follower.changed(_key(command_id, row))
                    row = await self._lookup.known(command_id)
        return row

    async def known(self, command_id: str) -> Row:
        """The row of a command; raises CommandNotFound only when no node has made it."""
        return await self._lookup.known(command_id)

    def peek(self, command_id: str) -> Row | None:
        """The row of a command, None if this node knows of none: for checks that come before existence."""
        return self._models.status.get(command_id)

    async def latest(self, command_id: str) -> Row | None:
        """The row of a command with all that any node has stored up to now, None if there is none."""
        return await self._lookup.latest(command_id)

    def target_of(self, facts: Facts) -> Target:
        """The target of a command with the type that is known of it by now."""
        return target_of(self._models.deployments, facts)

    def type_of(self, deployment_id: str, target_id: str) -> ResourceType | None:
        """The type of a target, None while nobody has said."""
        return self._models.deployments.type_of(deployment_id, target_id)

    async def params(self, row: Row) -> Found | None:
        """The params of a command, None if they were erased. Raises JournalError."""
        return await self._bodies.params(row)

    async def answer(self, row: Row) -> Answer | None:
        """The accepted answer; None in EXPIRED and in every state that is not terminal. Raises JournalError."""
        return await self._bodies.answer(row)

    async def erase(self, command_id: str, reason: str, by: Principal) -> tuple[Row, bool]:
        """Erase what is private about a command that has ended, and whether all of it is gone already.

        Raises:
            CommandNotFound: unknown id.
            InvalidStateTransition: it has not ended.
        """
        row = await self._lookup.current(command_id)
        key = _key(command_id, row)
        await self._eraser.erase(key, reason, by)
        return await self._lookup.known(command_id), await self._eraser.gone(key)

    async def erasure(self, command_id: str) -> tuple[Decision, CommandErased]:
        """How an erased command was erased. Raises CommandNotFound."""
        for _, decision in reversed(await self.history(command_id)):
            event = decision.events[-1]
            if isinstance(event, CommandErased):
                return decision, event
        raise CommandNotFound("It was not erased")

    # --- receivers

    async def lease(self, request: LeaseRequest, by: Principal) -> list[Granted]:
        """Take up to `leases_max` commands; with `wait_seconds` wait for the first one.

        A target that does not exist, has another type, or is pushed to gives an empty list (`arc.v1` 2.4).
        """
        return await self._leasing.lease(request, by)

    async def take_back(self, granted: Sequence[Granted]) -> None:
        """Put commands back whose lease nobody has received."""
        await self._leasing.take_back(granted)

    async def respond(self, command_id: str, response: SuccessResponse | ErrorResponse, by: Principal) -> None:
        """Answer a command; the first answer wins, later ones are recorded. Raises as `Responding.respond`."""
        await self._responding.respond(command_id, response, by)

    # --- ids that have no command

    async def store_payload(self, command_id: str, request: PayloadRequest, by: Principal) -> None:
        """Store params, an answer, or both under an id that has no command. Raises as `Payloads.store`."""
        self.need_room()
        await self._payloads.store(command_id, request, by)

    async def stored_params(self, command_id: str) -> Found | None:
        """The params stored under an id that has no command. Raises CommandNotFound."""
        return await self._payloads.params(command_id)

    async def stored_answer(self, command_id: str) -> Answer | None:
        """The answer stored under an id that has no command. Raises CommandNotFound."""
        return await self._payloads.answer(command_id)

    # --- bodies by themselves

    async def expects_upload(self, slot: Slot) -> bool:
        """Whether an upload counts. Raises as `Transfers.expects_upload`, and JournalFull unless it ends a command."""
        counts = await self._transfers.expects_upload(slot)
        if slot.kind == "params":
            self.need_room()
        return counts

    async def download(self, slot: Slot) -> Inline | str:
        """The bytes of params or of a response, or their name in the store. Raises as `Transfers.download`."""
        return await self._transfers.download(slot)

    # --- auditors and operators

    async def history(self, command_id: str) -> list[tuple[Message, Decision]]:
        """Everything that ever happened to a command, in order. Raises CommandNotFound."""
        row = await self._lookup.known(command_id)
        messages = await self._journal.history(_key(command_id, row))
        return [(message, decode(message.payload)) for message in messages]

    def queues(self) -> list[Queue]:
        """All queues, with their agents: those that are leased from, then those that are pushed to."""
        now, leasing = self._clock.now(), self._leasing
        oldest = self._oldest_leases()
        queues: list[Queue] = []
        for counts in (*self._models.pending.queues(now), *self._models.pushes.queues(now)):
            name = (counts.deployment_id, counts.target_id)
            held = oldest.get(name) if counts.leased else None
            queues.append(Queue(counts, leasing.waiting(*name), leasing.last_poll(*name), held))
        return queues

    def _oldest_leases(self) -> dict[tuple[str, str], Held]:
        """Of each target the lease that has been held longest, among the first ones that are live."""
        oldest: dict[tuple[str, str], Held] = {}
        for row in islice(self._models.status.held(), HELD_LOOKED_AT_MAX):
            state = row.state
            assert isinstance(state, Leased), "only leases are held"
            route = state.facts.route
            name = (route.deployment_id, route.target_id)
            if name not in oldest or state.leased_at < oldest[name].lease.leased_at:
                polled = state.agent and self._leasing.agent_polled_at(route.deployment_id, state.agent)
                oldest[name] = Held(row.command_id, state, polled or None)
        return oldest

    async def declare(self, deployment_id: str, declaration: DeploymentDeclared, by: Principal) -> DeploymentDeclared:
        """Declare a deployment or replace its declaration; answers what is stored."""
        self.need_room()
        await self._turns.perform_deployment(deployment_id, declaration, by)
        return self.declaration(deployment_id)

    async def control(self, deployment_id: str, intent: Control, by: Principal) -> Controls:
        """Pause or limit deliveries, or let them go on. Raises as `decide_deployment`."""
        await self._turns.perform_deployment(deployment_id, intent, by)
        return self.controls(deployment_id)

    def controls(self, deployment_id: str) -> Controls:
        """What administrators have said about the deliveries of a deployment."""
        return self._models.deployments.get(deployment_id).controls

    async def reseal(self, sealer: Sealer) -> None:
        """Write push tokens anew that were sealed under an old key, or stored in clear by the first versions.

        Whatever another node or an administrator writes meanwhile wins.
        """
        for deployment_id in self.declared_deployments():
            before = self.declaration(deployment_id)
            try:
                after = resealed(deployment_id, before, sealer)
            except CannotUnseal as error:
                log.warning("%s", error)
            else:
                await self._turns.perform_deployment(deployment_id, Redeclare(before, after), SERVICE)

    def declaration(self, deployment_id: str) -> DeploymentDeclared:
        """The declaration of a deployment. Raises DeploymentNotFound."""
        declared = self._models.deployments.get(deployment_id).declared
        if declared is None:
            raise DeploymentNotFound
        return declared

    def declared_deployments(self) -> list[str]:
        """Ids of all declared deployments."""
        return self._models.deployments.declared()

    def receiver_target(self, deployment_id: str, target_id: str) -> Target:
        """The target a discovered receiver is to lease from (`arc.v1` 2.9). Raises TargetNotFound."""
        if target_id == OPERATOR:
            return Target(OPERATOR, "daemon")
        resource_type = self._models.deployments.type_of(deployment_id, target_id)
        if resource_type in ("container", "daemon"):
            return Target(target_id, resource_type)
        if resource_type is None and self._models.deployments.get(deployment_id).declared is None:
            return Target(target_id, "daemon")
        raise TargetNotFound

    # --- the state of the service itself

    @property
    def ready(self) -> bool:
        """Whether start-up replay is done."""
        return self._follower.ready

    @property
    def journal_available(self) -> bool:
        """Whether the journal could be reached when last tried."""
        return self._journal.available

    @property
    def applied(self) -> int:
        """The position up to which everything has been applied."""
        return self._follower.applied

    async def abreast(self) -> None:
        """Wait until everything is applied that another process of this service may have answered with by now.

        Not for long, and not while the journal is away: what is known is better than no answer.
        """
        position = self._applied_by_others()
        if position > self._follower.applied and self._journal.available:
            with trio.move_on_after(ABREAST_SECONDS_MAX), suppress(JournalError):
                await self._follower.reached(position)

    def replay_progress(self) -> dict[str, float | int | None]:
        """How far the replay at start is."""
        return self._follower.progress()

    def drain(self) -> None:
        """End all long waits now, with what there is, and start no more pushes: the service is about to stop."""
        self._peers.leave()
        self._long_waits.drain()
        self._pushing.drain()

    def now(self) -> Micros:
        """The service's own clock, the only one that decides."""
        return self._clock.now()


def _key(command_id: str, row: Row) -> CommandKey:
    return CommandKey(row.state.facts.route.deployment_id, command_id)
