"""The NATS client protocol as far as messages go: where one frame ends, and what a message frame says. Pure.

Source: the NATS documentation, "Client Protocol": `MSG <subject> <sid> [reply] <size>` and
`HMSG <subject> <sid> [reply] <header size> <total size>`, each followed by that many bytes and CRLF; every other frame
is one line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

CRLF: Final = b"\r\n"
_STATUS_LINE: Final = b"NATS/1.0"
_WITH_HEADERS: Final = b"HMSG"
_WITHOUT_HEADERS: Final = b"MSG"
STATUS: Final = "Status"
NO_RESPONDERS: Final = "503"


class Incoming(Protocol):
    """A message from the server."""

    @property
    def subject(self) -> str: ...
    @property
    def reply(self) -> str: ...
    @property
    def data(self) -> bytes: ...
    @property
    def headers(self) -> dict[str, str] | None: ...


Take: TypeAlias = Callable[[Incoming | None], None]
"""Called inside the loop with each message; with None, once, when the connection is lost."""


Run: TypeAlias = Callable[[bytes, int], int]
"""Called with a buffer and the place where a frame begins: takes as many frames as it can, all at once, and returns
where the first one begins that it leaves to `Take`."""


def none_at_once(buffer: bytes, start: int) -> int:
    """The `Run` that leaves everything to `Take`."""
    return start


@dataclass(frozen=True, slots=True)
class Taker:
    """Who gets the messages of one subscription."""

    take: Take
    run: Run = none_at_once


class Message:
    """A message whose headers are parsed only when somebody asks: of an event nobody does."""

    __slots__ = ("_head", "data", "reply", "subject")

    def __init__(self, subject: str, reply: str, head: bytes, data: bytes) -> None:
        self.subject = subject
        self.reply = reply
        self._head = head
        self.data = data

    @property
    def headers(self) -> dict[str, str] | None:
        """The headers, with `Status` and `Description` of an inline status; None if there are none."""
        if not self._head:
            return None
        status, _, lines = self._head.partition(CRLF)
        headers = header_lines(lines)
        code, _, description = status[len(_STATUS_LINE) :].strip().partition(b" ")
        if code:
            headers[STATUS] = code.decode()
            if description:
                headers["Description"] = description.decode("utf-8", "replace").strip()
        return headers


def header_lines(raw: bytes) -> dict[str, str]:
    """The headers in `Name: value` lines. Broken UTF-8 is replaced, as nats-py does."""
    headers: dict[str, str] = {}
    for line in raw.decode("utf-8", "replace").split("\r\n"):
        name, separator, value = line.partition(":")
        if separator:
            headers[name] = value.strip()
    return headers


def status_of(message: Incoming) -> str | None:
    """The status code of a message that carries nothing else, such as `404`; None of any other."""
    if message.data or not message.headers:
        return None
    return message.headers.get(STATUS)


def cut(buffer: bytes, start: int, takers: Mapping[bytes, Taker]) -> tuple[int, Taker | None, Message | None]:
    """Read one frame.

    Returns its end (-1 if it is not complete yet), and, if it is a message for one of `takers` (by subscription id),
    that taker and the message.

    Raises:
        ValueError: a message frame that is malformed.
    """
    line_end = buffer.find(CRLF, start)
    if line_end < 0:
        return -1, None, None
    words = buffer[start:line_end].split()
    kind = words[0] if words else b""
    if kind not in (_WITH_HEADERS, _WITHOUT_HEADERS):
        return line_end + 2, None, None
    body = line_end + 2
    end = body + int(words[-1])
    if end + 2 > len(buffer):
        return -1, None, None
    taker = takers.get(words[2])
    if taker is None:
        return end + 2, None, None
    has_headers = kind == _WITH_HEADERS
    data = body + int(words[-2]) if has_headers else body
    has_reply = len(words) > (5 if has_headers else 4)
    reply = words[3].decode() if has_reply else ""
    return end + 2, taker, Message(words[1].decode(), reply, buffer[body:data], buffer[data:end])


class Sorter:
    """Cuts what arrives into frames and has messages taken, by subscription id; everything else is left."""

    def __init__(self) -> None:
        self.takers: dict[bytes, Taker] = {}
        self._tail = b""

    def sort(self, data: bytes) -> bytes:
        """Take what can be taken now. Returns the other frames, whole ones only. Raises ValueError as `cut`."""
        buffer = self._tail + data if self._tail else data
        others: list[bytes] = []
        at = 0
        while True:
            end, taker, message = cut(buffer, at, self.takers)
            if end < 0:
                break
            if taker is None:
                others.append(buffer[at:end])
                at = end
            else:
                taker.take(message)
                at = taker.run(buffer, end)
        self._tail = buffer[at:]
        return b"".join(others)
