"""Answers that the service has not acknowledged yet, oldest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import anyio
import orjson

from arc_es.client.job import Job
from arc_es.client.lease import JsonObject
from arc_es.client.receiving import Completion

COMPLETIONS_MAX: Final = 200
COMPLETION_BYTES_MAX: Final = 1_000_000
"""A report stays below the 2 MiB that every service takes (`arc.v1` section 0)."""
KEEP_ANSWER_SECONDS: Final = 300.0
"""How long an answer is kept for a service that does not take it; late first answers count."""


@dataclass(slots=True)
class Answer:
    """What a run answered. since: when, by the clock of the event loop."""

    job: Job
    completion: Completion
    size: int
    since: float

    @property
    def command_id(self) -> str:
        """Of the command that is answered."""
        return self.job.lease.command_id

    @property
    def overdue(self) -> bool:
        """Whether it has been kept for long enough."""
        return anyio.current_time() - self.since > KEEP_ANSWER_SECONDS


class Outbox:
    """At most one answer a command."""

    def __init__(self) -> None:
        self._answers: dict[str, Answer] = {}

    def post(self, job: Job, response: JsonObject) -> None:
        """Keep an answer until it is removed."""
        completion = Completion(lease=job.lease, response=response)
        answer = Answer(job, completion, len(orjson.dumps(response)), anyio.current_time())
        self._answers[answer.command_id] = answer

    def remove(self, answer: Answer) -> None:
        """It has been taken, or given up."""
        self._answers.pop(answer.command_id, None)

    def next(self) -> list[Answer]:
        """The oldest ones, as many as go into one call."""
        chosen: list[Answer] = []
        size = 0
        for one in self._answers.values():
            size += one.size
            if len(chosen) == COMPLETIONS_MAX or (chosen and size > COMPLETION_BYTES_MAX):
                break
            chosen.append(one)
        return chosen

    def __iter__(self) -> Iterator[Answer]:
        return iter([*self._answers.values()])

    def __len__(self) -> int:
        return len(self._answers)

    def __contains__(self, command_id: str) -> bool:
        return command_id in self._answers
