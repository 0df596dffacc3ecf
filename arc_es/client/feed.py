"""Reading the live feed: server-sent events (HTML, 9.2) put together to whole decisions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import orjson

from arc_es.client.errors import BadAnswer
from arc_es.client.lease import JsonObject

EVENT_STREAM: Final = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Decision:
    """Events that were decided together. position: where to go on. Without events: nothing wanted up to there."""

    position: int
    events: list[JsonObject] = field(default_factory=list)


async def decisions_of(lines: AsyncIterator[str]) -> AsyncGenerator[Decision, None]:
    """The decisions in the lines of a feed. Only the last event of one has an id, so none comes in part.

    Raises:
        BadAnswer: the lines are not those of a feed.
    """
    events: list[JsonObject] = []
    position: int | None = None
    async for line in lines:
        name, _, value = line.partition(": ")
        try:
            if name == "data":
                events.append(orjson.loads(value))
            elif name == "id":
                position = int(value)
        except ValueError as error:
            raise BadAnswer(f"The feed holds a line that is none of it: {line[:100]!r}", status=200) from error
        if not line and position is not None:
            yield Decision(position, events)
            events, position = [], None
