"""Answering commands: the first answer is the answer, all others are recorded (`arc.v1` 4.4 Response)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from arc_es.actors.follower import Follower
from arc_es.actors.turns import Ask, Turns
from arc_es.bodies import Bodies, Stored, announced, described, in_store, respond_error
from arc_es.codec import decode_recorded
from arc_es.domain.errors import CommandNotFound, InvalidCommand, InvalidStateTransition, LeaseNotFound, Rejected
from arc_es.domain.events import Body, CommandLeased
from arc_es.domain.intents import RespondSuccess
from arc_es.domain.recorded import CommandKey, Principal
from arc_es.domain.state import TERMINAL, Leased, lease_end_max_of
from arc_es.lookup import Lookup
from arc_es.ports import BodyStoreError, Journal, Slot
from arc_es.views import Row
from arc_es.wire import ErrorResponse, InlineBody, StorageBody, SuccessResponse
from arc_es.wire_leases import Completion


class Responding:
    """Takes answers."""

    def __init__(self, lookup: Lookup, journal: Journal, turns: Turns, follower: Follower, bodies: Bodies) -> None:
        self._lookup = lookup
        self._journal = journal
        self._turns = turns
        self._follower = follower
        self._bodies = bodies

    async def respond(self, command_id: str, response: SuccessResponse | ErrorResponse, by: Principal) -> None:
        """Answer a command; the first answer wins, later ones are recorded and acknowledged.

        Raises:
            CommandNotFound: unknown id.
            InvalidStateTransition: the command was never dispatched.
        """
        ask = await self._asked(await self._lookup.current(command_id), response, by)
        try:
            await self._turns.perform(ask)
        except InvalidStateTransition:  # final for its sender, so it may not come from a state that is out of date
            await self._follower.caught_up()  # another node may have leased the command a moment ago
            await self._turns.perform(ask)

    async def asked(
        self, answers: Sequence[Completion], by: Principal, refusal_of: Callable[[Row], Exception | None]
    ) -> list[Ask | Exception]:
        """What is to be decided for answers to leases; or why not: its `refusal_of`, LeaseNotFound, or as `respond`.

        Raises:
            JournalError: nothing can be said now.
        """
        rows = await self._lookup.known_each([answer.command_id for answer in answers])
        prepared: list[Ask | Exception] = []
        for answer, row in zip(answers, rows, strict=True):
            refusal = CommandNotFound() if row is None else refusal_of(row)
            prepared.append(refusal or await self._asked_under(row, answer, by))  # type: ignore[arg-type]  # not None
        return prepared

    async def _asked_under(self, row: Row, answer: Completion, by: Principal) -> Ask | Exception:
        try:
            if await self._had_lease(row, answer.lease_id):
                return await self._asked(row, answer.response, by)
        except (Rejected, BodyStoreError) as refusal:
            return refusal
        return LeaseNotFound()

    async def _had_lease(self, row: Row, lease_id: str) -> bool:
        """Whether a command is, or ever was, held under a lease; only of the live one is that known without a look."""
        state = row.state
        if isinstance(state, Leased) and state.lease_id == lease_id:
            return True
        messages = await self._journal.history(CommandKey(state.facts.route.deployment_id, row.command_id))
        return any(
            isinstance(event, CommandLeased) and event.lease_id == lease_id
            for message in messages
            for event in decode_recorded(message.position, message.key, message.payload).events
        )

    async def _asked(self, row: Row, response: SuccessResponse | ErrorResponse, by: Principal) -> Ask:
        deployment_id = row.state.facts.route.deployment_id
        if isinstance(response, ErrorResponse):
            intent, beside = respond_error(response)
            return Ask(row.command_id, deployment_id, intent, by, beside, "response")
        body, beside = await self._result(row.command_id, row, response.response)
        return Ask(row.command_id, deployment_id, RespondSuccess(response=body), by, beside, "response")

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
