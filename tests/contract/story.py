"""Words for tests of journals."""

from __future__ import annotations

import trio

from arc_es.domain.recorded import CommandKey, Key
from arc_es.journal.subjects import event_subject
from arc_es.ports import Append, Message


def command(name: str, deployment: str = "dep") -> CommandKey:
    """The history of a command."""
    return CommandKey(deployment, f"cmd_{name}")


def item(key: Key, text: str, expected: int = 0, body: bytes | None = None) -> Append:
    """A message that says so much; its decision id is the text and the key."""
    return Append(key, expected, f"{text}@{event_subject(key)}", text.encode(), body)


class Seen:
    """What a follower was handed."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._more = trio.Event()

    def handle(self, position: int, key: Key, payload: bytes) -> None:
        """For `Journal.follow`."""
        self.messages.append(Message(position, key, payload))
        self._more.set()
        self._more = trio.Event()

    @property
    def positions(self) -> list[int]:
        """Where they are."""
        return [message.position for message in self.messages]

    async def wait_for(self, position: int, seconds: float = 10) -> None:
        """Wait until that position was handed over."""
        with trio.fail_after(seconds):
            while not self.messages or self.messages[-1].position < position:
                await self._more.wait()
