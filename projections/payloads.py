"""Where the payloads of ids that have no command are: positions and digests, never bytes."""

from __future__ import annotations

from dataclasses import dataclass

from arc_es.domain.errors import ImpossibleHistory
from arc_es.domain.events import PayloadStored
from arc_es.domain.payloads import NO_PAYLOAD, Payload, evolve_payload
from arc_es.domain.recorded import PayloadKey, Recorded
from projections.plain import Plain, made, plain


@dataclass(frozen=True, slots=True)
class PayloadRow:
    """What is kept of one id; made anew by each decision.

    Positions: `version` of its last message, `params_at` and `answer_at` of the messages that hold (or come right
    after) the latest params and the latest answer; 0 if there are none.
    """

    payload: Payload = NO_PAYLOAD
    version: int = 0
    params_at: int = 0
    answer_at: int = 0


class PayloadsProjection:
    """id -> row."""

    def __init__(self) -> None:
        self._rows: dict[str, PayloadRow] = {}

    def get(self, command_id: str) -> PayloadRow | None:
        """The row of an id, None if nothing was ever stored under it."""
        return self._rows.get(command_id)

    def apply_recorded(self, key: PayloadKey, recorded: Recorded) -> None:
        """Fold one decision about an id.

        Raises:
            ImpossibleHistory: the decision was applied before, or holds an event that is not a payload's.
        """
        row = self._rows.get(key.command_id, PayloadRow())
        position = recorded.position
        if position <= row.version:
            raise ImpossibleHistory(f"Message {position} of payload {key.command_id} is applied twice or out of order")
        payload, params_at, answer_at = row.payload, row.params_at, row.answer_at
        for event in recorded.events:
            if not isinstance(event, PayloadStored):
                raise ImpossibleHistory(f"{type(event).__name__} cannot happen to an id without a command")
            payload = evolve_payload(payload, event)
            params_at = position if event.params is not None else params_at
            answer_at = position if event.response is not None or event.code is not None else answer_at
        self._rows[key.command_id] = PayloadRow(payload, position, params_at, answer_at)

    def dump(self) -> Plain:
        """All rows as plain data."""
        return [
            (name, plain(row.payload), row.version, row.params_at, row.answer_at) for name, row in self._rows.items()
        ]

    def load(self, data: Plain) -> None:
        """Take in what was dumped."""
        self._rows = {name: PayloadRow(made(payload), *positions) for name, payload, *positions in data}
