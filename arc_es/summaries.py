"""What a list says of a command, what may be asked of a list, and how far a page came (extensions, "Finding")."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Protocol, TypeAlias, get_args

from arc_es.domain.events import (
    CommandDispatched,
    CommandFailed,
    CommandLeased,
    CommandSucceeded,
    Event,
    FailureOrigin,
)
from arc_es.domain.ids import Micros, ResourceType
from arc_es.domain.state import PUBLIC_STATE, TERMINAL, Expired, Failed, Leased, State, attempt_of

ERROR_CHARS_MAX: Final = 1_000
"""Of code and message of an error as a list shows them; the answer of the command has all of it."""

Order: TypeAlias = Literal["asc", "desc"]
STATES: Final = tuple(dict.fromkeys(PUBLIC_STATE.values()))
"""The words that `state` may be."""
ORIGINS: Final[tuple[FailureOrigin, ...]] = get_args(FailureOrigin)
"""The words that `origin` may be."""
ENDED: Final = frozenset(PUBLIC_STATE[state] for state in TERMINAL)
"""Those of them after which nothing changes any more."""


@dataclass(slots=True)
class Traces:
    """What events leave in a summary that the folded state does not keep; None: no event said so."""

    dispatched_at: Micros | None = None
    agent: str | None = None
    response_bytes: int | None = None
    error: tuple[str, str] | None = None

    def follow(self, events: Iterable[Event], at: Micros) -> None:
        """Take note of the events of one decision, made at `at`."""
        for event in events:
            if isinstance(event, CommandLeased):
                self.dispatched_at = at
                self.agent = event.agent or self.agent
            elif isinstance(event, CommandDispatched):
                self.dispatched_at = at
            elif isinstance(event, CommandSucceeded):
                self.response_bytes = event.response.size if event.response.size >= 0 else None
            elif isinstance(event, CommandFailed):
                self.error = (event.code[:ERROR_CHARS_MAX], event.message[:ERROR_CHARS_MAX])


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One command of a list. Times in microseconds since the epoch; None: it is not so, or not known.

    dispatched_at: when it was last leased or pushed. agent: who last held it, if it gave its id. lease_id: only while a
    receiver holds it. origin: only of what FAILED. redrive_of, redriven_as: what it repeats, and its newest repetition.
    """

    command_id: str
    deployment_id: str
    target_id: str
    target_type: ResourceType | None
    command: str
    state: str
    attempt: int
    created_at: Micros
    dispatched_at: Micros | None = None
    completed_at: Micros | None = None
    deadline: Micros | None = None
    not_before: Micros | None = None
    priority: int = 0
    labels: tuple[tuple[str, str], ...] = ()
    error: tuple[str, str] | None = None
    request_bytes: int | None = None
    response_bytes: int | None = None
    lease_id: str | None = None
    lease_expires_at: Micros | None = None
    agent: str | None = None
    origin: FailureOrigin | None = None
    redrive_of: str | None = None
    redriven_as: str | None = None


def summary_of(command_id: str, state: State, traces: Traces) -> Summary:
    """The summary of a command."""
    facts = state.facts
    held = state if isinstance(state, Leased) else None
    return Summary(
        command_id=command_id,
        deployment_id=facts.route.deployment_id,
        target_id=facts.route.target_id,
        target_type=facts.route.target_type,
        command=facts.route.command,
        state=PUBLIC_STATE[type(state)],
        attempt=attempt_of(state),
        created_at=facts.created_at,
        dispatched_at=traces.dispatched_at,
        completed_at=state.ended_at if isinstance(state, TERMINAL) else None,
        deadline=facts.deadline,
        not_before=facts.options.not_before,
        priority=facts.options.priority,
        labels=facts.options.labels,
        error=traces.error,
        request_bytes=facts.params_size,
        response_bytes=traces.response_bytes,
        lease_id=None if held is None else held.lease_id,
        lease_expires_at=None if held is None else held.expires_at,
        agent=traces.agent,
        origin=origin_of(state),
        redrive_of=facts.options.redrive_of,
        redriven_as=redriven_as(state),
    )


def origin_of(state: State) -> FailureOrigin | None:
    """Why the command failed, None if it did not."""
    return state.origin if isinstance(state, Failed) else None


def redriven_as(state: State) -> str | None:
    """The id of the newest redrive of the command, None if there is none."""
    return state.redriven_as if isinstance(state, Failed | Expired) else None


# --- asking for a page


@dataclass(frozen=True, slots=True)
class Place:
    """A place between two commands of a list, just behind the one with this time and id.

    as_of: the position of the list's moment, None for a list of the present.
    """

    created_at: Micros
    command_id: str
    as_of: int | None = None


