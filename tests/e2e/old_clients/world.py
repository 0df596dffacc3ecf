"""A service for old clients: started once for a module, and what each test needs of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from tests.e2e.old_clients.http import Http, http
from tests.e2e.process import ServiceProcess, free_port

ADMIN = "admin-token-123"


@contextmanager
def shared_service(directory: Path, *options: str) -> Iterator[ServiceProcess]:
    """A service with an admin token and a public URL, for tests that each have an event loop of their own."""
    bind = f"127.0.0.1:{free_port()}"
    public = ("--public-url", f"http://{bind}/v1")
    service = ServiceProcess(directory / "data", *public, *options, bind=bind, ARC_ADMIN_TOKEN=ADMIN)
    try:
        trio.run(service.start)
        yield service
    finally:
        trio.run(service.kill)


@dataclass(frozen=True)
class World:
    """One deployment of it, and tokens with no more rights than old clients have."""

    http: Http
    url: str
    deployment: str
    sender: str
    receiver: str

    async def admin(self, method: str, path: str, data: Any = None) -> Any:
        """The JSON of an answer to the administrator."""
        return (await self.http.call(method, f"{self.url}/v1{path}", data, bearer=ADMIN)).ok()

    async def mint(self, scope: str, **more: Any) -> str:
        token: str = (await self.admin("POST", "/tokens", {"scope": scope, **more}))["token"]
        return token

    async def declare(self, *targets: Any, **more: Any) -> None:
        """Make the deployment strict."""
        model = {"model": "push" if any("push" in target for target in targets) else "pull"}
        await self.admin("PUT", f"/deployments/{self.deployment}", {**model, "targets": [*targets], **more})

    async def status(self, command_id: str) -> Any:
        return await self.admin("GET", f"/commands/{command_id}")

    async def until(self, command_id: str, **expected: Any) -> Any:
        """Wait until the status shows this."""
        while True:
            status = await self.status(command_id)
            if expected.items() <= status.items():
                return status
            await trio.sleep(0.02)  # another process cannot set our event


@asynccontextmanager
async def world_of(service: ServiceProcess, deployment: str) -> AsyncGenerator[World, None]:
    async with http() as client:
        bare = World(client, f"http://{service.bind}", deployment, "", "")
        own = {"deployments": [deployment]}
        sender, receiver = await bare.mint("sender", **own), await bare.mint("receiver", **own)
        yield World(client, bare.url, deployment, sender, receiver)
