"""Who wants to see transfers and outcomes of a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

from arc_es.client.files import Moved, unheeded

Watch: TypeAlias = Callable[[str, int | None], AbstractContextManager[Moved]]
"""Shows one transfer, named, of so many bytes (None: nobody knows), inside a block."""


@contextmanager
def unwatched(_: str, __: int | None) -> Iterator[Moved]:
    """A `Watch` that shows nothing."""
    yield unheeded


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one lease.

    result: `succeeded` or `failed`: the answer was taken. `unanswered`: it was not. `released`: given back.
    `cancelled`: not wanted any more. `lost`: the lease could not be kept. code: of a failure. seconds: since the lease
    came.
    """

    command_id: str
    command: str
    attempt: int
    result: Literal["succeeded", "failed", "unanswered", "released", "cancelled", "lost"]
    code: str | None
    seconds: float
