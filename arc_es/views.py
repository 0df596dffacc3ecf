"""Read models: projections as the service sees them, as Protocols."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from arc_es.domain.checkpoints import SignedCheckpoint
from arc_es.domain.deployments import Deployment
from arc_es.domain.ids import Micros, ResourceType
from arc_es.domain.leases import CancelledLease
from arc_es.domain.payloads import Payload
from arc_es.domain.queues import QueueCounts
from arc_es.domain.recorded import CommandKey, Recorded
from arc_es.domain.state import Route, State
from arc_es.domain.tokens import Token


class Row(Protocol):
    """What is known of one command. Positions: version of its last message, params_at and answer_at of the messages
    that hold (or come right after) the params and the answer; 0 if there are none yet."""

    @property
    def command_id(self) -> str: ...
    @property
    def state(self) -> State: ...
    @property
    def version(self) -> int: ...
    @property
    def params_at(self) -> int: ...
    @property
    def answer_at(self) -> int: ...


class StatusView(Protocol):
    """The folded state of each command, but for those that ended long ago: `arc_es.lookup` brings them back."""

    def get(self, command_id: str) -> Row | None:
        """The row of a command, None if it is not in memory."""

    def await_row(self, command_id: str) -> None:
        """Watch an id that is not in memory for decisions that pass by, until `restore` or `give_up`."""

    def restore(self, key: CommandKey, history: Iterable[Recorded]) -> Row | None:
        """Put the row of an ended command back, from its whole history; None: more has passed by, read it again."""

    def give_up(self, command_id: str) -> None:
        """End one `await_row`."""

    def holder_of(self, lease_id: str) -> str | None:
        """The id of the command that is held under this live lease."""

    def held(self) -> Iterable[Row]:
        """The rows of all commands that a receiver holds."""

    def items(self) -> Iterable[tuple[str, Row]]:
        """Ids and rows of all commands in memory."""

    def __len__(self) -> int: ...


class PendingView(Protocol):
    """Which commands wait for a receiver (`pending`) or a push (`pushes`).

    Per target, best first: higher priority, then longer waiting.
    """

    def take(
        self,
        deployment_id: str,
        target_id: str | None,
        count: int,
        now: Micros,
        only: Callable[[Row], bool] | None = None,
    ) -> list[str]:
        """Reserve up to `count` leasable commands; target None means all pull targets of the deployment but `operator`.

        A taken command is offered to nobody else until it is given back, or leaves the queue by an event. only: passes
        over others, of which it looks at a bounded number.
        """

    def give_back(self, command_ids: Iterable[str]) -> None:
        """End reservations; commands that are still pending are offered again, at their old place."""

    def next_available_at(self) -> Micros | None:
        """When the next delayed command becomes leasable."""

    def wake_delayed(self, now: Micros) -> list[str]:
        """Make commands whose time has come leasable; returns their ids."""

    def queues(self, now: Micros) -> list[QueueCounts]:
        """All queues that ever had a command."""

    def is_open(self, deployment_id: str, target_id: str) -> bool:
        """Whether something of this target may be taken, as far as it has anything: it is neither paused nor full."""

    def is_excess(self, command_id: str) -> bool:
        """Whether the command is held under a lease that came when its target was paused, or full."""

    def ahead(self, route: Route, priority: int, params_at: int, count_max: int) -> int:
        """How many leasable commands of the same target are taken before this one, counted up to `count_max`."""


class DueView(Protocol):
    """When commands next change by themselves."""

    def next_at(self) -> Micros | None:
        """The earliest time at which something is due."""

    def take_due(self, now: Micros, count: int) -> list[str]:
        """Remove and return up to `count` commands that are due; they come back by `put_back` or by an event."""

    def put_back(self, command_ids: Iterable[str]) -> None:
        """Offer commands again whose Tick could not be stored."""


class CancelledView(Protocol):
    """Which leases are held on commands that were cancelled, until they would have ended."""

    def get(self, lease_id: str, now: Micros) -> CancelledLease | None:
        """The lease with this id, None if there is none such now."""

    def of_agent(self, deployment_id: str, agent: str, now: Micros) -> list[CancelledLease]:
        """Those of one agent, in the order in which they were cancelled."""


class IdempotencyView(Protocol):
    """Which command holds an idempotency key."""

    def holder(self, deployment_id: str, target_id: str, command: str, key: str) -> str | None:
        """The id of the newest command created with this key, if it is remembered."""


class DeploymentsView(Protocol):
    """What is known of deployments and their targets."""

    def get(self, deployment_id: str) -> Deployment:
        """Declaration and observed targets (empty for a deployment nobody declared or leased from)."""

    def version(self, deployment_id: str) -> int:
        """The version of the deployment's own history."""

    def known_targets(self, deployment_id: str) -> Iterable[str]:
        """Target ids that a create named or resolved to."""

    def type_of(self, deployment_id: str, target_id: str) -> ResourceType | None:
        """The type of a target, None while nobody has said."""

    def declared(self) -> list[str]:
        """Ids of all declared deployments, in order of name."""


