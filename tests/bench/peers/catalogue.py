"""The systems that are measured: what serves each, how many worker processes it has, and how many jobs its bulk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from tests.bench.peers import servers
from tests.bench.peers.servers import Serving

Runtime: TypeAlias = Literal["arc_es", "python", "node"]


@dataclass(frozen=True, slots=True)
class Peer:
    """A row of the table.

    `workers` is the number with which a job took least processor on two busy cores: one where workers get in each
    other's way, more where each does one thing at a time. `bulk_jobs` keeps the bulk at some seconds.
    """

    name: str
    script: str
    """In `systems`."""
    serving: Serving
    stores_in: str
    workers: int
    bulk_jobs: int
    runtime: Runtime = "python"
    python: tuple[int, int] = (3, 11)
    """The oldest that it runs on."""


PEERS = (
    Peer("arc_es", "arc_es.py", servers.nothing, "JetStream", 1, 3_000, "arc_es"),
    Peer("arc_es-2", "arc_es.py", servers.nothing, "JetStream", 2, 3_000, "arc_es"),
    Peer("arc_es-sdk", "arc_es_sdk.py", servers.arc_es, "JetStream", 1, 3_000, "arc_es"),
    Peer("bullmq", "bullmq.cjs", servers.redis, "Redis", 1, 6_000, "node"),
    Peer("beanstalkd", "beanstalkd.py", servers.beanstalkd, "own log", 1, 3_200),
    Peer("saq", "saq.py", servers.redis, "Redis", 1, 3_000),
    Peer("streaq", "streaq.py", servers.redis, "Redis", 1, 3_000),
    Peer("arq", "arq.py", servers.redis, "Redis", 1, 1_500),
    Peer("rq", "rq.py", servers.redis, "Redis", 4, 600),
    Peer("pgqueuer", "pgqueuer.py", servers.postgres, "PostgreSQL", 1, 10_000),
    Peer("oban", "oban.py", servers.postgres, "PostgreSQL", 1, 3_000, python=(3, 12)),
    Peer("absurd", "absurd.py", servers.postgres, "PostgreSQL", 2, 1_500),
    Peer("dbos", "dbos.py", servers.postgres, "PostgreSQL", 1, 1_000),
    Peer("procrastinate", "procrastinate.py", servers.postgres, "PostgreSQL", 2, 800),
)
NAMES = tuple(peer.name for peer in PEERS)
