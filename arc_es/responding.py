"""Answering commands: the first answer is the answer, all others are recorded (`arc.v1` 4.4 Response)."""

from __future__ import annotations

from contextlib import suppress

from arc_es.actors.follower import Follower
from arc_es.actors.turns import Ask, Turns
from arc_es.bodies import Bodies, Stored, announced, described, in_store, respond_error
from arc_es.domain.errors import InvalidCommand, InvalidStateTransition
from arc_es.domain.events import Body
from arc_es.domain.intents import RespondSuccess
from arc_es.domain.recorded import Principal
from arc_es.domain.state import TERMINAL, lease_end_max_of
from arc_es.lookup import Lookup
from arc_es.ports import BodyStoreError, Slot
from arc_es.views import Row
from arc_es.wire import ErrorResponse, InlineBody, StorageBody, SuccessResponse


class Responding:
    """Takes answers."""

    def __init__(self, lookup: Lookup, turns: Turns, follower: Follower, bodies: Bodies) -> None:
        self._lookup = lookup
        self._turns = turns
        self._follower = follower
        self._bodies = bodies

    async def respond(self, command_id: str, response: SuccessResponse | ErrorResponse, by: Principal) -> None:
        """Answer a command; the first answer wins, later ones are recorded and acknowledged.

        Raises:
            CommandNotFound: unknown id.
            InvalidStateTransition: the command was never dispatched.
        """
        row = await self._lookup.current(command_id)
        deployment_id = row.state.facts.route.deployment_id
        if isinstance(response, ErrorResponse):
            intent, beside = respond_error(response)
            await self._answered(Ask(command_id, deployment_id, intent, by, beside, "response"))
            return
        body, beside = await self._result(command_id, row, response.response)
        await self._answered(Ask(command_id, deployment_id, RespondSuccess(response=body), by, beside, "response"))

    async def _result(self, command_id: str, row: Row, result: InlineBody | StorageBody) -> Stored:
        """A result, stored where it can be accepted from; of one that comes too late only size and digest matter."""
        slot = Slot(command_id, "response")
        if isinstance(row.state, TERMINAL):
            return await self._too_late(slot, result), None
        if isinstance(result, InlineBody):
            return await self._bodies.stored(slot, result)
        if lease_end_max_of(row.state) == 0:
            await self._follower.caught_up()  # another node may have leased the command a moment ago
            if lease_end_max_of((await self._lookup.known(command_id)).state) == 0:
                raise InvalidStateTransition("The command was never dispatched, so nobody can have an answer")
        kept = await self._bodies.store.seal(slot)
        if kept is None:
            raise InvalidCommand("No response was uploaded")
        return await self._bodies.taken(kept)

    async def _too_late(self, slot: Slot, result: InlineBody | StorageBody) -> Body:
        if isinstance(result, InlineBody):
            return described(result)
        with suppress(BodyStoreError):
            if (kept := await self._bodies.store.seal(slot)) is not None:
                return in_store(kept)
        return announced(result)

    async def _answered(self, ask: Ask) -> None:
        """Accept an answer. A refusal is final for its sender, so it may not come from a state that is out of date."""
        try:
            await self._turns.perform(ask)
        except InvalidStateTransition:
            await self._follower.caught_up()  # another node may have leased the command a moment ago
            await self._turns.perform(ask)
