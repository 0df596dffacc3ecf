"""What is left of erased commands: the public part of each message, at its old position.

It comes as one stream message right before `CommandErased`, compressed: `{"messages": [[position, "first line"], …],
"bodies": [position, …]}`, the positions of its event messages and of the bodies that lay beside them. All of it is in
memory, still compressed: some hundred bytes for each erased command, of which there are few.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
import zstandard

from arc_es.codec import is_stub, redacted
from arc_es.domain.recorded import CommandKey
from arc_es.ports import JournalCorrupt, Message

BYTES_MAX: Final = 2 * 1024 * 1024
"""Of what is left of one command, compressed: it is one message. Some ten thousand leases and renewals."""
_LEVEL: Final = 6


@dataclass(frozen=True, slots=True)
class Remains:
    """What is left of one command."""

    messages: tuple[tuple[int, bytes], ...]
    bodies: tuple[int, ...] = ()

    def encode(self) -> bytes:
        """How it is stored."""
        messages = [[position, payload.decode()] for position, payload in self.messages]
        said = orjson.dumps({"messages": messages, "bodies": self.bodies})
        return zstandard.ZstdCompressor(level=_LEVEL).compress(said)

    @property
    def unproven(self) -> int:
        """How many messages are stubs."""
        return sum(is_stub(payload) for _, payload in self.messages)


def remains_of(history: Sequence[Message], bodies: Sequence[int]) -> Remains:
    """What is to be left of a command. bodies: the positions of those that lie beside its events."""
    return Remains(tuple((one.position, redacted(one.payload)) for one in history), tuple(bodies))


def decode_remains(raw: bytes) -> Remains:
    """What is left of a command, as it was stored. Raises JournalCorrupt."""
    try:
        said = orjson.loads(zstandard.ZstdDecompressor().decompress(raw))
        messages = tuple((position, payload.encode()) for position, payload in said["messages"])
        return Remains(messages, tuple(said["bodies"]))
    except (zstandard.ZstdError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise JournalCorrupt(f"What is left of an erased command cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class _Erased:
    key: CommandKey
    position: int
    """Of its `CommandErased`."""
    raw: bytes


class Erasures:
    """All erased commands that this process knows of."""

    def __init__(self) -> None:
        self._of: dict[str, _Erased] = {}
        self._at: dict[int, _Erased] = {}
        self._bodies: set[int] = set()
        self._positions: list[int] = []
        self._is_sorted = True
        self._pending: list[tuple[CommandKey, int]] = []
        self.known_until = 0
        """All that was stored up to this position is here."""

    def __len__(self) -> int:
        return len(self._of)

    def add(self, message: Message) -> None:
        """Take in what is left of a command, which lies right before its event. Raises JournalCorrupt."""
        self.known_until = max(self.known_until, message.position)
        assert isinstance(message.key, CommandKey), "only commands are erased"
        if message.key.command_id in self._of:
            return
        remains = decode_remains(message.payload)
        erased = _Erased(message.key, message.position + 1, message.payload)
        self._of[message.key.command_id] = erased
        self._at.update(dict.fromkeys([position for position, _ in remains.messages], erased))
        self._bodies.update(remains.bodies)
        self._positions += [position for position, _ in remains.messages]
        self._is_sorted = False

    def expect(self, key: CommandKey, position: int) -> None:
        """A `CommandErased` has come by; what is left of the command is to be taken in before anything is read."""
        if key.command_id not in self._of:
            self._pending.append((key, position))

    def expected(self) -> list[tuple[CommandKey, int]]:
        """Which events have come by of what is not here yet."""
        self._pending = [(key, position) for key, position in self._pending if key.command_id not in self._of]
        return self._pending

    def at(self, command_id: str) -> int | None:
        """Where the `CommandErased` of a command is, None if it was not erased."""
        erased = self._of.get(command_id)
        return None if erased is None else erased.position

    def all(self) -> list[tuple[CommandKey, int]]:
        """All that was erased, and the positions of the events, in order."""
        return sorted(((one.key, one.position) for one in self._of.values()), key=lambda entry: entry[1])

    def is_body(self, position: int) -> bool:
        """Whether an erased body was there."""
        return position in self._bodies

    def message(self, position: int) -> Message | None:
        """What is left of the event message there, None if it was not erased."""
        erased = self._at.get(position)
        if erased is None:
            return None
        return Message(position, erased.key, dict(decode_remains(erased.raw).messages)[position])

    def history(self, key: CommandKey) -> list[Message]:
        """What is left of the event messages of a command, in order; nothing if it was not erased."""
        erased = self._of.get(key.command_id)
        if erased is None:
            return []
        return [Message(position, key, payload) for position, payload in decode_remains(erased.raw).messages]

    def events(self, after: int, before: int, limit: int) -> list[Message]:
        """What is left of the first event messages between two positions, in order."""
        if not self._is_sorted:
            self._positions = sorted(self._positions)  # not in place: it may be read in another thread
            self._is_sorted = True
        start = bisect_right(self._positions, after)
        end = bisect_left(self._positions, before)
        return list(self._messages(self._positions[start : min(end, start + limit)]))

    def _messages(self, positions: Sequence[int]) -> Iterator[Message]:
        opened: dict[int, dict[int, bytes]] = {}
        for position in positions:
            erased = self._at[position]
            if erased.position not in opened:
                opened[erased.position] = dict(decode_remains(erased.raw).messages)
            yield Message(position, erased.key, opened[erased.position][position])
