"""Answers about the past: a command by its own history, the queues by a fold up to then (extensions, "Audit").

The fold runs in another process, one at a time: here it would take the time of requests, and the memory of a second
service for good.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
import trio

from arc_es.actors.follower import Follower
from arc_es.codec import decode_recorded
from arc_es.domain.deployments import NO_DEPLOYMENT, evolve_deployment
from arc_es.domain.errors import CommandNotFound
from arc_es.domain.ids import OPERATOR, Micros, ResourceType, Target
from arc_es.domain.queues import QueueCounts
from arc_es.domain.recorded import CommandKey, DeploymentKey
from arc_es.domain.state import TERMINAL, Route, State, fold
from arc_es.lookup import Lookup
from arc_es.ports import Clock, Journal, JournalUnavailable, Message, Overloaded
from arc_es.snapshots.child import Aside, OutputTooLong
from arc_es.snapshots.fold import Folded, Moment, TooFar
from arc_es.views import ReadModels
from arc_es.wire import format_time, parse_time

LINE_MAX: Final = 4
"""Questions about old queues that wait for the one being answered."""
FOLD_SECONDS_MAX: Final = 120.0
EXIT_TOO_FAR: Final = 4
"""Of `arc-es replay`: more lies between the snapshot and the moment than may be folded."""


@dataclass(frozen=True, slots=True)
class RowThen:
    """What was known of a command (`ports.Row`)."""

    command_id: str
    state: State
    version: int
    params_at: int
    answer_at: int


@dataclass(frozen=True, slots=True)
class QueueThen:
    """One queue as it was; `resource_type` as it was known then."""

    counts: QueueCounts
    resource_type: ResourceType | None


@dataclass(frozen=True, slots=True)
class QueuesThen:
    """All queues as they were when everything up to `position` had happened; ages count from `now`."""

    position: int
    now: Micros
    queues: list[QueueThen]


def parse_as_of(text: str) -> Moment:
    """A moment from a sequence number or an RFC 3339 time.

    Raises:
        WireError: 422, it is neither.
    """
    if text.isascii() and text.isdecimal() and len(text) <= 18:  # noqa: PLR2004 - a 64-bit number
        return Moment(position=int(text))
    return Moment(time=parse_time(text, "asOf"))


def row_at(command_id: str, history: Sequence[Message], moment: Moment) -> RowThen | None:
    """What its history up to a moment makes of a command; None if there was none."""
    state: State | None = None
    version = params_at = answer_at = 0
    for message in history:
        recorded = decode_recorded(message.position, message.key, message.payload)
        if moment.is_before(message.position, recorded.at):
            break
        state = fold(state, recorded.events, recorded.at)  # type: ignore[arg-type]  # the table refuses other events
        version = message.position
        if state is not None and params_at == 0 and state.facts.params_place is not None:
            params_at = version
        if answer_at == 0 and isinstance(state, TERMINAL):
            answer_at = version
    return None if state is None else RowThen(command_id, state, version, params_at, answer_at)


def queues_of(folded: Folded, moment: Moment) -> QueuesThen:
    """All queues of folded projections; ages count from the moment, if it is a time that has come."""
    models: ReadModels = folded.models
    now = folded.at if moment.time is None else max(moment.time, folded.at)
    return QueuesThen(
        folded.position,
        now,
        [
            QueueThen(counts, models.deployments.type_of(counts.deployment_id, counts.target_id))
            for counts in (*models.pending.queues(now), *models.pushes.queues(now))
        ],
    )


def to_json(then: QueuesThen) -> bytes:
    """How queues come back from the process that folded them."""
    return orjson.dumps(then)


def from_json(data: bytes) -> QueuesThen:
    """What `to_json` was given."""
    then = orjson.loads(data)
    queues = [QueueThen(QueueCounts(**entry["counts"]), entry["resource_type"]) for entry in then["queues"]]
    return QueuesThen(then["position"], then["now"], queues)


FoldQueues = Callable[[Moment], Awaitable[QueuesThen]]
"""Folds up to a moment. Raises TooFar, JournalUnavailable."""


def in_child(aside: Aside, messages_max: int) -> FoldQueues:
    """Have `arc-es replay` fold in a process of its own."""

    async def fold_queues(moment: Moment) -> QueuesThen:
        at = f"{moment.position}" if moment.time is None else format_time(moment.time)
        try:
            ended = await aside(["replay", "--at", at, "--queues", "--messages-max", str(messages_max)])
        except (OSError, OutputTooLong) as error:
            raise JournalUnavailable(f"The past cannot be folded now: {error}") from error
        if ended.status == EXIT_TOO_FAR:
            raise TooFar
        if ended.status != 0:
            raise JournalUnavailable(f"The past cannot be folded now: {ended.last_words}")
        return from_json(ended.output)

    return fold_queues


class AsOf:
    """Everything that is asked about the past."""

    def __init__(
        self, *, journal: Journal, lookup: Lookup, follower: Follower, clock: Clock, fold_queues: FoldQueues
    ) -> None:
        self._journal = journal
        self._lookup = lookup
        self._follower = follower
        self._clock = clock
        self._fold_queues = fold_queues
        self._turn = trio.CapacityLimiter(1)

    def _past(self, moment: Moment) -> Moment:
        """The moment, or the present if it has not come yet."""
        applied, now = self._follower.applied, self._clock.now()
        if moment.position is not None:
            return Moment(position=min(moment.position, applied))
        return Moment(time=min(now if moment.time is None else moment.time, now))

    async def command(self, command_id: str, moment: Moment) -> tuple[RowThen, Target, int]:
        """A command as it was, its target as it was known, and the position that this is as of.

        Raises:
            CommandNotFound: there was none.
        """
        past = self._past(moment)
        row = await self._lookup.known(command_id)
        route = row.state.facts.route
        history = await self._journal.history(CommandKey(route.deployment_id, command_id))
        then = row_at(command_id, history, past)
        if then is None:
            raise CommandNotFound("There was no command with this id then")
        kind = route.target_type or await self._type_of(route, past)
        return then, Target(route.target_id, kind), then.version if past.position is None else past.position

    async def _type_of(self, route: Route, past: Moment) -> ResourceType | None:
        """The type of a target, as what was declared and observed until then had it."""
        if route.target_id == OPERATOR:
            return "daemon"
        deployment = NO_DEPLOYMENT
        for message in await self._journal.history(DeploymentKey(route.deployment_id)):
            recorded = decode_recorded(message.position, message.key, message.payload)
            if past.is_before(message.position, recorded.at):
                break
            for event in recorded.events:
                deployment = evolve_deployment(deployment, event)  # type: ignore[arg-type]  # of a deployment
        declared = deployment.declared_target(route.target_id)
        return deployment.observed.get(route.target_id) if declared is None else declared.resource_type

    async def queues(self, moment: Moment) -> QueuesThen:
        """All queues as they were.

        Raises:
            Overloaded: too many ask already, or it takes too long now.
            TooFar: more would have to be folded than is allowed.
        """
        if self._turn.statistics().tasks_waiting >= LINE_MAX:
            raise Overloaded("Too many questions about the past; try again later")
        async with self._turn:
            with trio.move_on_after(FOLD_SECONDS_MAX):
                return await self._fold_queues(self._past(moment))
        raise Overloaded("To fold the past takes too long now; try again later")
