"""Creating commands, one or many at once, under fresh ids or under those that idempotency keys name (`arc.v1` 4.5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from arc_es.actors.long_waits import LongWaits
from arc_es.actors.turns import Ask, Turns
from arc_es.bodies import Bodies, described, params_digest
from arc_es.domain.deployments import resolve_target
from arc_es.domain.errors import KeyWindowOver, Rejected
from arc_es.domain.events import TraceContext
from arc_es.domain.ids import OPERATOR, command_id_from_key, command_id_of
from arc_es.domain.intents import Create
from arc_es.domain.limits import ATTEMPTS_DEFAULT, IDEMPOTENCY_WINDOW
from arc_es.domain.recorded import Principal
from arc_es.lookup import Lookup
from arc_es.ports import BodyStoreError, Clock, Journal, JournalError, JournalFull, Overloaded, Slot
from arc_es.pushing import Pushing
from arc_es.randomness import uuid4
from arc_es.views import ReadModels, Row
from arc_es.wire import CreateRequest, InlineBody, StorageBody


class Creating:
    """Makes commands."""

    def __init__(
        self,
        *,
        journal: Journal,
        models: ReadModels,
        turns: Turns,
        bodies: Bodies,
        pushing: Pushing,
        lookup: Lookup,
        long_waits: LongWaits,
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._models = models
        self._turns = turns
        self._bodies = bodies
        self._pushing = pushing
        self._lookup = lookup
        self._long_waits = long_waits
        self._clock = clock

    async def create(self, request: CreateRequest, by: Principal, trace: TraceContext | None) -> tuple[str, Row]:
        """Create a command, or find the one that its idempotency key names.

        Raises:
            InvalidCommand, IdempotencyConflict, and those of `resolve_target`.
        """
        ask = await self._asked(request, by, trace)
        try:
            row = await self._turns.perform(ask)
        except KeyWindowOver:
            return await self._create_next(ask.command_id, request, by, trace)
        return ask.command_id, await self.pushed(ask.command_id, row)

    async def create_each(
        self, requests: Sequence[CreateRequest], by: Principal, trace: TraceContext | None
    ) -> list[tuple[str, Row] | Exception]:
        """Create many with one append; each is made or found, or why not, as by `create`.

        Raises:
            JournalError, Overloaded: nothing was stored.
        """
        prepared: list[Ask | Exception] = []
        for request in requests:
            try:
                prepared.append(await self._asked(request, by, trace))
            except (Rejected, BodyStoreError, JournalError, Overloaded) as refusal:
                prepared.append(refusal)
        outcomes = iter(await self._turns.perform_each([ask for ask in prepared if isinstance(ask, Ask)]))
        made: list[tuple[str, Row] | Exception] = []
        for ask, request in zip(prepared, requests, strict=True):
            if isinstance(ask, Exception):
                made.append(ask)
            else:
                made.append(await self._made(ask, next(outcomes), request, by, trace))
        troubles = [one for one in made if isinstance(one, JournalError | Overloaded)]
        if troubles and len(troubles) == len(made):
            raise troubles[0]
        return made

    async def _made(
        self, ask: Ask, outcome: Row | Exception, request: CreateRequest, by: Principal, trace: TraceContext | None
    ) -> tuple[str, Row] | Exception:
        """What has come of one of many."""
        try:
            if isinstance(outcome, KeyWindowOver):
                return await self._create_next(ask.command_id, request, by, trace)
            if isinstance(outcome, Exception):
                return outcome
            return ask.command_id, await self.pushed(ask.command_id, outcome)
        except (Rejected, BodyStoreError, JournalError, Overloaded) as refusal:
            return refusal

    async def _asked(self, request: CreateRequest, by: Principal, trace: TraceContext | None) -> Ask:
        """What is to be decided; equal keys meet at one id, and after the window of one the next has another."""
        intent = self._intent(request, trace)
        if request.idempotency_key is None:
            return await self._prepared(command_id_of(uuid4()), intent, request.params, by)
        scope = _scope(intent)
        holder = self._models.idempotency.holder(*scope)
        row = None if holder is None else self._models.status.get(holder)
        free = row is not None and self._clock.now() >= row.state.facts.created_at + IDEMPOTENCY_WINDOW
        command_id = holder if holder is not None and not free else command_id_from_key(*scope, holder)
        return await self._prepared(command_id, intent, request.params, by)

    async def _create_next(
        self, command_id: str, request: CreateRequest, by: Principal, trace: TraceContext | None
    ) -> tuple[str, Row]:
        """Create where an older command had the key, and it is free again. Raises as `create`."""
        intent = self._intent(request, trace)
        while True:
            next_of = partial(command_id_from_key, *_scope(intent))
            command_id = await self._lookup.next_holder(command_id, next_of)
            try:
                row = await self._turns.perform(await self._prepared(command_id, intent, request.params, by))
            except KeyWindowOver:
                continue
            return command_id, await self.pushed(command_id, row)

    def _intent(self, request: CreateRequest, trace: TraceContext | None) -> Create:
        deployment = self._models.deployments.get(request.deployment_id)
        known = self._models.deployments.known_targets(request.deployment_id)
        target = resolve_target(deployment, known, request.target_id)
        declared = deployment.declared
        pushed = None if target.resource_id == OPERATOR else deployment.declared_target(target.resource_id)
        key = request.idempotency_key
        return Create(
            deployment_id=request.deployment_id,
            command=request.command,
            target=target,
            delivery="pull" if pushed is None else pushed.delivery,
            params=None,
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

    async def _prepared(self, command_id: str, intent: Create, params: InlineBody | StorageBody, by: Principal) -> Ask:
        """Create under this id; large params are stored first, so that no command ever names what is not there."""
        is_new = self._models.status.get(command_id) is None
        if is_new and not self._journal.spacious:
            if intent.idempotency_key is not None:
                is_new = await self._lookup.found(command_id) is None  # to find one that ended long ago takes no room
            if is_new:
                self.need_room()
        if isinstance(params, StorageBody):
            return Ask(command_id, intent.deployment_id, replace(intent, upload_size=params.size), by)
        if not is_new:
            seen = replace(intent, params=described(params))  # a replay is compared by its digest and stores nothing
            return Ask(command_id, intent.deployment_id, seen, by)
        body, beside = await self._bodies.stored(Slot(command_id, "params"), params)
        return Ask(command_id, intent.deployment_id, replace(intent, params=body), by, beside, "params")

    def need_room(self) -> None:
        """See that there is room for something new, and not only for what is to come to an end. Raises JournalFull."""
        if not self._journal.spacious:
            raise JournalFull("What is left is for running commands")

    async def pushed(self, command_id: str, row: Row) -> Row:
        """A command that may be delivered from now on; if by push, then after the first one (`arc.v1` 4.4 Push, 4)."""
        if row.state.facts.route.delivery == "push":
            with self._long_waits.until(math.inf):
                await self._pushing.first_result(command_id)
            return await self._lookup.known(command_id)
        return row


def _scope(intent: Create) -> tuple[str, str, str, str]:
    assert intent.idempotency_key is not None, "only a key has a scope"
    return intent.deployment_id, intent.target.resource_id, intent.command, intent.idempotency_key
