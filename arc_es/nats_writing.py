"""Sending messages past nats-py, which takes ten times as long for one with headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def publish_frame(subject: str, reply: str, headers: Mapping[str, str], payload: bytes) -> bytes:
    """`HPUB <subject> [reply] <header size> <total size>`. Subject and headers are ours: nothing needs quoting."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    head = f"NATS/1.0\r\n{lines}\r\n".encode()
    to = f"{subject} {reply}" if reply else subject
    return b"HPUB %b %d %d\r\n%b%b\r\n" % (to.encode(), len(head), len(head) + len(payload), head, payload)


def may_write(client: Any) -> bool:
    """Whether a nats-py client is made as `write` needs it; what it needs is not public."""
    return hasattr(client, "_send_command") and hasattr(client, "_flush_queue")


async def write(client: Any, frame: bytes) -> None:
    """Put a frame into the send buffer of a nats-py client, as its `publish` does; it never waits.

    Raises:
        ConnectionError: there is no connection.
    """
    if not client.is_connected:
        raise ConnectionError("The connection is gone")
    await client._send_command(frame)  # noqa: SLF001
    if client._flush_queue is not None and client._flush_queue.empty():  # noqa: SLF001
        await client._flush_pending()  # noqa: SLF001
