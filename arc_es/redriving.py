"""Redriving: letting a command that failed or expired run again, as a new command (extensions, "Creating and waiting").

The link on the old command and the new command are stored together or not at all, so a link never leads nowhere and no
redrive is without one. The version of the old command decides between two who redrive it at once.

As long as the newest redrive of a command has not failed or expired itself, to redrive again means that one: whoever
repeats a request after a lost answer does not run the command twice.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace

from arc_es.actors.turns import Ask, Turns
from arc_es.bodies import Bodies
from arc_es.domain.deployments import resolve_target
from arc_es.domain.errors import InvalidStateTransition
from arc_es.domain.ids import OPERATOR, Micros, command_id_of
from arc_es.domain.intents import Create, Redrive
from arc_es.domain.recorded import Principal
from arc_es.domain.state import Expired, Failed
from arc_es.lookup import Lookup
from arc_es.ports import BodyMissing, Clock, Slot
from arc_es.views import ReadModels, Row


@dataclass(frozen=True, slots=True)
class Redriven:
    """The newest redrive of a command. is_new: it was made just now."""

    command_id: str
    is_new: bool


class Redriving:
    """Makes redrives."""

    def __init__(self, lookup: Lookup, models: ReadModels, turns: Turns, bodies: Bodies, clock: Clock) -> None:
        self._lookup = lookup
        self._models = models
        self._turns = turns
        self._bodies = bodies
        self._clock = clock

    async def redrive(self, command_id: str, by: Principal) -> Redriven:
        """Let a command run again, unless its newest redrive has not come to nothing yet.

        Raises:
            CommandNotFound: unknown id.
            InvalidStateTransition: it is not FAILED or EXPIRED, or its params are gone.
            TargetNotFound: its target is not declared any more.
            BodyStoreError: its params cannot be copied now.
        """
        row = await self._redrivable(command_id)
        if (running := await self._running(row)) is not None:
            return Redriven(running, is_new=False)
        new_id = command_id_of(uuid.uuid4())
        intent = Redrive(redriven_as=new_id, newest=_newest(row))
        made = await self._made(new_id, command_id, row, by)
        ask = Ask(command_id, made.deployment_id, intent, by, with_new=made)
        row = await self._turns.perform(ask)
        newest = _newest(row)
        assert newest is not None, "a redriven command has a redrive"
        return Redriven(newest, newest == new_id)

    async def _redrivable(self, command_id: str) -> Row:
        row = await self._lookup.current(command_id)
        if not isinstance(row.state, Failed | Expired):
            raise InvalidStateTransition("Only a command that is FAILED or EXPIRED can be redriven")
        return row

    async def _running(self, row: Row) -> str | None:
        """The newest redrive, None if there is none or it has come to nothing itself."""
        newest = _newest(row)
        if newest is None:
            return None
        state = (await self._lookup.current(newest)).state
        return None if isinstance(state, Failed | Expired) else newest

    async def _made(self, new_id: str, command_id: str, row: Row, by: Principal) -> Ask:
        """The making of the new command, its params stored."""
        create, body = self._create(command_id, row), None
        if row.state.facts.params_place is not None:
            try:
                params, body = await self._bodies.copied(Slot(new_id, "params"), row)
            except BodyMissing:
                raise InvalidStateTransition("Its params are gone, so it cannot run again") from None
            create = replace(create, params=params, upload_size=None)
        return Ask(new_id, create.deployment_id, create, by, body, "params")

    def _create(self, command_id: str, row: Row) -> Create:
        """The new command, without its params. What its sender asked for stays, but times that have passed are over;
        where and how it is delivered is as declared now. The idempotency key stays with the first command."""
        facts, now = row.state.facts, self._clock.now()
        route, options = facts.route, facts.options
        deployment = self._models.deployments.get(route.deployment_id)
        target = resolve_target(deployment, (), route.target_id)
        declared = None if target.resource_id == OPERATOR else deployment.declared_target(target.resource_id)
        return Create(
            deployment_id=route.deployment_id,
            command=route.command,
            target=target,
            delivery="pull" if declared is None else declared.delivery,
            params=None,
            upload_size=facts.params_size,
            deadline=_ahead(facts.deadline, now),
            max_attempts=route.max_attempts,
            retry=deployment.declared.retry if deployment.declared else None,
            priority=options.priority,
            not_before=_ahead(options.not_before, now),
            labels=dict(options.labels),
            trace=options.trace,
            redrive_of=command_id,
        )


def _newest(row: Row) -> str | None:
    state = row.state
    return state.redriven_as if isinstance(state, Failed | Expired) else None


def _ahead(at: Micros | None, now: Micros) -> Micros | None:
    return at if at is not None and at > now else None
