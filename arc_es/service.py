"""The use-cases: what callers, agents, auditors and operators can do. Knows ports only, no HTTP and no NATS."""

from __future__ import annotations

import binascii
import hashlib
import math
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import orjson
import trio

from arc_es.actors.follower import Follower
from arc_es.actors.messages import Messages
from arc_es.actors.ticker import Ticker
from arc_es.actors.turns import Ask, Turns
from arc_es.actors.waiters import Waiter, Waiters
from arc_es.codec import decode, inline_base64
from arc_es.domain.deployments import resolve_target
from arc_es.domain.errors import (
    CommandNotFound,
    DeploymentNotFound,
    KeyWindowOver,
    LeaseNotFound,
    NotImplementedHere,
    TargetNotFound,
)
from arc_es.domain.events import (
    Body,
    CommandFailed,
    CommandSucceeded,
    DeploymentDeclared,
    TargetObserved,
    TraceContext,
)
from arc_es.domain.ids import (
    OPERATOR,
    Micros,
    ResourceType,
    Target,
    command_id_from_key,
    command_id_of,
    lease_id_of,
)
from arc_es.domain.intents import Create, Lease, Release, RespondError, RespondSuccess, Tick
from arc_es.domain.limits import (
    ATTEMPTS_DEFAULT,
    EVENT_BODY_BYTES_MAX,
    IDEMPOTENCY_WINDOW,
    INLINE_BYTES_MAX,
    NAME_BYTES_MAX,
)
from arc_es.domain.queues import QueueCounts
from arc_es.domain.recorded import SERVICE, CommandKey, Decision, Principal
from arc_es.domain.state import TERMINAL, Expired, Facts, Leased, next_due
from arc_es.ports import Clock, Journal, Message, ReadModels, Row
from arc_es.wire import (
    CreateRequest,
    ErrorResponse,
    InlineBody,
    LeaseRequest,
    StorageBody,
    SuccessResponse,
    error_response,
    inline_body,
    success_response,
)

BUSY_RETRY_SECONDS: Final = 0.1
"""When a waiting agent looks again at a command that somebody else was busy with."""
POLLS_REMEMBERED_MAX: Final = 100_000
ERROR_PREVIEW_CHARS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Granted:
    """A lease that was just given: what an envelope is made from. `params_base64` is the whole body."""

    command_id: str
    facts: Facts
    target: Target
    attempt: int
    lease_id: str
    expires_at: Micros
    params_base64: str


@dataclass(frozen=True, slots=True)
class Poll:
    """When a target was last asked for work, and by which agent."""

    at: Micros
    agent: str | None


@dataclass(frozen=True, slots=True)
class Queue:
    """One target's queue with what is known of its agents."""

    counts: QueueCounts
    waiting: int
    last_poll: Poll | None


