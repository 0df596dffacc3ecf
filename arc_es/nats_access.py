"""Where NATS is, who we are there, and what the server says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Access:
    """Where the servers are and who we are there. An empty user means no authentication."""

    servers: Sequence[str] = field(repr=False)  # a URL may hold a password
    user: str = ""
    password: str = field(default="", repr=False)

    def options(self) -> dict[str, Any]:
        """The same for nats-py."""
        options: dict[str, Any] = {"servers": list(self.servers)}
        if self.user:
            options |= {"user": self.user, "password": self.password}
        return options

    def scrub(self, text: str) -> str:
        """The text without our passwords."""
        for secret in (self.password, *(urlsplit(server).password for server in self.servers)):
            text = text.replace(secret, "***") if secret else text
        return text


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What the connected server says of itself."""

    version: str
    max_payload_bytes: int
