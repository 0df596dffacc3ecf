"""What holders of leases, and those who do not want a command any more, can do: renew, give back, cancel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from arc_es.actors.follower import Follower
from arc_es.actors.turns import Ask, Turns
from arc_es.domain.errors import LeaseNotFound
from arc_es.domain.ids import Micros
from arc_es.domain.intents import Cancel, Release, Renew
from arc_es.domain.recorded import Principal
from arc_es.domain.state import Leased
from arc_es.lookup import Lookup
from arc_es.ports import Clock
from arc_es.views import ReadModels, Row


@dataclass(frozen=True, slots=True)
class Renewed:
    """Until when a lease lasts now. cancelled: its command was cancelled; it ends when it would have ended anyway."""

    command_id: str
    lease_id: str
    expires_at: Micros
    cancelled: bool = False


class Holding:
    """Leases that are held, and commands that may be."""

    def __init__(self, lookup: Lookup, models: ReadModels, turns: Turns, follower: Follower, clock: Clock) -> None:
        self._lookup = lookup
        self._models = models
        self._turns = turns
        self._follower = follower
        self._clock = clock

    async def held(self, lease_id: str) -> Row:
        """The command that is held under a live lease. Raises LeaseNotFound."""
        (found,) = await self._holders([lease_id])
        if found is None:
            raise LeaseNotFound
        return self._lookup.row(found)

    async def believed(self, lease_ids: Sequence[str]) -> list[Row | None]:
        """The commands of leases that are live, or would be if their command was not cancelled; None for others."""
        found = await self._holders(lease_ids)
        now = self._clock.now()
        rows: list[Row | None] = []
        for lease_id, command_id in zip(lease_ids, found, strict=True):
            cancelled = self._models.cancelled.get(lease_id, now)
            if cancelled is not None:
                rows.append(await self._lookup.known(cancelled.command_id))
            else:
                rows.append(None if command_id is None else self._models.status.get(command_id))
        return rows

    async def _holders(self, lease_ids: Sequence[str]) -> list[str | None]:
        holder_of = self._models.status.holder_of
        found = [holder_of(lease_id) for lease_id in lease_ids]
        if None in found:
            await self._follower.caught_up()  # another node may have granted it a moment ago
            found = [holder_of(lease_id) for lease_id in lease_ids]
        return found

    async def renew(self, seconds: Mapping[str, int], by: Principal) -> dict[str, Renewed | Exception]:
        """Renew leases, each for so many seconds from now; what comes of each, with one append for all.

        Each is Renewed, or why not: LeaseNotFound or a JournalError. Raises JournalError, Overloaded: none was renewed.
        """
        holders = dict(zip(seconds, await self._holders([*seconds]), strict=True))
        asks = [
            Ask(command_id, _deployment_of(self._lookup.row(command_id)), Renew(lease_id=lease_id, seconds=wanted), by)
            for lease_id, wanted in seconds.items()
            if (command_id := holders[lease_id]) is not None
        ]
        outcomes = await self._turns.perform_each(asks)
        now = self._clock.now()
        found: dict[str, Renewed | Exception] = {}
        for ask, outcome in zip(asks, outcomes, strict=True):
            if isinstance(ask.intent, Renew):
                found[ask.intent.lease_id] = _renewed(ask.command_id, ask.intent.lease_id, outcome)
        for lease_id in seconds:
            cancelled = self._models.cancelled.get(lease_id, now)
            if cancelled is not None:
                found[lease_id] = Renewed(cancelled.command_id, lease_id, cancelled.expires_at, cancelled=True)
        return {lease_id: found.get(lease_id) or LeaseNotFound() for lease_id in seconds}

    async def release(self, lease_id: str, by: Principal, delay: Micros = 0) -> None:
        """Give a lease back; its command is leasable at once, or after `delay`. Raises LeaseNotFound."""
        row = await self.held(lease_id)
        intent = Release(lease_id=lease_id, delay=delay)
        await self._turns.perform(Ask(row.command_id, _deployment_of(row), intent, by))

    async def cancel(self, command_id: str, reason: str, by: Principal) -> Row:
        """End a command that nobody wants any more; one that has ended stays as it is. Raises CommandNotFound."""
        row = await self._lookup.known(command_id)
        return await self._turns.perform(Ask(command_id, _deployment_of(row), Cancel(reason=reason), by))


def _deployment_of(row: Row) -> str:
    return row.state.facts.route.deployment_id


def _renewed(command_id: str, lease_id: str, outcome: Row | Exception) -> Renewed | Exception:
    if isinstance(outcome, Exception):
        return outcome
    state = outcome.state
    if isinstance(state, Leased) and state.lease_id == lease_id:
        return Renewed(command_id, lease_id, state.expires_at)
    return LeaseNotFound()
