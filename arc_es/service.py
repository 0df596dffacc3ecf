"""The use-cases: what callers, agents, auditors and operators can do. Knows ports only, no HTTP and no NATS."""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import trio

from arc_es.actors.follower import Follower
from arc_es.actors.long_waits import LongWaits
from arc_es.actors.messages import Messages
from arc_es.actors.ticker import Ticker
from arc_es.actors.turns import Ask, Turns
from arc_es.actors.waiters import Waiters
from arc_es.bodies import Bodies, params_digest, respond_error, stored
from arc_es.codec import decode
from arc_es.domain.deployments import resolve_target
from arc_es.domain.errors import (
    CommandNotFound,
    DeploymentNotFound,
    InvalidStateTransition,
    KeyWindowOver,
    LeaseNotFound,
    NotImplementedHere,
    TargetNotFound,
)
from arc_es.domain.events import (
    DeploymentDeclared,
    TraceContext,
)
from arc_es.domain.ids import (
    OPERATOR,
    Micros,
    ResourceType,
    Target,
    command_id_from_key,
    command_id_of,
)
from arc_es.domain.intents import Create, Release, RespondSuccess, Tick
from arc_es.domain.limits import (
    ATTEMPTS_DEFAULT,
    IDEMPOTENCY_WINDOW,
    INLINE_BYTES_MAX,
)
from arc_es.domain.queues import QueueCounts
from arc_es.domain.recorded import SERVICE, CommandKey, Decision, Principal
from arc_es.domain.state import TERMINAL, Facts, next_due
from arc_es.leasing import Granted, Leasing, Poll, target_of
from arc_es.payloads import PayloadRequest, Payloads
from arc_es.ports import Clock, Journal, JournalError, Message, Overloaded, ReadModels, Row
from arc_es.wire import (
    CreateRequest,
    ErrorResponse,
    LeaseRequest,
    StorageBody,
    SuccessResponse,
)

OVERDUE_SECONDS_MAX: Final = 2.0
"""How long a status poll waits until what is overdue has been applied."""


@dataclass(frozen=True, slots=True)
class Queue:
    """One target's queue with what is known of its agents."""

    counts: QueueCounts
    waiting: int
    last_poll: Poll | None


