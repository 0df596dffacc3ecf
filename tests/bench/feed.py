"""The feed: events/s to one live reader, and creates beside 100 readers that never read, as a share of creates alone.

python -m tests.bench.feed [--commands 3000] [--rounds 5] [--readers 100]

The floor of the first is decoding and encoding the same events in a loop of one process, without a service. Old events
are read from the journal after a restart of the service, recent ones from memory. For the second, creates without and
with readers are measured in turn; wanted: a share of 1.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import tempfile
import time
from pathlib import Path

import orjson

from arc_es.codec import decode, encode
from arc_es.domain.events import Body, CommandCreated
from arc_es.domain.recorded import CommandKey, Decision, Principal
from arc_es.event_json import event_entries
from arc_es.ports import Message
from tests.bench import create
from tests.bench.drive import drive
from tests.bench.servers import Server, service

RECEIVE_BYTES = 1 << 18
FEED = b"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
SMALL_WINDOW_BYTES = 4_096


def fill(server: Server, commands: int) -> None:
    """That many commands."""
    drive(server.port, [create.creates(commands // create.CONNECTIONS) for _ in range(create.CONNECTIONS)])


def read_all(server: Server, events: int) -> float:
    """Events a second until one live reader has so many."""
    with socket.create_connection(("127.0.0.1", server.port)) as reader:
        started = time.perf_counter()
        reader.sendall(FEED)
        seen, tail = 0, b""
        while seen < events:
            piece = reader.recv(RECEIVE_BYTES)
            assert piece, "the feed ended"
            tail += piece
            seen += tail.count(b"data: ")
            tail = tail[-5:]  # a mark that is cut in two
        return events / (time.perf_counter() - started)


def floor(events: int) -> float:
    """Events a second: stored bytes to Event JSON, and nothing else."""
    body = Body(place="event", size=20, sha256="a" * 64, base64="eyJkYXkiOiIyMDI2LTAzLTAxIn0=")
    event = CommandCreated(
        deployment_id="dep_7", command="report/build", target_id="indexer", target_type=None, params=body
    )
    payload = encode(Decision("d" * 32, 1, Principal("open", "open", "127.0.0.1"), (event,)))
    started = time.perf_counter()
    for position in range(events):
        message = Message(position, CommandKey("dep_7", "cmd_1"), payload)
        [orjson.dumps(entry) for entry in event_entries(message, decode(message.payload))]
    return events / (time.perf_counter() - started)


def slow_reader(port: int) -> socket.socket:
    """A reader that takes nothing but the first bytes."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW_BYTES)
    reader.connect(("127.0.0.1", port))
    reader.sendall(FEED)
    assert reader.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 200"
    return reader


def beside(server: Server, readers: int, requests: int) -> tuple[float, float]:
    """Creates a second alone, and beside readers that stand still."""
    alone, _ = create.measure(server, requests)
    slow = [slow_reader(server.port) for _ in range(readers)]
    create.measure(server, requests // 3)  # they fill what the system keeps for them
    together, _ = create.measure(server, requests)
    for reader in slow:
        reader.close()
    return alone, together


def main() -> None:
    """Print the rates and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=3_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--readers", type=int, default=100)
    parser.add_argument("--requests", type=int, default=1_000)
    options = parser.parse_args()
    events = options.commands // create.CONNECTIONS * create.CONNECTIONS
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        with service(data) as real:
            fill(real, options.commands)
            recent = [read_all(real, events) for _ in range(options.rounds)]
            pairs = [beside(real, options.readers, options.requests) for _ in range(options.rounds)]
        with service(data) as real:
            old = [read_all(real, events) for _ in range(options.rounds)]
    floors = [floor(events) for _ in range(options.rounds)]
    base = statistics.median(floors)
    print(f"{'floor: stored bytes to Event JSON':40} {base:10,.0f} events/s")
    for name, rates in (("one live reader, from memory", recent), ("one live reader, from the journal", old)):
        rate = statistics.median(rates)
        print(f"{name:40} {rate:10,.0f} events/s   {rate / base:5.2f} of the floor")
    shares = [together / alone for alone, together in pairs]
    share = f"{statistics.median(shares):10.2f} of creates alone, median"
    spread = f"{min(shares):.2f} to {max(shares):.2f} over {len(shares)} pairs"
    print(f"{f'creates beside {options.readers} slow readers':40} {share}   ({spread})")


if __name__ == "__main__":
    main()
