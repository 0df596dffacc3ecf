"""What agents say of the leases that they hold, all of it with one append: answers first, then renewals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from arc_es.actors.follower import Follower
from arc_es.actors.turns import Ask, Turns
from arc_es.domain.errors import InvalidStateTransition
from arc_es.domain.recorded import Principal
from arc_es.holding import Holding, Renewed
from arc_es.responding import Responding
from arc_es.views import Row
from arc_es.wire_leases import Completion, Renewal


class Settling:
    """Takes answers and renewals together."""

    def __init__(self, responding: Responding, holding: Holding, turns: Turns, follower: Follower) -> None:
        self._responding = responding
        self._holding = holding
        self._turns = turns
        self._follower = follower

    async def settle(
        self,
        completions: Sequence[Completion],
        renewals: Sequence[Renewal],
        by: Principal,
        refusal_of: Callable[[Row], Exception | None],
    ) -> tuple[list[Row | Exception], list[Renewed | Exception]]:
        """Take answers and renewals, each by itself. refusal_of: why the caller may not touch a command.

        A lease that is named twice in `renewals` is renewed once, as the last entry says.

        Raises:
            JournalError, Overloaded: nothing was stored.
        """
        last = {renewal.lease_id: renewal for renewal in renewals}
        answers = await self._responding.asked(completions, by, refusal_of)
        asked = dict(zip(last, await self._holding.asked([*last.values()], by, refusal_of), strict=True))
        asks = [ask for ask in (*answers, *asked.values()) if isinstance(ask, Ask)]
        outcomes = iter(await self._performed(asks))
        completed = [next(outcomes) if isinstance(ask, Ask) else ask for ask in answers]
        renewed = {
            lease_id: self._holding.renewed(lease_id, next(outcomes)) if isinstance(ask, Ask) else ask
            for lease_id, ask in asked.items()
        }
        return completed, [renewed[renewal.lease_id] for renewal in renewals]

    async def _performed(self, asks: Sequence[Ask]) -> list[Row | Exception]:
        """What has come of each; what was refused is asked once more with all that other nodes have stored."""
        outcomes = await self._turns.perform_each(asks)
        again = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, InvalidStateTransition)]
        if again:
            await self._follower.caught_up()  # another node may have leased the command a moment ago
            for index, outcome in zip(again, await self._turns.perform_each([asks[one] for one in again]), strict=True):
                outcomes[index] = outcome
        return outcomes
