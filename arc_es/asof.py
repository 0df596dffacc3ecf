"""Answers about the past: commands by their own histories, the queues by a fold up to then (extensions, "Audit").

A moment is first made a position, and everything is then as of that. Which commands there were the index knows, and it
knows which of them have not changed since; the others are folded. The fold of everything runs in another process, one
at a time: here it would take the time of requests, and the memory of a second service for good.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from heapq import nsmallest
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
from arc_es.domain.state import TERMINAL, Leased, State, fold
from arc_es.lookup import Lookup
from arc_es.ports import Clock, Journal, JournalUnavailable, Message, Overloaded
from arc_es.snapshots.child import Aside, OutputTooLong
from arc_es.snapshots.fold import Folded, TooFar
from arc_es.snapshots.moment import Moment, located
from arc_es.summaries import CommandIndex, Find, Page, Place, Summary, Traces, summary_of
from arc_es.views import ReadModels
from arc_es.wire import format_time, parse_time

LINE_MAX: Final = 4
"""Questions about old queues, or about old lists, that wait for the one being answered."""
HISTORIES_MAX: Final = 1_000
"""Commands that are folded for one page of a list; a page ends there, and the next one goes on."""
LEASES_SHOWN_MAX: Final = 1_000
"""Of one queue, those that would have ended first."""
FOLD_SECONDS_MAX: Final = 120.0
EXIT_TOO_FAR: Final = 4
"""Of `arc-es replay`: more lies between the snapshot and the moment than may be folded."""


@dataclass(frozen=True, slots=True)
class RowThen:
    """What was known of a command (`ports.Row`), and what its events had left besides."""

    command_id: str
    state: State
    version: int
    params_at: int
    answer_at: int
    traces: Traces


@dataclass(frozen=True, slots=True)
class LeaseThen:
    """Who held a command. agent: its id, if it gave one."""

    command_id: str
    lease_id: str
    agent: str | None
    attempt: int
    expires_at: Micros


@dataclass(frozen=True, slots=True)
class QueueThen:
    """One queue as it was; `resource_type` as it was known then. leases: of receivers, the first to end first."""

    counts: QueueCounts
    resource_type: ResourceType | None
    leases: list[LeaseThen] = field(default_factory=list)


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


def row_at(command_id: str, history: Sequence[Message], position: int) -> RowThen | None:
    """What its history up to a position makes of a command; None if there was none."""
    state: State | None = None
    traces = Traces()
    version = params_at = answer_at = 0
    for message in history:
        if message.position > position:
            break
        recorded = decode_recorded(message.position, message.key, message.payload)
        traces.follow(recorded.events, recorded.at)
        state = fold(state, recorded.events, recorded.at)  # type: ignore[arg-type]  # the table refuses other events
        version = message.position
        if state is not None and params_at == 0 and state.facts.params_place is not None:
            params_at = version
        if answer_at == 0 and isinstance(state, TERMINAL):
            answer_at = version
    return None if state is None else RowThen(command_id, state, version, params_at, answer_at, traces)


def queues_of(folded: Folded, moment: Moment) -> QueuesThen:
    """All queues of folded projections; ages count from the moment, if it is a time that has come."""
    models: ReadModels = folded.models
    now = folded.at if moment.time is None else max(moment.time, folded.at)
    type_of = models.deployments.type_of
    leases = _leases_of(models)
    pulled = [
        QueueThen(counts, type_of(*_name(counts)), leases.get(_name(counts), []))
        for counts in models.pending.queues(now)
    ]
    pushed = [QueueThen(counts, type_of(*_name(counts))) for counts in models.pushes.queues(now)]
    return QueuesThen(folded.position, now, pulled + pushed)


def _name(counts: QueueCounts) -> tuple[str, str]:
    return counts.deployment_id, counts.target_id


def _leases_of(models: ReadModels) -> dict[tuple[str, str], list[LeaseThen]]:
    """Who holds commands of which deployment and target."""
    found: dict[tuple[str, str], list[LeaseThen]] = {}
    for row in models.status.held():
        state = row.state
        assert isinstance(state, Leased), "it is held"
        route = state.facts.route
        lease = LeaseThen(row.command_id, state.lease_id, state.agent, state.attempt, state.expires_at)
        found.setdefault((route.deployment_id, route.target_id), []).append(lease)
    return {
        name: nsmallest(LEASES_SHOWN_MAX, leases, key=lambda lease: (lease.expires_at, lease.command_id))
        for name, leases in found.items()
    }


def to_json(then: QueuesThen) -> bytes:
    """How queues come back from the process that folded them."""
    return orjson.dumps(then)


def from_json(data: bytes) -> QueuesThen:
    """What `to_json` was given."""
    then = orjson.loads(data)
    queues = [
        QueueThen(QueueCounts(**entry["counts"]), entry["resource_type"], [LeaseThen(**one) for one in entry["leases"]])
        for entry in then["queues"]
    ]
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


class _Line:
    """One question at a time; a few wait."""

    def __init__(self) -> None:
        self._turn = trio.CapacityLimiter(1)

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None, None]:
        """Wait for one's turn. Raises Overloaded: too many wait already."""
        if self._turn.statistics().tasks_waiting >= LINE_MAX:
            raise Overloaded("Too many questions about the past; try again later")
        async with self._turn:
            yield


