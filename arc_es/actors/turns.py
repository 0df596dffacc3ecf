"""Deciding and storing: what happens in one turn of a command or a deployment.

A turn reads the folded state, lets the pure domain decide, appends with the version it read, and waits until the
follower has applied it. Somebody else was faster: wait until their message is applied too, decide again, a bounded
number of times.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import trio

from arc_es.actors.commit import Committer
from arc_es.actors.directory import Directory
from arc_es.actors.follower import Follower
from arc_es.actors.messages import Messages
from arc_es.codec import decode_recorded, digest, encode
from arc_es.domain.decide import decide
from arc_es.domain.deployments import DeploymentIntent, decide_deployment
from arc_es.domain.errors import Rejected
from arc_es.domain.events import Body, CommandEvent, Event, LogEvent, PayloadStored, TokenEvent
from arc_es.domain.ids import Micros
from arc_es.domain.intents import Create, Intent, Tick
from arc_es.domain.payloads import NO_PAYLOAD, decide_payload
from arc_es.domain.recorded import (
    SERVICE,
    CommandKey,
    Decision,
    DeploymentKey,
    Key,
    LogKey,
    PayloadKey,
    Principal,
    TokenKey,
)
from arc_es.domain.state import State, needs_body
from arc_es.domain.tokens import decide_token
from arc_es.ports import Append, BodyKind, Clock, Conflict, Journal, JournalError, JournalUnavailable
from arc_es.randomness import token_bytes
from arc_es.views import ReadModels, Row

CONFLICTS_MAX: Final = 20
"""A turn that lost this many races in a row gives up; others are making progress all the while."""

Decide = Callable[[Micros], tuple[Principal, tuple[Event, ...], bool]]
"""By whom, which events, and whether these are all that was asked for; else there may be more to decide after them."""


class TurnTaken(Exception):
    """Somebody else has a turn of this command, and nobody wanted to wait for it. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One intent for one command, with the bytes of the body that its event will refer to, if that is a message.

    with_new: the making of a command that nobody has heard of, stored right before this, or neither is.
    """

    command_id: str
    deployment_id: str
    intent: Intent
    by: Principal
    body: bytes | None = None
    body_kind: BodyKind = "params"
    with_new: Ask | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    """One message to append for the ask at `index`; `row` and `version` are from before it."""

    index: int
    by: Principal
    events: tuple[CommandEvent, ...]
    final: bool
    version: int
    row: Row | None


class _Many:
    """Asks that are performed together, and what has come of each."""

    def __init__(self, asks: Sequence[Ask]) -> None:
        self.asks = asks
        self.keys = [CommandKey(ask.deployment_id, ask.command_id) for ask in asks]
        self.results: list[Row | Exception] = [TurnTaken()] * len(asks)
        self.stored = False


class Turns:
    """Performs intents. All writing of the service goes through here."""

    def __init__(
        self,
        journal: Journal,
        models: ReadModels,
        follower: Follower,
        messages: Messages,
        clock: Clock,
        *,
        actors_max: int,
        append_seconds_max: float,
    ) -> None:
        self._journal = journal
        self._models = models
        self._follower = follower
        self._messages = messages
        self._clock = clock
        self._committer = Committer(journal, append_seconds_max)
        self.directory = Directory(actors_max)

    @property
    def conflicts(self) -> int:
        """How many appends lost a race to another node."""
        return self._committer.conflicts

    async def perform(self, ask: Ask) -> Row:
        """Do what is asked; what is overdue on the command happens first, by the service itself.

        Raises:
            Rejected: refused; nothing of the intent was stored.
            JournalError: it could not be stored, or nobody knows (OutcomeUnknown).
            Overloaded: too much is going on; nothing was stored.
        """
        key = CommandKey(ask.deployment_id, ask.command_id)
        async with self.directory.turn(key):
            if not isinstance(ask.intent, Create):  # nearly all creates are of new commands; the others meet a Conflict
                await self.recall(key)
            await self._decided(
                key,
                lambda: self._version(ask.command_id),
                lambda now: self._next(ask, now),
                ask.body,
                ask.body_kind,
                with_new=ask.with_new,
            )
            row = await self.recall(key)
            assert row is not None, "an intent was accepted for a command that does not exist"
            return row

    async def recall(self, key: CommandKey) -> Row | None:
        """The row of a command, put back from its history if it ended so long ago that it is not in memory any more.

        None: nothing was stored of it yet. Between its return and the next checkpoint the row is in memory.

        Raises:
            JournalError: its history cannot be read.
        """
        status = self._models.status
        row = status.get(key.command_id)
        while row is None:
            status.await_row(key.command_id)
            try:
                history = await self._journal.history(key)
                if not history:
                    return None
                await self._follower.reached(history[-1].position)
                row = status.restore(key, [decode_recorded(one.position, key, one.payload) for one in history])
            finally:
                status.give_up(key.command_id)
        return row

    async def perform_deployment(self, deployment_id: str, intent: DeploymentIntent, by: Principal) -> None:
        """Declare a deployment or record a seen target. Raises as `perform`."""
        key = DeploymentKey(deployment_id)
        deployments = self._models.deployments
        async with self.directory.turn(key):
            await self._decided(
                key,
                lambda: deployments.version(deployment_id),
                lambda now: (by, decide_deployment(intent, deployments.get(deployment_id)), True),
            )

    async def perform_payload(
        self, command_id: str, intent: PayloadStored, by: Principal, body: bytes | None, body_kind: BodyKind
    ) -> None:
        """Store params or an answer under an id that has no command, with the body beside it. Raises as `perform`."""
        key = PayloadKey(command_id)
        models = self._models

        def next_of(now: Micros) -> tuple[Principal, tuple[Event, ...], bool]:
            row = models.payloads.get(command_id)
            state = NO_PAYLOAD if row is None else row.payload
            return by, decide_payload(intent, state, command_exists=models.status.get(command_id) is not None), True

        def version() -> int:
            row = models.payloads.get(command_id)
            return 0 if row is None else row.version

        async with self.directory.turn(key):
            await self._decided(key, version, next_of, body, body_kind)

    async def perform_token(self, token_id: str, intent: TokenEvent, by: Principal) -> None:
        """Make or revoke an access token. Raises as `perform`."""
        key = TokenKey(token_id)
        tokens = self._models.tokens
        async with self.directory.turn(key):
            await self._decided(
                key,
                lambda: tokens.version(token_id),
                lambda now: (by, decide_token(intent, tokens.get(token_id)), True),
            )

    async def perform_log(self, name: str, next_of: Callable[[Micros], LogEvent | None]) -> None:
        """Store what the service says about the log, as long as there is something to say. Raises as `perform`."""
        key = LogKey(name)
        checkpoints = self._models.checkpoints

        def next_events(now: Micros) -> tuple[Principal, tuple[Event, ...], bool]:
            event = next_of(now)
            return SERVICE, () if event is None else (event,), False

        async with self.directory.turn(key):
            await self._decided(key, lambda: checkpoints.version(name), next_events)

    async def perform_each(self, asks: Sequence[Ask], *, skip_busy: bool = False) -> list[Row | Exception]:
        """Do many things with one append; another one follows for those that had something overdue, or lost a race.

        Each result is the row, or why not: Rejected, JournalError, or with `skip_busy` TurnTaken. What one command is
        asked for several times happens in this order. Rows stay up to date; look at them before anything else happens.

        Raises:
            JournalError: none of it could be stored.
            Overloaded: too much is going on; nothing was stored.
        """
        many = _Many(asks)
        held: set[CommandKey] = set()
        try:
            for key in sorted(set(many.keys)):  # everybody in the same order, so that nobody waits in a circle
                if not self.directory.try_acquire(key):
                    if skip_busy:
                        continue
                    await self.directory.acquire(key)
                held.add(key)
            left = [index for index, key in enumerate(many.keys) if key in held]
            for attempt in range(CONFLICTS_MAX):
                if not left:
                    break
                left = await self._append_each(many, left, is_first=not attempt)
            for index in left:
                many.results[index] = JournalUnavailable("Too many writers at once on one command")
        finally:
            for key in held:
                self.directory.release(key)
        return many.results

    async def _append_each(self, many: _Many, left: Sequence[int], *, is_first: bool) -> list[int]:
        """Decide once for each of these and append all of it; returns those that have to be decided again."""
        now = self._clock.now()
        again, planned = await self._plan_each(many, left, now, is_first=is_first)
        if not planned:
            return again
        previous = await self._messages.get_many([plan.version for plan in planned if plan.version])
        digests = iter([digest(payload) for payload in previous])
        appends = []
        for plan in planned:
            ask, prev = many.asks[plan.index], next(digests) if plan.version else None
            decision = Decision(_new_id(), now, plan.by, plan.events, prev)
            append = self._append(many.keys[plan.index], plan.version, decision, ask.body, ask.body_kind)
            if ask.with_new is not None and plan.final:
                append = replace(append, together=(self._new(ask.with_new, now),))
            appends.append(append)
        outcomes = await self._committer.commit(appends)
        positions = [outcome for outcome in outcomes if isinstance(outcome, int)]
        if positions:
            many.stored = True
            await self._applied(max(positions))
        if any(isinstance(outcome, Conflict) for outcome in outcomes):
            await self._follower.caught_up()
        elif not many.stored and (trouble := [one for one in outcomes if isinstance(one, JournalError)]):
            raise trouble[0]
        for plan, outcome in zip(planned, outcomes, strict=True):
            if isinstance(outcome, Conflict) or (isinstance(outcome, int) and not plan.final):
                again.append(plan.index)
            elif isinstance(outcome, int):
                # One that ended by this may have left memory already: then the row from before is its last one.
                row = self._models.status.get(many.asks[plan.index].command_id) or plan.row
                assert row is not None, "an intent was accepted for a command that does not exist"
                many.results[plan.index] = row
            else:
                many.results[plan.index] = outcome
        return sorted(again)

    async def _plan_each(
        self, many: _Many, left: Sequence[int], now: Micros, *, is_first: bool
    ) -> tuple[list[int], list[_Plan]]:
        """What has to wait for another command of the same history, and what is to be stored now."""
        again: list[int] = []
        planned: list[_Plan] = []
        taken: set[CommandKey] = set()
        for index in left:
            ask, key = many.asks[index], many.keys[index]
            if key in taken:
                again.append(index)
                continue
            row = self._models.status.get(ask.command_id)
            if row is None and not (is_first and isinstance(ask.intent, Create)):
                row = await self.recall(key)
            try:
                by, events, final = self._next(ask, now)
            except Rejected as refusal:
                many.results[index] = refusal
                continue
            if events:
                taken.add(key)
                planned.append(_Plan(index, by, events, final, 0 if row is None else row.version, row))
            else:
                assert row is not None, "an intent was accepted for a command that does not exist"
                many.results[index] = row
        return again, planned

    async def _decided(
        self,
        key: Key,
        version_of: Callable[[], int],
        next_of: Decide,
        body: bytes | None = None,
        body_kind: BodyKind = "params",
        *,
        with_new: Ask | None = None,
    ) -> None:
        """Decide and append until there is nothing more to decide."""
        for attempt in range(CONFLICTS_MAX):
            if attempt and isinstance(key, CommandKey):
                await self.recall(key)
            now = self._clock.now()
            by, events, final = next_of(now)
            if not events:
                return
            version = version_of()
            previous = digest(await self._messages.get(version)) if version else None
            append = self._append(key, version, Decision(_new_id(), now, by, events, previous), body, body_kind)
            if with_new is not None and final:
                append = replace(append, together=(self._new(with_new, now),))
            outcome = (await self._committer.commit([append]))[0]
            if isinstance(outcome, int):
                await self._applied(outcome)
                if final:
                    return
            elif isinstance(outcome, Conflict):
                await self._follower.caught_up_with(key)
            else:
                raise outcome
        raise JournalUnavailable("Too many writers at once on one command")

    def _version(self, command_id: str) -> int:
        row = self._models.status.get(command_id)
        return 0 if row is None else row.version

    def _next(self, ask: Ask, now: Micros) -> tuple[Principal, tuple[CommandEvent, ...], bool]:
        """What is overdue, else what the intent makes, with who did it, and whether it is what the intent makes."""
        row = self._models.status.get(ask.command_id)
        state: State | None = None if row is None else row.state
        if state is not None and not isinstance(ask.intent, Tick):
            overdue = decide(Tick(jitter=random.random()), state, now)  # noqa: S311 - jitter, no secret
            if overdue:
                return SERVICE, overdue, False
        return ask.by, decide(ask.intent, state, now), True

    def _append(
        self,
        key: Key,
        version: int,
        decision: Decision,
        body: bytes | None = None,
        body_kind: BodyKind = "params",
    ) -> Append:
        wanted: Body | None = needs_body(decision.events[-1])
        beside = body if wanted is not None and wanted.place == "message" else None
        payload = encode(decision)
        self._follower.expect(payload, decision)
        return Append(key, version, decision.id, payload, beside, body_kind)

    def _new(self, ask: Ask, now: Micros) -> Append:
        """The first message of a command."""
        decision = Decision(_new_id(), now, ask.by, decide(ask.intent, None, now))
        return self._append(CommandKey(ask.deployment_id, ask.command_id), 0, decision, ask.body, ask.body_kind)

    async def _applied(self, position: int) -> None:
        """Wait for the follower. Shielded: the turn may not end before its own decision is in the state."""
        with trio.CancelScope(shield=True):
            await self._follower.reached(position)


def _new_id() -> str:
    return token_bytes(16).hex()
