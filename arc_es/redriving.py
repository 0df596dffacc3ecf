"""Redriving: letting a command that failed or expired run again, as a new command (extensions, "Creating and waiting").

The link on the old command and the new command are stored together or not at all, so a link never leads nowhere and no
redrive is without one. The version of the old command decides between two who redrive it at once.

As long as the newest redrive of a command has not failed or expired itself, to redrive again means that one: whoever
repeats a request after a lost answer does not run the command twice.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

from arc_es.actors.turns import Ask, Turns, TurnTaken
from arc_es.bodies import Bodies
from arc_es.domain.deployments import resolve_target
from arc_es.domain.errors import InvalidStateTransition, Rejected
from arc_es.domain.ids import OPERATOR, Micros, command_id_of
from arc_es.domain.intents import Create, Redrive
from arc_es.domain.recorded import Principal
from arc_es.domain.state import Expired, Failed
from arc_es.lookup import Lookup
from arc_es.ports import BodyMissing, BodyStoreError, Clock, JournalError, Overloaded, Slot
from arc_es.summaries import redriven_as
from arc_es.views import ReadModels, Row

T = TypeVar("T")

AT_ONCE: Final = 100
"""Commands that are redriven with one append: their params are in memory meanwhile."""
PARAMS_GONE: Final = "Its params are gone, so it cannot run again"


@dataclass(frozen=True, slots=True)
class Redriven:
    """The newest redrive of a command. is_new: it was made just now, or would be; then `newest` is None."""

    command_id: str
    newest: str | None
    is_new: bool


class Redriving:
    """Makes redrives."""

    def __init__(self, lookup: Lookup, models: ReadModels, turns: Turns, bodies: Bodies, clock: Clock) -> None:
        self._lookup = lookup
        self._models = models
        self._turns = turns
        self._bodies = bodies
        self._clock = clock

    async def redrive(self, command_id: str, by: Principal) -> str:
        """Let a command run again, unless its newest redrive has not come to nothing yet; the id of the newest one.

        Raises:
            CommandNotFound: unknown id.
            InvalidStateTransition: it is not FAILED or EXPIRED, or its params are gone.
            TargetNotFound: its target is not declared any more.
            BodyStoreError: its params cannot be copied now.
        """
        asked = await self._asked(command_id, by)
        return asked if isinstance(asked, str) else _newest_in(await self._turns.perform(asked))

    async def redrive_each(self, command_ids: Sequence[str], by: Principal) -> list[Redriven | Exception]:
        """The same for many commands, with one append for some of them at a time; or why one was refused."""
        results: list[Redriven | Exception] = []
        for start in range(0, len(command_ids), AT_ONCE):
            piece = command_ids[start : start + AT_ONCE]
            asked = [await _caught(partial(self._asked, command_id, by)) for command_id in piece]
            asks = [one for one in asked if isinstance(one, Ask)]
            rows = iter(await self._performed(asks))
            for command_id, one in zip(piece, asked, strict=True):
                results.append(_result(command_id, one, next(rows) if isinstance(one, Ask) else None))
        return results

    async def look_at_each(self, command_ids: Sequence[str]) -> list[Redriven | Exception]:
        """What `redrive_each` would do now."""
        return [await _caught(partial(self._look, command_id)) for command_id in command_ids]

    async def _look(self, command_id: str) -> Redriven:
        row = await self._redrivable(command_id)
        running = await self._running(row)
        if running is None:
            self._create(command_id, row)
            if not await self._bodies.is_there(row):
                raise InvalidStateTransition(PARAMS_GONE)
        return Redriven(command_id, running, is_new=running is None)

    async def _performed(self, asks: Sequence[Ask]) -> Sequence[Row | Exception]:
        try:
            return await self._turns.perform_each(asks)
        except (JournalError, Overloaded) as trouble:
            return [trouble] * len(asks)

    async def _asked(self, command_id: str, by: Principal) -> Ask | str:
        """What is to be stored, or the id of the newest redrive if that has not come to nothing yet."""
        row = await self._redrivable(command_id)
        if (running := await self._running(row)) is not None:
            return running
        new_id = command_id_of(uuid.uuid4())
        made = await self._made(new_id, command_id, row, by)
        intent = Redrive(redriven_as=new_id, newest=redriven_as(row.state))
        return Ask(command_id, made.deployment_id, intent, by, with_new=made)

    async def _redrivable(self, command_id: str) -> Row:
        row = await self._lookup.current(command_id)
        if not isinstance(row.state, Failed | Expired):
            raise InvalidStateTransition("Only a command that is FAILED or EXPIRED can be redriven")
        if row.state.facts.options.is_erased:
            raise InvalidStateTransition("It was erased, so it cannot run again")
        return row

    async def _running(self, row: Row) -> str | None:
        """The newest redrive, None if there is none or it has come to nothing itself."""
        newest = redriven_as(row.state)
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
                raise InvalidStateTransition(PARAMS_GONE) from None
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


async def _caught(work: Callable[[], Awaitable[T]]) -> T | Exception:
    """What comes of it, or why it was refused or is not possible now."""
    try:
        return await work()
    except (Rejected, JournalError, Overloaded, BodyStoreError) as trouble:
        return trouble


def _result(command_id: str, asked: Ask | str | Exception, row: Row | Exception | None) -> Redriven | Exception:
    if isinstance(asked, Exception):
        return asked
    if isinstance(asked, str):
        return Redriven(command_id, asked, is_new=False)
    if row is None or isinstance(row, Exception):
        return row or TurnTaken()
    newest = _newest_in(row)
    return Redriven(command_id, newest, is_new=asked.with_new is not None and newest == asked.with_new.command_id)


def _newest_in(row: Row) -> str:
    newest = redriven_as(row.state)
    assert newest is not None, "a redriven command has a redrive"
    return newest


def _ahead(at: Micros | None, now: Micros) -> Micros | None:
    return at if at is not None and at > now else None