class PayloadRow(Protocol):
    """What is known of an id that has no command. Positions as those of `Row`, but of the latest params and answer."""

    @property
    def payload(self) -> Payload: ...
    @property
    def version(self) -> int: ...
    @property
    def params_at(self) -> int: ...
    @property
    def answer_at(self) -> int: ...


class PayloadsView(Protocol):
    """What is stored under ids that have no command."""

    def get(self, command_id: str) -> PayloadRow | None:
        """The row of an id, None if nothing was ever stored under it. A row never changes; a new one replaces it."""


class TokensView(Protocol):
    """All access tokens ever made."""

    def get(self, token_id: str) -> Token | None:
        """The token with this id, also one that is revoked or has expired; None if it was never made."""

    def version(self, token_id: str) -> int:
        """The version of the token's own history."""

    def all(self) -> Iterable[tuple[str, Token]]:
        """Ids and tokens, in order of their making."""


class CheckpointsView(Protocol):
    """The signed state of the log."""

    @property
    def origin(self) -> str | None:
        """The name of the log, None as long as it has no key."""

    @property
    def key_notes(self) -> tuple[str, ...]:
        """The announcements of all keys, in order."""

    @property
    def latest(self) -> SignedCheckpoint | None:
        """The checkpoint over most of the log."""

    def version(self, name: str) -> int:
        """The version of the history of the keys, or of the checkpoints of a day that is not over."""


class StatsView(Protocol):
    """Counts over everything."""

    @property
    def messages(self) -> int:
        """Decisions applied."""

    @property
    def events(self) -> int:
        """Events applied."""

    def by_state(self) -> dict[str, int]:
        """Number of commands in each public state."""

    def live(self) -> int:
        """Number of commands that have not come to an end."""


class ReadModels(Protocol):
    """All projections, fed in one place."""

    @property
    def status(self) -> StatusView: ...
    @property
    def pending(self) -> PendingView: ...
    @property
    def pushes(self) -> PendingView: ...
    @property
    def due(self) -> DueView: ...
    @property
    def cancelled(self) -> CancelledView: ...
    @property
    def idempotency(self) -> IdempotencyView: ...
    @property
    def deployments(self) -> DeploymentsView: ...
    @property
    def payloads(self) -> PayloadsView: ...
    @property
    def tokens(self) -> TokensView: ...
    @property
    def checkpoints(self) -> CheckpointsView: ...
    @property
    def stats(self) -> StatsView: ...

    def findable(self, position: int) -> None:
        """Everything up to this position can be found in the index: what ended long ago may leave memory."""

    def begin_replay(self, messages: int) -> None:
        """So many messages come before anybody asks: what follows from the states alone may wait for `end_replay`."""

    def end_replay(self) -> None:
        """From now on everything may be asked."""

    def apply(self, recorded: Recorded) -> str | None:
        """Fold one decision. Returns the id of a command that may be leased or pushed from now on, else None."""

    def dump(self) -> Iterator[tuple[str, Any]]:
        """Everything as named pieces of plain data, in an order that `load` needs; equal for equal histories."""

    def load(self, pieces: Iterable[tuple[str, Any]]) -> None:
        """Take in what was dumped by the same version; only into new projections."""
