"""Why a command is where it is, in one sentence, with the facts behind it (extensions, "Finding").

Looks at the projections, at who asked for work lately, and at one message of the history: the one that brought the
command where it is. What it costs depends neither on the length of the history nor on that of the queue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, assert_never

from arc_es.codec import decode
from arc_es.domain.events import CommandFailed, DeliveryFailed, Event, LeaseReleased
from arc_es.domain.ids import OPERATOR, Micros
from arc_es.domain.limits import SECOND, WAIT_SECONDS_MAX
from arc_es.domain.recorded import Decision
from arc_es.domain.state import (
    PUBLIC_STATE,
    Dispatched,
    Expired,
    Failed,
    Leased,
    Pending,
    PendingUpload,
    Succeeded,
    Terminal,
)
from arc_es.event_json import principal_json
from arc_es.leasing import Leasing
from arc_es.lookup import Lookup
from arc_es.ports import Clock, Journal, JournalCorrupt
from arc_es.summaries import redriven_as
from arc_es.views import ReadModels, Row
from arc_es.wire import format_time

AHEAD_COUNT_MAX: Final = 10_000
"""Commands ahead of one that are counted; above it there are at least so many."""
RECENT: Final = WAIT_SECONDS_MAX * SECOND
"""A target that was asked for work so recently has agents that work; they ask again at least as often."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """state: as in a status. because: one sentence for people. facts: by wire names."""

    state: str
    because: str
    facts: dict[str, Any]


Reason = tuple[str, dict[str, Any]]


class Explaining:
    """The use-case of asking why."""

    def __init__(self, *, lookup: Lookup, journal: Journal, models: ReadModels, leasing: Leasing, clock: Clock) -> None:
        self._lookup = lookup
        self._journal = journal
        self._models = models
        self._leasing = leasing
        self._clock = clock
        self._started_at = clock.now()

    async def explain(self, command_id: str, *, can_push: bool) -> Explanation:
        """Why a command is where it is. can_push: whether this service pushes at all.

        Raises:
            CommandNotFound: unknown id.
            JournalUnavailable: what happened cannot be read now.
        """
        row = await self._lookup.current_if_possible(command_id)
        because, facts = await self._reason(row, can_push=can_push)
        if (redriven := row.state.facts.options.redrive_of) is not None:
            facts["redriveOf"] = redriven
        return Explanation(PUBLIC_STATE[type(row.state)], because, facts)

    async def _reason(self, row: Row, *, can_push: bool) -> Reason:
        state = row.state
        match state:
            case PendingUpload():
                until = format_time(state.upload_until)
                facts = {"uploadUntil": until, "announcedBytes": state.facts.params_size}
                return f"It waits until {until} for its params to be uploaded.", facts
            case Pending():
                return await self._pending(row, state, can_push=can_push)
            case Leased():
                return await self._leased(row, state)
            case Dispatched():
                until, target = format_time(state.expires_at), state.facts.route.target_id
                because = f"It was pushed to {target}, which has until {until} to answer; this is {_attempt(state)}."
                return because, _attempt_facts(state) | {"deliveryLeaseExpiresAt": until}
            case Succeeded() | Failed() | Expired():
                return await self._ended(row, state)
            case _:
                assert_never(state)

    # --- waiting

    async def _pending(self, row: Row, state: Pending, *, can_push: bool) -> Reason:
        available_at = state.available_at
        if available_at is not None and available_at > self._clock.now():
            return await self._resting(row, state, available_at)
        facts = _attempt_facts(state) | self._queue_facts(row, state)
        pushed = state.facts.route.delivery == "push"
        trouble = self._undeliverable(state, can_push=can_push)
        if trouble is not None:
            return trouble, facts
        if (held_back := self._held_back(state, facts)) is not None:
            return held_back
        if pushed:
            return f"It waits for its turn to be pushed to {state.facts.route.target_id}{_behind(facts)}.", facts
        return self._unasked(state, facts), facts

    async def _resting(self, row: Row, state: Pending, until: Micros) -> Reason:
        at = format_time(until)
        if state.attempt == 1:
            return f"It is not to be delivered before {at}.", {"notBefore": at}
        ended, event = await self._message(row.version)
        match event:
            case DeliveryFailed():
                why = f"which the target refused: {event.reason}"
            case LeaseReleased():
                why = f"which {ended.by.id} gave back"
            case _:
                why = "which nobody answered in time"
        number, attempts_max = state.attempt - 1, state.facts.route.max_attempts
        because = f"It rests until {at} after attempt {number} of {attempts_max}, {why}."
        return because, _attempt_facts(state) | {"availableAt": at, "lastAttemptEndedAt": format_time(ended.at)}

    def _queue_facts(self, row: Row, state: Pending) -> dict[str, Any]:
        route = state.facts.route
        queue = self._models.pushes if route.delivery == "push" else self._models.pending
        ahead = queue.ahead(route, state.facts.options.priority, row.params_at, AHEAD_COUNT_MAX)
        facts: dict[str, Any] = {"ahead": ahead, "aheadIsExact": ahead < AHEAD_COUNT_MAX}
        if route.delivery == "pull":
            poll = self._leasing.last_poll(route.deployment_id, route.target_id)
            facts["waitingAgents"] = self._leasing.waiting(route.deployment_id, route.target_id)
            if poll is not None:
                facts |= {"lastPollAt": format_time(poll.at), "lastAgent": poll.agent}
        return {name: value for name, value in facts.items() if value is not None}

    def _undeliverable(self, state: Pending, *, can_push: bool) -> str | None:
        """What keeps everybody from delivering it, None if nothing does."""
        route = state.facts.route
        if route.delivery == "push" and not can_push:
            return "Nothing is pushed: this service has no public URL, which workers need to answer (public_url)."
        deployment = self._models.deployments.get(route.deployment_id)
        if deployment.declared is None or (route.target_id == OPERATOR and route.delivery == "pull"):
            return None
        target = deployment.declared_target(route.target_id)
        where = f"Its target {route.target_id}"
        if target is None:
            return f"{where} is not declared in {route.deployment_id} any more, so nobody can have it."
        if target.delivery != route.delivery:
            return f"{where} is declared for {target.delivery} by now, and the command was made for {route.delivery}."
        if route.delivery == "push" and target.push is None:
            return f"{where} has no push settings."
        return None

    def _held_back(self, state: Pending, facts: dict[str, Any]) -> Reason | None:
        """Whether an administrator keeps it from being delivered now."""
        route = state.facts.route
        controls = self._models.deployments.get(route.deployment_id).controls
        pause = controls.pause_of(route.target_id)
        if pause is not None:
            since, whole = format_time(pause.since), None in controls.pauses
            what = route.deployment_id if whole else f"{route.target_id} in {route.deployment_id}"
            why = f": {pause.reason}" if pause.reason else ""
            return f"Deliveries of {what} are paused since {since}{why}.", facts | {"pausedAt": since}
        queue = self._models.pushes if route.delivery == "push" else self._models.pending
        if queue.is_open(route.deployment_id, route.target_id):
            return None
        most = controls.leases_max[route.target_id]
        because = f"{route.target_id} has as many commands under way as it may have at once, {most}{_behind(facts)}."
        return because, facts | {"maxConcurrent": most}

    def _unasked(self, state: Pending, facts: dict[str, Any]) -> str:
        route = state.facts.route
        poll = self._leasing.last_poll(route.deployment_id, route.target_id)
        asked = f"No agent has asked for work of {route.target_id} in {route.deployment_id} since"
        if poll is None:
            return f"{asked} this service started at {format_time(self._started_at)}{_behind(facts)}."
        at = format_time(poll.at)
        if self._clock.now() - poll.at > RECENT and not facts["waitingAgents"]:
            return f"{asked} {at}{_behind(facts)}."
        if facts["ahead"]:
            return f"Agents ask for work, last at {at}{_behind(facts)}."
        return f"It is the next one for {route.target_id}, which was last asked for work at {at}."

    # --- under way and ended

    async def _leased(self, row: Row, state: Leased) -> Reason:
        last, _ = await self._message(row.version)
        holder = f"agent {state.agent}" if state.agent is not None else last.by.id
        until = format_time(state.expires_at)
        renewed = f", renewed {_times(state.renewals)}" if state.renewals else ""
        facts = _attempt_facts(state) | {
            "agent": state.agent,
            "by": principal_json(last.by),
            "leaseId": state.lease_id,
            "leasedAt": format_time(state.leased_at),
            "leaseExpiresAt": until,
            "renewals": state.renewals,
        }
        because = f"It is held by {holder} until {until}{renewed}; this is {_attempt(state)}."
        if state.agent is not None and self._clock.now() - state.leased_at > RECENT:
            asked_at = self._leasing.agent_polled_at(state.facts.route.deployment_id, state.agent)
            facts["agentLastPollAt"] = None if asked_at is None else format_time(asked_at)
            because += self._long_held(state, asked_at)
        return because, {name: value for name, value in facts.items() if value is not None}

    def _long_held(self, state: Leased, asked_at: Micros | None) -> str:
        """What an agent does that has held a command for long."""
        since = f" It has been held since {format_time(state.leased_at)}"
        if asked_at is not None and self._clock.now() - asked_at <= RECENT:
            return f"{since}; meanwhile the agent asks for more work, last at {format_time(asked_at)}."
        last = f"since {format_time(asked_at)}" if asked_at is not None else "as far as this service knows"
        return f"{since}, and the agent has not asked for work {last}."

    async def _ended(self, row: Row, state: Terminal) -> Reason:
        last, event = await self._message(row.answer_at)
        at = format_time(last.at)
        facts = _attempt_facts(state) | {"endedAt": at, "by": principal_json(last.by)}
        match state:
            case Succeeded():
                because = f"{last.by.id} answered it with a result at {at}, on {_attempt(state)}"
            case Expired():
                facts["reason"] = state.reason
                if state.reason == "deadline" and state.facts.deadline is not None:
                    because = f"Its deadline {format_time(state.facts.deadline)} passed before it was answered"
                else:
                    because = f"Its params were not uploaded in time; that ended at {at}"
            case Failed():
                assert isinstance(event, CommandFailed)
                facts |= {"origin": event.origin, "code": event.code, "message": event.message}
                because = f"{_failure(event, last.by.id, at, _attempt(state))} ({event.code}: {event.message})"
            case _:
                assert_never(state)
        if (newest := redriven_as(state)) is not None:
            facts["redrivenAs"] = newest
            because += f"; it was redriven as {newest}"
        if state.late:
            facts["lateResponses"] = len(state.late)
            because += f"; {_times(len(state.late))} somebody answered too late, which changed nothing"
        return because + ".", facts

    async def _message(self, position: int) -> tuple[Decision, Event]:
        """The decision at a position, and the last of its events."""
        (payload,) = await self._journal.read([position])
        if payload is None:
            raise JournalCorrupt(f"Message {position} is gone from the journal")
        decision = decode(payload)
        return decision, decision.events[-1]


def _failure(event: CommandFailed, who: str, at: str, attempt: str) -> str:
    match event.origin:
        case "agent":
            return f"{who} answered it with an error at {at}, on {attempt}"
        case "cancel":
            return f"{who} cancelled it at {at}"
        case "attempts":
            return f"The service gave up at {at}, after {attempt}"
        case "storage":
            return f"The service ended it at {at}, because its params were gone"
        case "delivery":
            return f"The service ended it at {at}, because it could not be delivered on {attempt}"
        case _:
            assert_never(event.origin)


def _attempt(state: Pending | Leased | Dispatched | Terminal) -> str:
    return f"attempt {state.attempt} of {state.facts.route.max_attempts}"


def _attempt_facts(state: Pending | Leased | Dispatched | Terminal) -> dict[str, Any]:
    return {"attempt": state.attempt, "maxAttempts": state.facts.route.max_attempts}


def _behind(facts: dict[str, Any]) -> str:
    ahead = facts["ahead"]
    if not ahead:
        return ""
    some = f"{ahead}" if facts["aheadIsExact"] else f"at least {ahead}"
    return f"; {some} {'command is' if ahead == 1 else 'commands are'} ahead of it"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
