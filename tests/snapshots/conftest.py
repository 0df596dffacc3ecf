"""Fixtures: a service on a journal in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from tests.http.driver import Served, serving


@pytest.fixture
async def served() -> AsyncGenerator[Served, None]:
    async with serving() as found:
        yield found