class Service:
    """One public method a use-case. All raise JournalError, Overloaded and the `Rejected` that they name."""

    def __init__(
        self,
        *,
        journal: Journal,
        models: ReadModels,
        follower: Follower,
        messages: Messages,
        turns: Turns,
        waiters: Waiters,
        ticker: Ticker,
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._models = models
        self._follower = follower
        self._turns = turns
        self._clock = clock
        self._long_waits = LongWaits()
        self._bodies = Bodies(messages)
        self._payloads = Payloads(models=models, turns=turns, messages=messages, bodies=self._bodies)
        self._leasing = Leasing(
            models=models,
            turns=turns,
            waiters=waiters,
            ticker=ticker,
            bodies=self._bodies,
            long_waits=self._long_waits,
            clock=clock,
        )

    # --- callers

    async def create(self, request: CreateRequest, by: Principal, trace: TraceContext | None = None) -> tuple[str, Row]:
        """Create a command, or find the one that its idempotency key names.

        Raises:
            InvalidCommand, IdempotencyConflict, and those of `resolve_target`.
        """
        deployment = self._models.deployments.get(request.deployment_id)
        known = self._models.deployments.known_targets(request.deployment_id)
        target = resolve_target(deployment, known, request.target_id)
        declared = deployment.declared
        pushed = deployment.declared_target(target.resource_id)
        if pushed is not None and pushed.delivery == "push" and target.resource_id != OPERATOR:
            raise NotImplementedHere("Push delivery is not supported by this version; declare the target as pull")
        if isinstance(request.params, StorageBody):
            raise NotImplementedHere("Uploading params is not supported by this version; send them inline")
        body, beside = stored(request.params)
        key = request.idempotency_key
        intent = Create(
            deployment_id=request.deployment_id,
            command=request.command,
            target=target,
            delivery="pull",
            params=body,
            deadline=request.deadline,
            idempotency_key=key,
            params_digest=None if key is None else params_digest(request.params),
            replay_on_conflict=declared is not None and declared.idempotency_conflict == "replay",
            max_attempts=request.max_attempts or (declared.max_attempts if declared else ATTEMPTS_DEFAULT),
            retry=declared.retry if declared else None,
            priority=request.priority,
            not_before=request.not_before,
            labels=request.labels,
            trace=trace,
        )
        if key is None:
            command_id = command_id_of(uuid.uuid4())
            ask = Ask(command_id, request.deployment_id, intent, by, beside, "params")
            return command_id, await self._turns.perform(ask)
        return await self._create_with_key(intent, key, by, beside)

    async def _create_with_key(self, intent: Create, key: str, by: Principal, beside: bytes | None) -> tuple[str, Row]:
        """Equal keys meet at one command id; after the window of one command the next has another id."""
        scope = (intent.deployment_id, intent.target.resource_id, intent.command, key)
        holder = self._models.idempotency.holder(*scope)
        row = None if holder is None else self._models.status.get(holder)
        free = row is not None and self._clock.now() >= row.state.facts.created_at + IDEMPOTENCY_WINDOW
        command_id = holder if holder is not None and not free else command_id_from_key(*scope, holder)
        while True:
            ask = Ask(command_id, intent.deployment_id, intent, by, beside, "params")
            try:
                return command_id, await self._turns.perform(ask)
            except KeyWindowOver:
                command_id = command_id_from_key(*scope, command_id)

    async def status(self, command_id: str, wait_seconds: float = 0) -> Row:
        """The command as it is now, or as soon as it is terminal, at the latest after `wait_seconds`.

        Raises:
            CommandNotFound: unknown id.
        """
        row = await self._current_if_possible(command_id)
        if wait_seconds and not isinstance(row.state, TERMINAL):
            with self._long_waits.until(trio.current_time() + wait_seconds):
                while not isinstance(row.state, TERMINAL):
                    await self._follower.changed(_key(command_id, row))
                    row = self._row(command_id)
        return row

    def peek(self, command_id: str) -> Row | None:
        """The row of a command, None if there is none: for checks that come before existence."""
        return self._models.status.get(command_id)

    async def _current_if_possible(self, command_id: str) -> Row:
        """As `_current`, or as last applied while the journal has trouble: a poll that fails ends its sender's call."""
        if self._journal.available:
            with trio.move_on_after(OVERDUE_SECONDS_MAX), suppress(JournalError, Overloaded):
                return await self._current(command_id)
        return self._row(command_id)

    async def _current(self, command_id: str) -> Row:
        """The row, after what is overdue has been applied."""
        row = await self._known(command_id)
        due_at = next_due(row.state)
        if due_at is None or due_at > self._clock.now():
            return row
        ask = Ask(command_id, row.state.facts.route.deployment_id, Tick(), SERVICE)
        return await self._turns.perform(ask)

    async def _known(self, command_id: str) -> Row:
        """The row; raises CommandNotFound only when no node has made the command."""
        if self._models.status.get(command_id) is None:
            await self._follower.caught_up()  # another node may have made it a moment ago
        return self._row(command_id)

    def _row(self, command_id: str) -> Row:
        row = self._models.status.get(command_id)
        if row is None:
            raise CommandNotFound
        return row

    def target_of(self, facts: Facts) -> Target:
        """The target of a command with the type that is known of it by now."""
        return target_of(self._models.deployments, facts)

    def type_of(self, deployment_id: str, target_id: str) -> ResourceType | None:
        """The type of a target, None while nobody has said."""
        return self._models.deployments.type_of(deployment_id, target_id)

    async def params(self, row: Row) -> dict[str, object]:
        """The params as a BodySpec."""
        return await self._bodies.params(row)

    async def answer(self, row: Row) -> dict[str, object] | None:
        """The accepted answer as a CommandResponse; None in EXPIRED and in every state that is not terminal."""
        return await self._bodies.answer(row)

    # --- receivers

    async def lease(self, request: LeaseRequest, by: Principal) -> list[Granted]:
        """Take up to `leases_max` commands; with `wait_seconds` wait for the first one.

        A target that does not exist, has another type, or is pushed to gives an empty list (`arc.v1` 2.4).
        """
        return await self._leasing.lease(request, by)

    async def release(self, lease_id: str, by: Principal) -> None:
        """Give a lease back. Raises LeaseNotFound."""
        command_id = self._models.status.holder_of(lease_id)
        if command_id is None:
            await self._follower.caught_up()  # another node may have granted it a moment ago
            command_id = self._models.status.holder_of(lease_id)
        if command_id is None:
            raise LeaseNotFound
        deployment_id = self._row(command_id).state.facts.route.deployment_id
        await self._turns.perform(Ask(command_id, deployment_id, Release(lease_id=lease_id), by))

    async def respond(self, command_id: str, response: SuccessResponse | ErrorResponse, by: Principal) -> None:
        """Answer a command; the first answer wins, later ones are recorded and acknowledged.

        Raises:
            CommandNotFound: unknown id.
            InvalidStateTransition: the command was never dispatched.
        """
        row = await self._current(command_id)
        deployment_id = row.state.facts.route.deployment_id
        if isinstance(response, ErrorResponse):
            intent, beside = respond_error(response)
            await self._answered(Ask(command_id, deployment_id, intent, by, beside, "response"))
            return
        if isinstance(response.response, StorageBody) or len(response.response.raw) > INLINE_BYTES_MAX:
            if isinstance(row.state, TERMINAL):
                return
            raise NotImplementedHere("Responses above 150000 bytes are not supported by this version")
        body, beside = stored(response.response)
        success = RespondSuccess(response=body)
        await self._answered(Ask(command_id, deployment_id, success, by, beside, "response"))

    async def _answered(self, ask: Ask) -> None:
        """Accept an answer. A refusal is final for its sender, so it may not come from a state that is out of date."""
        try:
            await self._turns.perform(ask)
        except InvalidStateTransition:
            await self._follower.caught_up()  # another node may have leased the command a moment ago
            await self._turns.perform(ask)

    # --- ids that have no command

    async def store_payload(self, command_id: str, request: PayloadRequest, by: Principal) -> None:
        """Store params, an answer, or both under an id that has no command. Raises as `Payloads.store`."""
        await self._payloads.store(command_id, request, by)

    async def stored_payload(self, command_id: str) -> dict[str, object]:
        """What is stored under an id, as wire JSON. Raises CommandNotFound."""
        return await self._payloads.read(command_id)

    # --- auditors and operators

    async def history(self, command_id: str) -> list[tuple[Message, Decision]]:
        """Everything that ever happened to a command, in order. Raises CommandNotFound."""
        row = await self._known(command_id)
        messages = await self._journal.history(_key(command_id, row))
        return [(message, decode(message.payload)) for message in messages]

    def queues(self) -> list[Queue]:
        """All queues, with their agents."""
        return [
            Queue(
                counts,
                self._leasing.waiting(counts.deployment_id, counts.target_id),
                self._leasing.last_poll(counts.deployment_id, counts.target_id),
            )
            for counts in self._models.pending.queues(self._clock.now())
        ]

    async def declare(self, deployment_id: str, declaration: DeploymentDeclared, by: Principal) -> DeploymentDeclared:
        """Declare a deployment or replace its declaration; answers what is stored."""
        await self._turns.perform_deployment(deployment_id, declaration, by)
        return self.declaration(deployment_id)

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

    def replay_progress(self) -> dict[str, float | int]:
        """How far the replay at start is."""
        return self._follower.progress()

    def drain(self) -> None:
        """End all long waits now, with what there is: the service is about to stop."""
        self._long_waits.drain()

    def now(self) -> Micros:
        """The service's own clock, the only one that decides."""
        return self._clock.now()


def _key(command_id: str, row: Row) -> CommandKey:
    return CommandKey(row.state.facts.route.deployment_id, command_id)
