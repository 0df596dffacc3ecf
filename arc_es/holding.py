"""What holders of leases, and those who do not want a command any more, can do: renew, give back, cancel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from arc_es.wire_leases import Renewal


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
        """The command that is held under a live lease. Raises LeaseNotFound, JournalError."""
        (found,) = await self._holders([lease_id])
        if found is None:
            raise LeaseNotFound
        return self._lookup.row(found)

    async def _holders(self, lease_ids: Sequence[str]) -> list[str | None]:
        holder_of = self._models.status.holder_of
        found = [holder_of(lease_id) for lease_id in lease_ids]
        if None in found:
            await self._follower.caught_up()  # another node may have granted it a moment ago
            found = [holder_of(lease_id) for lease_id in lease_ids]
        return found

    async def asked(
        self, renewals: Sequence[Renewal], by: Principal, refusal_of: Callable[[Row], Exception | None]
    ) -> list[Ask | Renewed | Exception]:
        """What is to be decided for renewals; or that the command was cancelled; or why not. Raises JournalError."""
        prepared: list[Ask | Renewed | Exception] = []
        holders = await self._holders([renewal.lease_id for renewal in renewals])
        for renewal, command_id in zip(renewals, holders, strict=True):
            cancelled = self.cancelled(renewal.lease_id)
            if cancelled is not None:
                row = await self._lookup.known(cancelled.command_id)
                prepared.append(refusal_of(row) or cancelled)
            elif command_id is None:
                prepared.append(LeaseNotFound())
            else:
                row = self._lookup.row(command_id)
                intent = Renew(lease_id=renewal.lease_id, seconds=renewal.seconds)
                prepared.append(refusal_of(row) or Ask(command_id, _deployment_of(row), intent, by))
        return prepared

    def cancelled(self, lease_id: str) -> Renewed | None:
        """What to say of a lease whose command was cancelled; None if it was not, or the lease would have ended."""
        lease = self._models.cancelled.get(lease_id, self._clock.now())
        return None if lease is None else Renewed(lease.command_id, lease_id, lease.expires_at, cancelled=True)

    def renewed(self, lease_id: str, outcome: Row | Exception) -> Renewed | Exception:
        """What has come of a renewal."""
        if isinstance(outcome, LeaseNotFound):
            return self.cancelled(lease_id) or outcome  # it was cancelled just now
        if isinstance(outcome, Exception):
            return outcome
        state = outcome.state
        if isinstance(state, Leased) and state.lease_id == lease_id:
            return Renewed(outcome.command_id, lease_id, state.expires_at)
        return LeaseNotFound()

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
