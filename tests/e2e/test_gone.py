"""Clients that leave while they are served, over real sockets: what was leased for them is there for the next."""

from __future__ import annotations

import json
import socket
import struct
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.process import serving

SECONDS_MAX = 60
COMMAND: dict[str, Any] = {"deploymentId": "dep", "command": "do", "targetResourceId": "t", "maxAttempts": 1}
COMMAND["params"] = {"mode": "inline", "inlineBase64": "e30="}
LEASE: dict[str, Any] = {
    "deploymentId": "dep",
    "target": {"resourceId": "t", "resourceType": "daemon"},
    "waitSeconds": 30,
}


def request(path: str, data: Any) -> bytes:
    body = json.dumps(data).encode()
    head = (
        f"POST /v1{path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def answer_of(stream: trio.SocketStream) -> Any:
    """The JSON of the next answer."""
    data = b""
    while True:
        head, end, body = data.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().split(b"content-length:")[1].split(b"\r")[0]):
            return json.loads(body)
        piece = await stream.receive_some(65_536)
        assert piece, data
        data += piece


async def asked(port: int, path: str, data: Any) -> Any:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request(path, data))
        return await answer_of(stream)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["closed", "half closed", "reset"])
async def test_whoever_left_keeps_no_command_from_the_next(tmp_path: Path, how: str) -> None:
    """Ten times, so that some leave before their lease is stored, some meanwhile, and some after it was answered."""
    async with serving(tmp_path / "data") as service:
        with trio.fail_after(SECONDS_MAX):
            await asked(service.port, "/commands/leases", LEASE | {"waitSeconds": 0})
            for number in range(10):
                stream = await trio.open_tcp_stream("127.0.0.1", service.port)
                await stream.send_all(request("/commands/leases", LEASE))
                made = await asked(service.port, "/commands", COMMAND)
                await trio.sleep(number * 0.001)
                received = await left(stream, how)
                found = await asked(service.port, "/commands/leases", LEASE | {"leaseSeconds": 600, "waitSeconds": 1})
                ids = [(lease["commandId"], lease["attempt"]) for lease in found["leases"]]
                if ids:
                    assert ids == [(made["commandId"], 1)]
                    assert made["commandId"] not in received
                else:  # its answer was on its way before
                    assert how != "half closed" or made["commandId"] in received


async def left(stream: trio.SocketStream, how: str) -> str:
    """Leave; what was received nevertheless."""
    if how == "half closed":
        async with stream:
            await stream.send_eof()
            return str(await everything(stream))
    if how == "reset":
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing sends RST
    await stream.aclose()
    return ""


async def everything(stream: trio.SocketStream) -> list[bytes]:
    pieces = []
    while piece := await stream.receive_some(65_536):
        pieces.append(piece)
    return pieces
