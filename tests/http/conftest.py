"""Fixtures: a service with an admin token, and an open one; virtual time for all tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.http.driver import Client, Served, serving
from tests.http.virtual_time import use_virtual_time


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    use_virtual_time(items, Path(__file__).parent)


@pytest.fixture
async def served() -> AsyncGenerator[Served, None]:
    async with serving() as found:
        yield found


@pytest.fixture
async def open_served() -> AsyncGenerator[Served, None]:
    async with serving(admin_token=None) as found:
        found.client.token = None
        yield found


@pytest.fixture
def client(served: Served) -> Client:
    return served.client