class Service:
    """One public method a use-case. All raise JournalError, Overloaded and the `Rejected` that they name."""

    def __init__(  # noqa: PLR0913 - the composition root hands over every part once
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
        self._messages = messages
        self._turns = turns
        self._waiters = waiters
        self._ticker = ticker
        self._clock = clock
        self._polls: OrderedDict[tuple[str, str], Poll] = OrderedDict()
        self._long_waits: set[trio.CancelScope] = set()
        self._draining = False

    # --- callers

    async def create(
        self, request: CreateRequest, by: Principal, trace: TraceContext | None = None
    ) -> tuple[str, Row]:
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
        body, beside = _stored(request.params)
        key = request.idempotency_key
        intent = Create(
            deployment_id=request.deployment_id,
            command=request.command,
            target=target,
            delivery="pull",
            params=body,
            deadline=request.deadline,
            idempotency_key=key,
            params_digest=None if key is None else _params_digest(request.params),
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

    async def _create_with_key(
        self, intent: Create, key: str, by: Principal, beside: bytes | None
    ) -> tuple[str, Row]:
        """Equal keys meet at one command id; after the window of one command the next has another id."""
        scope = (intent.deployment_id, intent.target.resource_id, intent.command, key)
        holder = self._models.idempotency.holder(*scope)
        row = None if holder is None else self._models.status.get(holder)
        free = row is not None and self._clock.now() >= row.state.facts.created_at + IDEMPOTENCY_WINDOW
        if holder is not None and not free:
            command_id = holder
        else:
            command_id = command_id_from_key(*scope, holder)
        while True:
            ask = Ask(command_id, intent.deployment_id, intent, by, beside, "params")
            try:
                return command_id, await self._turns.perform(ask)
            except KeyWindowOver:
                command_id = command_id_from_key(*scope, command_id)

    async def status(self, command_id: str, wait_seconds: float = 0, by: Principal | None = None) -> Row:
        """The command as it is now, or as soon as it is terminal, at the latest after `wait_seconds`.

        Raises:
            CommandNotFound: unknown id.
        """
        row = await self._current(command_id)
        if wait_seconds and not isinstance(row.state, TERMINAL):
            with self._long_wait(trio.current_time() + wait_seconds):
                while not isinstance(row.state, TERMINAL):
                    await self._follower.changed(_key(command_id, row))
                    row = self._row(command_id)
        return row

    def find(self, command_id: str) -> Row:
        """The row of a command, as far as applied. Raises CommandNotFound."""
        return self._row(command_id)

    def peek(self, command_id: str) -> Row | None:
        """The row of a command, None if there is none: for checks that come before existence."""
        return self._models.status.get(command_id)

    async def _current(self, command_id: str) -> Row:
        """The row, after what is overdue has been applied."""
        row = self._row(command_id)
        due_at = next_due(row.state)
        if due_at is None or due_at > self._clock.now():
            return row
        ask = Ask(command_id, row.state.facts.route.deployment_id, Tick(), SERVICE)
        return await self._turns.perform(ask)

    def _row(self, command_id: str) -> Row:
        row = self._models.status.get(command_id)
        if row is None:
            raise CommandNotFound
        return row

    def target_of(self, facts: Facts) -> Target:
        """The target of a command with the type that is known of it by now."""
        route = facts.route
        resource_type = route.target_type or self.type_of(route.deployment_id, route.target_id)
        return Target(route.target_id, resource_type or "worker")

    def type_of(self, deployment_id: str, target_id: str) -> ResourceType | None:
        """The type of a target, None while nobody has said."""
        return self._models.deployments.type_of(deployment_id, target_id)

    async def params(self, row: Row) -> dict[str, object]:
        """The params as a BodySpec."""
        facts = row.state.facts
        if facts.params_place is None:
            return {"mode": "storage", "size": facts.params_size}
        position = row.params_at - (facts.params_place == "message")
        payload = await self._messages.get(position)
        return inline_body(_base64_of(facts.params_place == "message", payload))

    async def answer(self, row: Row) -> dict[str, object] | None:
        """The accepted answer as a CommandResponse; None in EXPIRED and in every state that is not terminal."""
        if not isinstance(row.state, TERMINAL) or isinstance(row.state, Expired):
            return None
        event = decode(await self._messages.get(row.answer_at)).events[-1]
        if isinstance(event, CommandSucceeded):
            body = event.response
            if body.place == "event":
                return success_response(inline_body(body.base64 or ""))
            payload = await self._messages.get(row.answer_at - 1)
            return success_response(inline_body(_base64_of(True, payload)))
        if not isinstance(event, CommandFailed):
            raise AssertionError(f"the answer of a command is a {type(event).__name__}")
        if event.body is not None:
            whole = orjson.loads(await self._messages.get(row.answer_at - 1))
            return error_response(whole["code"], whole["message"], whole.get("details"))
        return error_response(event.code, event.message, event.details)

    # --- receivers

    async def lease(self, request: LeaseRequest, by: Principal) -> list[Granted]:
        """Take up to `leases_max` commands; with `wait_seconds` wait for the first one.

        A target that does not exist, has another type, or is pushed to gives an empty list (`arc.v1` 2.4).
        """
        deadline = trio.current_time() + request.wait_seconds
        if request.leases_max == 0:
            return []
        if not await self._may_lease(request, by):
            with self._long_wait(deadline):
                await trio.sleep(math.inf)
            return []
        self._note_poll(request)
        await self._ticker.tick_due(self._clock.now())
        granted, _ = await self._try_lease(request, by, [])
        if granted or not request.wait_seconds:
            return granted
        return await self._lease_when_possible(request, by, deadline)

    async def _lease_when_possible(self, request: LeaseRequest, by: Principal, deadline: float) -> list[Granted]:
        target_id = request.target.resource_id if request.target else None
        waiter = self._waiters.join(request.deployment_id, target_id)
        wake_at = deadline
        try:
            while trio.current_time() < deadline and not self._draining:
                with self._long_wait(wake_at):
                    await waiter.woken.wait()
                granted, busy = await self._try_lease(request, by, _emptied(waiter))
                if granted:
                    return granted
                wake_at = min(deadline, trio.current_time() + BUSY_RETRY_SECONDS) if busy else deadline
                self._waiters.rejoin(waiter)
        finally:
            self._waiters.leave(waiter)
            self._waiters.give_back(_emptied(waiter))
            self._note_poll(request)
        return []

    async def _try_lease(
        self, request: LeaseRequest, by: Principal, taken: list[str]
    ) -> tuple[list[Granted], bool]:
        """Grant what was handed over and what else is leasable, until there are enough or there is no more.

        Also says whether some commands could not be had because somebody else was busy with them.
        """
        granted: list[Granted] = []
        reserved: list[str] = []
        target_id = request.target.resource_id if request.target else None
        try:
            while (wanted := request.leases_max - len(granted)) > 0:
                missing = wanted - len(taken)
                if missing > 0:
                    now = self._clock.now()
                    taken += self._models.pending.take(request.deployment_id, target_id, missing, now)
                if not taken:
                    break
                reserved += taken
                trying, taken = taken, []
                granted += await self._grant(request, by, trying)
        finally:
            self._waiters.give_back([*reserved, *taken])  # what was leased has left the queue and stays out
        return granted, len(granted) < len(reserved)

    async def _grant(self, request: LeaseRequest, by: Principal, taken: Sequence[str]) -> list[Granted]:
        asks = [self._lease_ask(command_id, request, by) for command_id in taken]
        rows = await self._turns.perform_each(asks)
        leased = [
            (ask, row, row.state)
            for ask, row in zip(asks, rows, strict=True)
            if row is not None
            and isinstance(row.state, Leased)
            and isinstance(ask.intent, Lease)
            and row.state.lease_id == ask.intent.lease_id
        ]
        places = [row.params_at - (state.facts.params_place == "message") for _, row, state in leased]
        payloads = await self._messages.get_many(places)
        return [
            Granted(
                ask.command_id,
                state.facts,
                self.target_of(state.facts),
                state.attempt,
                state.lease_id,
                state.expires_at,
                _base64_of(state.facts.params_place == "message", payload),
            )
            for (ask, _, state), payload in zip(leased, payloads, strict=True)
        ]

    def _lease_ask(self, command_id: str, request: LeaseRequest, by: Principal) -> Ask:
        facts = self._row(command_id).state.facts
        resource_type = self.target_of(facts).resource_type or "worker"
        intent = Lease(
            lease_id=lease_id_of(uuid.uuid4()),
            seconds=request.lease_seconds,
            target_type=resource_type,
            agent=request.agent,
        )
        return Ask(command_id, request.deployment_id, intent, by)

    async def _may_lease(self, request: LeaseRequest, by: Principal) -> bool:
        """Whether the target can be leased from; fixes the type of a target that had none yet (`arc.v1` 4.6)."""
        target = request.target
        if len(request.deployment_id.encode()) > NAME_BYTES_MAX or not request.deployment_id:
            return False
        if target is None:
            return True
        if target.resource_id == OPERATOR:
            return target.resource_type == "daemon"
        if not target.resource_id or ":" in target.resource_id or len(target.resource_id.encode()) > NAME_BYTES_MAX:
            return False
        deployment = self._models.deployments.get(request.deployment_id)
        if deployment.declared is not None:
            declared = deployment.declared_target(target.resource_id)
            return (
                declared is not None
                and declared.resource_type == target.resource_type
                and declared.delivery == "pull"
            )
        if target.resource_id not in deployment.observed and target.resource_type is not None:
            seen = TargetObserved(resource_id=target.resource_id, resource_type=target.resource_type)
            await self._turns.perform_deployment(request.deployment_id, seen, by)
            deployment = self._models.deployments.get(request.deployment_id)
        return deployment.observed.get(target.resource_id) == target.resource_type

    def _note_poll(self, request: LeaseRequest) -> None:
        if request.target is None:
            return
        name = (request.deployment_id, request.target.resource_id)
        self._polls[name] = Poll(self._clock.now(), request.agent)
        self._polls.move_to_end(name)
        if len(self._polls) > POLLS_REMEMBERED_MAX:
            self._polls.popitem(last=False)

    async def release(self, lease_id: str, by: Principal) -> None:
        """Give a lease back. Raises LeaseNotFound."""
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
            intent, beside = _respond_error(response)
            await self._turns.perform(Ask(command_id, deployment_id, intent, by, beside, "response"))
            return
        if isinstance(response.response, StorageBody) or len(response.response.raw) > INLINE_BYTES_MAX:
            if isinstance(row.state, TERMINAL):
                return
            raise NotImplementedHere("Responses above 150000 bytes are not supported by this version")
        body, beside = _stored(response.response)
        success = RespondSuccess(response=body)
        await self._turns.perform(Ask(command_id, deployment_id, success, by, beside, "response"))

    # --- auditors and operators

    async def history(self, command_id: str) -> list[tuple[Message, Decision]]:
        """Everything that ever happened to a command, in order. Raises CommandNotFound."""
        row = self._row(command_id)
        messages = await self._journal.history(_key(command_id, row))
        return [(message, decode(message.payload)) for message in messages]

    def queues(self) -> list[Queue]:
        """All queues, with their agents."""
        return [
            Queue(
                counts,
                self._waiters.waiting(counts.deployment_id, counts.target_id),
                self._polls.get((counts.deployment_id, counts.target_id)),
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
        self._draining = True
        for scope in self._long_waits:
            scope.cancel()

    @contextmanager
    def _long_wait(self, deadline: float) -> Iterator[None]:
        """A scope that ends at the deadline (of trio's clock), or when the service drains."""
        with trio.CancelScope(deadline=-math.inf if self._draining else deadline) as scope:
            self._long_waits.add(scope)
            try:
                yield
            finally:
                self._long_waits.discard(scope)

    def now(self) -> Micros:
        """The service's own clock, the only one that decides."""
        return self._clock.now()


def _key(command_id: str, row: Row) -> CommandKey:
    return CommandKey(row.state.facts.route.deployment_id, command_id)


def _emptied(waiter: Waiter) -> list[str]:
    handed, waiter.handed = waiter.handed, []
    return handed


def _stored(body: InlineBody) -> tuple[Body, bytes | None]:
    """How a body is stored, and the bytes that go beside the event if they do not go inside."""
    size = len(body.raw)
    if size > INLINE_BYTES_MAX:
        raise NotImplementedHere("Bodies above 150000 bytes are not supported by this version")
    sha256 = hashlib.sha256(body.raw).hexdigest()
    if size <= EVENT_BODY_BYTES_MAX:
        return Body(place="event", size=size, sha256=sha256, base64=body.base64), None
    return Body(place="message", size=size, sha256=sha256), body.raw


def _params_digest(body: InlineBody) -> str:
    """What is compared when an idempotency key comes again: the mode and the bytes (`arc.v1` 4.5)."""
    return hashlib.sha256(b"inline\0" + body.raw).hexdigest()


def _respond_error(response: ErrorResponse) -> tuple[RespondError, bytes | None]:
    whole = {"code": response.code, "message": response.message}
    if response.details is not None:
        whole["details"] = response.details
    raw = orjson.dumps(whole)
    sha256 = hashlib.sha256(raw).hexdigest()
    if len(raw) <= EVENT_BODY_BYTES_MAX:
        short = RespondError(
            code=response.code, message=response.message, details=response.details, sha256=sha256, size=len(raw)
        )
        return short, None
    intent = RespondError(
        code=response.code[:ERROR_PREVIEW_CHARS],
        message=response.message[:ERROR_PREVIEW_CHARS],
        details=None,
        sha256=sha256,
        size=len(raw),
        body=Body(place="message", size=len(raw), sha256=sha256),
    )
    return intent, raw


def _base64_of(raw: bool, payload: bytes) -> str:
    """The base64 text of a body that is a message of its own (raw), or lies in an event."""
    if raw:
        return binascii.b2a_base64(payload, newline=False).decode()
    return inline_base64(payload)
