"""One worker of several: a whole serving process, on the socket, the board and the nats-server that it was given.

Run by the supervisor as `python -m arc_es.workers.worker`. What it needs to know comes as one line of JSON on its
stdin, since it has secrets in it. What it has to say goes to its stdout, a word a line: `opened`, `ready`, `restart`
(nats-server does not store any more and is to be started again).
"""

from __future__ import annotations

import socket
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson
import trio

from arc_es.config import Config
from arc_es.journal.server import disk_free_bytes
from arc_es.journal.watch import Disk
from arc_es.nats_access import Access
from arc_es.serving import Place, run_logged, serve
from arc_es.stores import open_on
from arc_es.workers.board import Board

OPENED: Final = "opened"
READY: Final = "ready"
RESTART: Final = "restart"


def orders(config: Config, number: int, listener: int, board: Board, access: Access, bytes_max: int | None) -> bytes:
    """What worker `number` is told. listener: a descriptor. bytes_max: of our own nats-server; None: it is not ours."""
    told = {
        "config": asdict(config),
        "number": number,
        "listener": listener,
        "board": board.fd,
        "access": asdict(access),
        "bytesMax": bytes_max,
    }
    return orjson.dumps(told, default=str) + b"\n"


def main() -> int:
    """Serve as told; returns the exit status."""
    told: dict[str, Any] = orjson.loads(sys.stdin.buffer.readline())
    config = Config(**{**told["config"], "data_dir": Path(told["config"]["data_dir"])})
    number: int = told["number"]
    line = Board(told["board"], config.workers).line(number)
    listener = socket.socket(fileno=told["listener"])
    listener.setblocking(False)  # noqa: FBT003 - a positional-only parameter

    def ready() -> None:
        line.serve()
        _say(READY)

    bytes_max: int | None = told["bytesMax"]
    disk = None
    if bytes_max is not None:
        disk = Disk(bytes_max, partial(disk_free_bytes, config.data_dir), partial(_say, RESTART))
    stores = partial(open_on, Access(**told["access"]), config, disk)
    place = Place(listener, stores, number, line, opened=partial(_say, OPENED), ready=ready)
    return run_logged(config, lambda: trio.run(serve, config, place), f"worker {number} ")


def _say(word: str) -> None:
    print(word, flush=True)  # noqa: T201 - to the supervisor


if __name__ == "__main__":
    sys.exit(main())