class AsOf:
    """Everything that is asked about the past."""

    def __init__(
        self,
        *,
        journal: Journal,
        lookup: Lookup,
        follower: Follower,
        index: CommandIndex,
        clock: Clock,
        fold_queues: FoldQueues,
    ) -> None:
        self._journal = journal
        self._lookup = lookup
        self._follower = follower
        self._index = index
        self._clock = clock
        self._fold_queues = fold_queues
        self._queues_line = _Line()
        self._lists_line = _Line()

    async def command(self, command_id: str, moment: Moment) -> tuple[RowThen, Target, int]:
        """A command as it was, its target as it was known, and the position that this is as of.

        Raises:
            CommandNotFound: there was none.
        """
        position = await located(self._journal, moment)
        row = await self._lookup.known(command_id)
        route = row.state.facts.route
        then = await self._row(CommandKey(route.deployment_id, command_id), position)
        if then is None:
            raise CommandNotFound("There was no command with this id then")
        kind = route.target_type or await self._type_of(route.deployment_id, route.target_id, position)
        return then, Target(route.target_id, kind), position

    async def _row(self, key: CommandKey, position: int) -> RowThen | None:
        return row_at(key.command_id, await self._journal.history(key), position)

    async def _type_of(self, deployment_id: str, target_id: str, position: int) -> ResourceType | None:
        """The type of a target, as what was declared and observed until then had it."""
        if target_id == OPERATOR:
            return "daemon"
        deployment = NO_DEPLOYMENT
        for message in await self._journal.history(DeploymentKey(deployment_id)):
            if message.position > position:
                break
            for event in decode_recorded(message.position, message.key, message.payload).events:
                deployment = evolve_deployment(deployment, event, 0)  # type: ignore[arg-type]  # of a deployment
        declared = deployment.declared_target(target_id)
        return deployment.observed.get(target_id) if declared is None else declared.resource_type

    async def queues(self, moment: Moment) -> QueuesThen:
        """All queues as they were.

        Raises:
            Overloaded: too many ask already, or it takes too long now.
            TooFar: more would have to be folded than is allowed.
        """
        now = self._clock.now()
        past = moment if moment.time is None else Moment(time=min(moment.time, now))
        async with self._queues_line.turn():
            with trio.move_on_after(FOLD_SECONDS_MAX):
                return await self._fold_queues(past)
        raise Overloaded("To fold the past takes too long now; try again later")

    async def commands(self, find: Find, moment: Moment) -> Page:
        """A page of a list as it was. A page may have fewer commands than were asked for, and another one behind it.

        Raises:
            Overloaded: too many ask already, or the index does not come so far in time.
        """
        async with self._lists_line.turn():
            end = await self._journal.end()
            position = await located(self._journal, moment) if find.as_of is None else min(find.as_of, end)
            await self._follower.reached(position)
            await self._index.reached(position)
            return await _PastPage(self._index, self._row, self._type_of, replace(find, as_of=position)).read()


class _PastPage:
    """Makes one page of a list of the past."""

    def __init__(
        self,
        index: CommandIndex,
        row: Callable[[CommandKey, int], Awaitable[RowThen | None]],
        type_of: Callable[[str, str, int], Awaitable[ResourceType | None]],
        find: Find,
    ) -> None:
        assert find.as_of is not None, "the list is of the past"
        self._index = index
        self._row = row
        self._type_of = type_of
        self._find = find
        self._position = find.as_of
        self._types: dict[tuple[str, str], ResourceType] = {}
        self._found: list[Summary] = []
        self._histories = 0

    async def read(self) -> Page:
        """The page."""
        find: Find | None = self._find
        behind = self._find.after
        while find is not None:
            page = await self._index.find(find)
            for summary in page.commands:
                if len(self._found) == self._find.limit or self._histories == HISTORIES_MAX:
                    return self._page(behind)
                await self._look_at(summary, is_changed=summary.command_id in page.changed)
                behind = Place(summary.created_at, summary.command_id, self._position)
            find = None if page.behind is None else find.behind(page.behind)
        return self._page(None)

    def _page(self, behind: Place | None) -> Page:
        return Page(tuple(self._found), behind, self._position)

    async def _look_at(self, summary: Summary, *, is_changed: bool) -> None:
        """Add a command as it was, if it belongs to the list."""
        then = await self._folded(summary) if is_changed else summary
        if then is not None and self._find.wants(then):
            self._found.append(then if then.target_type is not None else await self._typed(then))

    async def _folded(self, summary: Summary) -> Summary | None:
        self._histories += 1
        row = await self._row(CommandKey(summary.deployment_id, summary.command_id), self._position)
        return None if row is None else summary_of(summary.command_id, row.state, row.traces)

    async def _typed(self, summary: Summary) -> Summary:
        """With the type of its target as it was known then."""
        name = summary.deployment_id, summary.target_id
        if name not in self._types:
            self._types[name] = await self._type_of(*name, self._position) or "worker"
        return replace(summary, target_type=self._types[name])
