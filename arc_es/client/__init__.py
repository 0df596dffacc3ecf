"""The Python SDK: `Caller` asks, `Worker` does; `ArcClient` below them makes single calls.

The same code runs on trio and on asyncio. Imports nothing of the server.
"""

from __future__ import annotations

from arc_es.client.caller import Caller, Command
from arc_es.client.client import ArcClient
from arc_es.client.context import CommandError, Context, GiveBack, Stopped, SyncContext
from arc_es.client.errors import (
    ArcError,
    BadAnswer,
    CommandCancelled,
    CommandEnded,
    CommandExpired,
    CommandFailed,
    NoResultYet,
    Refused,
    ServerUnreachable,
    Unavailable,
    UrlRefused,
)
from arc_es.client.files import FileBody, Sink
from arc_es.client.lease import Lease
from arc_es.client.notes import FolderNotes, MemoryNotes, Notes
from arc_es.client.receiving import AgentAnswer, Completion
from arc_es.client.retry import Backoff, retrying
from arc_es.client.sync import SyncCaller, SyncCommand
from arc_es.client.values import Unfit
from arc_es.client.watching import Outcome
from arc_es.client.worker import Worker

__all__ = [
    "AgentAnswer",
    "ArcClient",
    "ArcError",
    "Backoff",
    "BadAnswer",
    "Caller",
    "Command",
    "CommandCancelled",
    "CommandEnded",
    "CommandError",
    "CommandExpired",
    "CommandFailed",
    "Completion",
    "Context",
    "FileBody",
    "FolderNotes",
    "GiveBack",
    "Lease",
    "MemoryNotes",
    "NoResultYet",
    "Notes",
    "Outcome",
    "Refused",
    "ServerUnreachable",
    "Sink",
    "Stopped",
    "SyncCaller",
    "SyncCommand",
    "SyncContext",
    "Unavailable",
    "Unfit",
    "UrlRefused",
    "Worker",
    "retrying",
]
