"""What authentication costs a durable create: a scoped sender token against the same service without tokens.

python -m tests.bench.auth [--rounds 31] [--requests 320]

Two services, one open and one with tokens, are driven at the same time, in short rounds, so that whatever else the
machine does meets both alike. Wanted: at most 5 % fewer creates. The cost is given in rate, and in CPU of the service's
process. The open service is the floor.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import orjson

from tests.bench.create import BODY
from tests.bench.drive import Session, drive, request
from tests.bench.servers import Server, service

CONNECTIONS = 8
"""To each of the two."""
ADMIN = "an-admin-token-of-the-benchmark"
TOKEN_COUNT = 100
"""Tokens that the service knows besides the one in use."""


def with_token(data: bytes, token: str) -> bytes:
    """A request that presents a token."""
    line, _, rest = data.partition(b"\r\n")
    return line + b"\r\nAuthorization: Bearer " + token.encode() + b"\r\n" + rest


@contextmanager
def guarded_service() -> Iterator[tuple[Server, str]]:
    """A service with tokens, and one that may create in the deployment of the benchmark."""
    os.environ["ARC_ADMIN_TOKEN"] = ADMIN
    try:
        with service() as server:
            del os.environ["ARC_ADMIN_TOKEN"]
            tokens: list[str] = []
            drive(server.port, [_minted(tokens)])
            yield server, tokens[-1]
    finally:
        os.environ.pop("ARC_ADMIN_TOKEN", None)


def _minted(tokens: list[str]) -> Session:
    for number in range(TOKEN_COUNT + 1):
        deployment = "dep_7" if number == TOKEN_COUNT else f"dep_of_{number}"
        body = orjson.dumps({"scope": "sender", "deployments": [deployment]})
        answer = yield with_token(request("POST", "/v1/tokens", body), ADMIN)
        assert answer.status == 201, answer
        tokens.append(orjson.loads(answer.body)["token"])


def creates(data: bytes, count: int) -> Session:
    """Create that many commands, one after the other."""
    for _ in range(count):
        answer = yield data
        assert answer.status == 200, answer


def measure(server: Server, data: bytes, requests: int) -> tuple[float, float]:
    """Creates/s, and milliseconds of the process's CPU a create."""
    each = requests // CONNECTIONS
    before = cpu_seconds(server)
    seconds = drive(server.port, [creates(data, each) for _ in range(CONNECTIONS)])
    return each * CONNECTIONS / seconds, (cpu_seconds(server) - before) / (each * CONNECTIONS) * 1e3


def cpu_seconds(server: Server) -> float:
    """CPU time so far, to the nanosecond: a round takes few of the ticks of 10 ms that the usual figures count."""
    return sum(int(stat.read_text().split()[0]) for stat in Path(f"/proc/{server.pid}/task").glob("*/schedstat")) / 1e9


def main() -> None:
    """Print both rates and what the token costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--requests", type=int, default=320)
    options = parser.parse_args()
    plain = request("POST", "/v1/commands", BODY)
    pairs: list[tuple[tuple[float, float], tuple[float, float]]] = []
    with service() as free, guarded_service() as (guarded, token):
        presented = with_token(plain, token)
        for number in range(options.rounds + 1):
            with ThreadPoolExecutor(2) as pool:
                floor = pool.submit(measure, free, plain, options.requests)
                ours = pool.submit(measure, guarded, presented, options.requests)
            if number:  # the first is to warm up
                pairs.append((floor.result(), ours.result()))
    for name, side in (("floor: open service", 0), ("with a sender token", 1)):
        rate, cpu = (statistics.median(pair[side][value] for pair in pairs) for value in (0, 1))
        print(f"{name:34} {rate:8,.0f} creates/s   {cpu:6.3f} ms CPU of its process a create")
    show("fewer creates", [100 * (1 - ours[0] / floor[0]) for floor, ours in pairs])
    show("more CPU a create", [100 * (ours[1] / floor[1] - 1) for floor, ours in pairs])


def show(what: str, percents: list[float]) -> None:
    """Print a median and its spread."""
    low, _, high = statistics.quantiles(percents, n=4) if len(percents) > 1 else (percents[0],) * 3
    spread = f"(quartiles {low:+.1f} to {high:+.1f} %, all {min(percents):+.1f} to {max(percents):+.1f} %)"
    print(f"{what:34} {statistics.median(percents):+8.1f} % median   {spread}")


if __name__ == "__main__":
    main()
