"""Bodies of 1 MiB up and down per second through our signed URLs, as a share of a bare Quart-Trio streaming endpoint.

python -m tests.bench.bodies [--rounds 5] [--bodies 160]

Up: JetStream object store, fsync always; the bare endpoint reads the body and drops it. Down: the bare endpoint sends
1 MiB from memory. All are measured in turn, in the same run, 8 connections. Beside them: writing the same bytes to
files with fsync, which is what the disk allows, and who used how much CPU.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from tests.bench.drive import Answer, Session, drive, request
from tests.bench.servers import Server, bare_endpoint, service

CONNECTIONS = 8
BODY = os.urandom(1024 * 1024)
STORAGE = {"deploymentId": "dep_b", "command": "keep", "targetResourceId": "store", "params": {"mode": "storage"}}
BARE = "/v1/storage"


def exchange(connection: socket.socket, head: bytes, body: bytes = b"") -> int:
    """One request on a kept connection; the bytes of the answer's body."""
    connection.sendall(head)
    if body:
        connection.sendall(body)
    buffer = bytearray(1 << 20)
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65_536)
    found, _, rest = received.partition(b"\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 200"), found
    length = int(found.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    left = length - len(rest)
    while left:
        left -= connection.recv_into(buffer)
    return length


def side_by_side(work: Callable[[int], None]) -> float:
    """Seconds until all connections are through; each has a thread, which most of the time waits for its socket."""
    began = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(work, range(CONNECTIONS)))
    return time.perf_counter() - began


@dataclass(frozen=True, slots=True)
class Measured:
    """Bodies per second, and milliseconds of CPU for each: of the server, and of its nats-server."""

    rate: float
    cpu: float
    nats_cpu: float


def measure(server: Server, method: str, paths: Sequence[str], count: int) -> Measured:
    """Move `count` bodies, each connection by a path of its own."""
    each = count // CONNECTIONS
    nats = nats_of(server)
    before = server.cpu_seconds(), nats.cpu_seconds() if nats else 0.0

    def work(number: int) -> None:
        field = f"Content-Length: {len(BODY)}\r\n" if method == "PUT" else ""
        head = f"{method} {paths[number % len(paths)]} HTTP/1.1\r\nHost: 127.0.0.1\r\n{field}\r\n".encode()
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            for _ in range(each):
                length = exchange(connection, head, BODY if method == "PUT" else b"")
                assert length == (0 if method == "PUT" else len(BODY))

    seconds, total = side_by_side(work), each * CONNECTIONS
    used = server.cpu_seconds() - before[0], (nats.cpu_seconds() if nats else 0.0) - before[1]
    return Measured(total / seconds, used[0] / total * 1e3, used[1] / total * 1e3)


def nats_of(server: Server) -> Server | None:
    """The nats-server of a service."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return Server(0, int(children[0])) if children else None


def written(folder: Path, count: int) -> float:
    """Files of the same bytes, each fsynced, per second."""

    def work(number: int) -> None:
        for turn in range(count // CONNECTIONS):
            with (folder / f"{number}-{turn}").open("wb", buffering=0) as file:
                file.write(BODY)
                os.fsync(file.fileno())

    return count // CONNECTIONS * CONNECTIONS / side_by_side(work)


def prepared(port: int) -> tuple[list[str], list[str]]:
    """Upload paths of commands that wait for their params, and download paths of params that are sealed."""
    uploads: list[str] = []
    downloads: list[str] = []

    def path_of(presigned: Any) -> str:
        url = urlsplit(presigned["backend"]["url"])
        return f"{url.path}?{url.query}"

    def session() -> Session:
        for sealed in (False, True):
            answer: Answer = yield request("POST", "/v1/commands", orjson.dumps(STORAGE))
            created = orjson.loads(answer.body)
            upload = path_of(created["storageUpload"]["putRequest"])
            if not sealed:
                uploads.append(upload)
                continue
            yield request("PUT", upload, BODY)
            command = f"/v1/commands/{created['commandId']}"
            answer = yield request("POST", f"{command}/upload-complete", orjson.dumps({"size": len(BODY)}))
            assert answer.status == 200, answer
            answer = yield request("GET", f"{command}/payload")
            downloads.append(path_of(orjson.loads(answer.body)["params"]["storageGetRequest"]))

    drive(port, [session() for _ in range(CONNECTIONS)])
    return uploads, downloads


def show(what: str, floors: Sequence[Measured], ours: Sequence[Measured]) -> None:
    """Print two rates, their ratio, and where the time went."""
    shares = [our.rate / floor.rate for floor, our in zip(floors, ours, strict=True)]
    for name, rows in ((f"floor: bare endpoint, {what}", floors), (f"our signed URLs, {what}", ours)):
        rate, cpu, nats_cpu = (
            statistics.median(values)
            for values in zip(*((row.rate, row.cpu, row.nats_cpu) for row in rows), strict=True)
        )
        print(f"{name:34} {rate:8,.0f} MiB/s   CPU {cpu:6.2f} ms a body, nats-server {nats_cpu:6.2f} ms")
    spread = f"({min(shares):.2f} to {max(shares):.2f} over {len(shares)} pairs)"
    print(f"{'share of the floor, ' + what:34} {statistics.median(shares):8.2f} median   {spread}")


def main() -> None:
    """Print all rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bodies", type=int, default=160)
    options = parser.parse_args()
    ups: list[tuple[Measured, Measured, float]] = []
    downs: list[tuple[Measured, Measured]] = []
    with bare_endpoint() as bare, service() as real:
        uploads, downloads = prepared(real.port)
        for number in range(options.rounds + 1):
            with tempfile.TemporaryDirectory() as folder:
                disk = written(Path(folder), options.bodies)
            up = measure(bare, "PUT", [BARE], options.bodies), measure(real, "PUT", uploads, options.bodies), disk
            down = measure(bare, "GET", [BARE], options.bodies), measure(real, "GET", downloads, options.bodies)
            if number:  # the first is to warm up
                ups.append(up)
                downs.append(down)
    show("up", [row[0] for row in ups], [row[1] for row in ups])
    disk_shares = [our.rate / disk for _, our, disk in ups]
    print(f"{'floor: file and fsync':34} {statistics.median(row[2] for row in ups):8,.0f} MiB/s")
    spread = f"({min(disk_shares):.2f} to {max(disk_shares):.2f} over {len(disk_shares)} pairs)"
    print(f"{'share of the disk, up':34} {statistics.median(disk_shares):8.2f} median   {spread}")
    show("down", [row[0] for row in downs], [row[1] for row in downs])


if __name__ == "__main__":
    main()