Covers: TypeAlias = Callable[[str, str, ResourceType | None], bool]
"""Whether a caller may see what is for this deployment, target id and type."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What a caller may see: these deployments and target ids (None: all), and of them what `covers` allows."""

    deployments: frozenset[str] | None = None
    target_ids: frozenset[str] | None = None
    covers: Covers | None = None


EVERYTHING: Final = Reach()


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """One page of a list: all that is given must hold. created_after <= created < created_before.

    origin: of what FAILED. redriven: only what was redriven, or only what was not.
    moment: the past that is asked about, as it was written; as_of: the position that it is. Both None: the present.
    """

    deployment_id: str | None = None
    target_id: str | None = None
    command: str | None = None
    state: str | None = None
    origin: str | None = None
    redriven: bool | None = None
    labels: tuple[tuple[str, str], ...] = ()
    created_after: Micros | None = None
    created_before: Micros | None = None
    order: Order = "desc"
    limit: int = 100
    after: Place | None = None
    reach: Reach = field(default=EVERYTHING)
    moment: str | None = None
    as_of: int | None = None

    def wants(self, summary: Summary) -> bool:
        """Whether what changes with time is as asked for."""
        return (
            self.state in (None, summary.state)
            and self.origin in (None, summary.origin)
            and self.redriven in (None, summary.redriven_as is not None)
        )

    def behind(self, place: Place) -> Find:
        """The page that begins there."""
        return replace(self, after=place, as_of=place.as_of)


@dataclass(frozen=True, slots=True)
class Page:
    """Some commands of a list. behind: where the next page begins, None: this is the last. position: as of when.

    changed: of a list of the past, the ids of the commands to which more has happened since. What is said of them here
    is of now, and they may not be of that list at all; their histories tell.
    """

    commands: tuple[Summary, ...]
    behind: Place | None
    position: int
    changed: frozenset[str] = frozenset()


class CommandIndex(Protocol):
    """Which commands there are, also those that are not in memory. It never says in what state they are.

    What is in memory may not be in it yet; what is not in memory any more certainly is. All raise an error that is both
    JournalUnavailable and Overloaded.
    """

    @property
    def position(self) -> int:
        """Up to where everything is in the index."""

    async def reached(self, position: int) -> None:
        """Wait, for a bounded time, until everything up to a position is in the index. Raises Overloaded, too."""

    async def scrub(self, position: int) -> None:
        """See that what was erased up to a position is not in its files either. Raises Overloaded, too: not yet."""

    async def find(self, find: Find) -> Page:
        """A page of a list."""

    async def deployment_of(self, command_id: str) -> str | None:
        """The deployment of a command, None if the index does not have it."""

    async def newest_of(self, first: str, next_of: Callable[[str], str]) -> str:
        """The last one of a chain of command ids that the index has, or `first`."""


class BadCursor(ValueError):
    """This is no cursor, or one of another list."""


def cursor_of(find: Find, place: Place) -> str:
    """An opaque text for a place in the list that `find` asks for."""
    as_of = () if place.as_of is None else (place.as_of,)
    stored = json.dumps([_mark(find), place.created_at, place.command_id, *as_of], separators=(",", ":"))
    return base64.urlsafe_b64encode(stored.encode()).decode().rstrip("=")


def place_of(find: Find, cursor: str) -> Place:
    """The place that a cursor names. Raises BadCursor."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        mark, created_at, command_id, *as_of = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, UnicodeError, ValueError, TypeError, RecursionError):
        raise BadCursor("This is no cursor") from None
    if not all(map(_is_number, (created_at, *as_of))) or not isinstance(command_id, str):
        raise BadCursor("This is no cursor")
    if mark != _mark(find) or len(as_of) != (find.moment is not None):
        raise BadCursor("This cursor belongs to a list with other filters, another order or another moment")
    return Place(created_at, command_id, *as_of)


def _is_number(value: object) -> bool:
    return type(value) is int and abs(value) < 1 << 62


def _mark(find: Find) -> str:
    """Names the filters and the order; limit and rights may differ from page to page."""
    whose = (find.deployment_id, find.target_id, find.command, find.state)
    filters = [*whose, sorted(find.labels), find.created_after, find.created_before, find.order]
    if find.origin is not None or find.redriven is not None:
        filters += [find.origin, find.redriven]
    if find.moment is not None:
        filters.append(find.moment)
    return hashlib.sha256(json.dumps(filters).encode()).hexdigest()[:16]
