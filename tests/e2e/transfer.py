"""Large bodies over plain HTTP/1.1, as curl moves them: a piece at a time, checked by digest on both ends."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal
from urllib.parse import urljoin, urlsplit

import trio

from tests.e2e.http import Answer, Client, create_body

MIB = 1024 * 1024
BLOCK_BYTES = 256 * 1024
Framing = Literal["length", "chunked", "expect"]


class Body:
    """`size` bytes that no other seed has; each block says where it belongs."""

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size = size
        self._block = Random(f"{seed} {size}").randbytes(BLOCK_BYTES)

    def blocks(self) -> Iterator[bytes]:
        for start in range(0, self.size, BLOCK_BYTES):
            yield (start.to_bytes(8) + self._block[8:])[: self.size - start]

    def whole(self) -> bytes:
        return b"".join(self.blocks())

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for block in self.blocks():
            digest.update(block)
        return digest.hexdigest()


@dataclass(frozen=True)
class Downloaded:
    status: int
    size: int
    sha256: str


def target_of(request: dict[str, Any], base: str = "http://x/v1/commands/leases") -> str:
    """Path and query of a PresignedRequest."""
    url = urlsplit(urljoin(base, request["backend"]["url"]))
    return f"{url.path}?{url.query}"


@asynccontextmanager
async def uploading(port: int, target: str, size: int, framing: Framing = "length") -> AsyncIterator[trio.SocketStream]:
    """The connection of an upload whose head has been sent, and with Expect the go-ahead received."""
    length = "Transfer-Encoding: chunked" if framing == "chunked" else f"Content-Length: {size}"
    expect = "Expect: 100-continue\r\n" if framing == "expect" else ""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"PUT {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{expect}{length}\r\n\r\n".encode())
        if framing == "expect":
            said = await stream.receive_some()
            assert said.startswith(b"HTTP/1.1 100"), said
        yield stream


def framed(block: bytes, framing: Framing) -> bytes:
    return b"%x\r\n%b\r\n" % (len(block), block) if framing == "chunked" else block


async def put(port: int, target: str, body: Body, framing: Framing = "length") -> Answer:
    """Upload a body; the answer."""
    async with uploading(port, target, body.size, framing) as stream:
        for block in body.blocks():
            await stream.send_all(framed(block, framing))
        if framing == "chunked":
            await stream.send_all(b"0\r\n\r\n")
        return await answered(stream)


async def answered(stream: trio.SocketStream) -> Answer:
    """The answer to an upload."""
    head, rest = await _head(stream)
    while len(rest) < int(head["content-length"]):
        rest += await stream.receive_some()
    return Answer(int(head[""]), head, rest)


async def _head(stream: trio.SocketStream) -> tuple[dict[str, str], bytes]:
    """The head of an answer, its status under the empty name, and what came of the body."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some()
        assert more, f"closed after {data!r}"
        data += more
    text, _, rest = data.partition(b"\r\n\r\n")
    status, *fields = text.decode("latin-1").split("\r\n")
    pairs = (field.partition(":") for field in fields)
    return {"": status.split()[1], **{name.lower(): value.strip() for name, _, value in pairs}}, rest


@asynccontextmanager
async def downloading(port: int, target: str) -> AsyncIterator[tuple[trio.SocketStream, dict[str, str], bytes]]:
    """The connection of a download, the head of its answer, and what has come of the body."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        head, rest = await _head(stream)
        yield stream, head, rest


async def rest_of(stream: trio.SocketStream, head: dict[str, str], rest: bytes) -> Downloaded:
    """Read a download to its end."""
    digest, size, wanted = hashlib.sha256(rest), len(rest), int(head["content-length"])
    while size < wanted:
        data = await stream.receive_some(BLOCK_BYTES)
        if not data:
            break
        digest.update(data)
        size += len(data)
    return Downloaded(int(head[""]), size, digest.hexdigest())


async def get(port: int, target: str) -> Downloaded:
    """Download a body."""
    async with downloading(port, target) as (stream, head, rest):
        return await rest_of(stream, head, rest)


# --- the calls around an upload


async def waiting_for_upload(client: Client, target_id: str, **more: object) -> dict[str, Any]:
    """A command whose params are to be uploaded: the create answer."""
    created = await client.call("POST", "/v1/commands", create_body(target_id, params={"mode": "storage"}, **more))
    assert (created.status, created.json["state"]) == (200, "PENDING_UPLOAD"), created
    return dict(created.json)


async def complete(client: Client, command_id: str, size: int) -> Answer:
    return await client.call("POST", f"/v1/commands/{command_id}/upload-complete", {"size": size})


def resident_bytes_max(pid: int) -> int:
    """The most memory that a process had in RAM since `forget_resident_bytes`."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


def forget_resident_bytes(pid: int) -> int:
    """Begin to measure; what the process has in RAM now. Source: proc_pid_clear_refs(5)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return resident_bytes_max(pid)
