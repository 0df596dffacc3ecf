"""One service for all that old clients do (`tests/e2e/old_clients`)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator

import pytest
import trio

from tests.e2e.old_clients.world import World, shared_service, world_of
from tests.e2e.process import ServiceProcess

SECONDS_MAX = 30


@pytest.fixture(scope="session", params=["1", pytest.param("2", marks=pytest.mark.slow)], ids="workers={}".format)
def service(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[ServiceProcess]:
    """With an admin token and a public URL. It lives as long as the session: each test has a deployment of its own."""
    with shared_service(tmp_path_factory.mktemp("protocol"), "--workers", request.param) as started:
        yield started


@pytest.fixture
async def world(service: ServiceProcess, request: pytest.FixtureRequest) -> AsyncGenerator[World, None]:
    """The test's own deployment, and time for it to end."""
    with trio.fail_after(SECONDS_MAX):
        async with world_of(service, request.node.name) as found:
            yield found
