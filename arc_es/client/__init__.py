"""A small HTTP client for the service; works on trio and on asyncio. Imports nothing of the server."""

from __future__ import annotations

from arc_es.client.client import ArcClient
from arc_es.client.errors import ArcError, BadAnswer, ServerUnreachable, UrlRefused
from arc_es.client.files import FileBody, Sink
from arc_es.client.lease import Lease
from arc_es.client.retry import Backoff, retrying

__all__ = [
    "ArcClient",
    "ArcError",
    "Backoff",
    "BadAnswer",
    "FileBody",
    "Lease",
    "ServerUnreachable",
    "Sink",
    "UrlRefused",
    "retrying",
]
