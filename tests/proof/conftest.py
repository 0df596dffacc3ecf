"""A service that signs checkpoints, in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from arc_es.journal.subjects import event_subject
from arc_es.keyring import CheckpointSeeds
from arc_es.proof.proving import Proving
from arc_es.proof.tiles import Tiles
from tests.http.driver import Served, serving
from tests.http.virtual_time import use_virtual_time

SEED = bytes(range(32))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    use_virtual_time(items, Path(__file__).parent)


@pytest.fixture
def tiles() -> Iterator[Tiles]:
    made = Tiles()
    yield made
    made.close()


@pytest.fixture
async def served(tiles: Tiles) -> AsyncGenerator[Served, None]:
    async with serving(proving=Proving(CheckpointSeeds(SEED), tiles, event_subject)) as found:
        yield found
