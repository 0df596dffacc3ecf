"""Which command `idempotency` finds under a key."""

from __future__ import annotations

import pytest

from arc_es.domain.limits import IDEMPOTENCY_WINDOW
from tests.projections.world import T0, World, created, leased, succeeded

SCOPE = ("dep", "indexer", "report/build", "key-1")


def keyed(key: str = "key-1") -> World:
    world = World()
    world.given("a", created(idempotency_key=key, params_digest="d" * 64))
    return world


def test_a_key_finds_its_command_for_as_long_as_it_lives_and_after() -> None:
    world = keyed()
    for event in (leased(), succeeded()):
        world.given("a", event)
    assert world.models.idempotency.holder(*SCOPE) == "a"


@pytest.mark.parametrize("part", range(4))
def test_a_key_means_something_only_in_its_scope(part: int) -> None:
    scope = list(SCOPE)
    scope[part] = "other"
    assert keyed().models.idempotency.holder(*scope) is None


def test_commands_without_a_key_are_not_remembered() -> None:
    world = World()
    world.given("a", created())
    assert len(world.models.idempotency) == 0


def test_a_key_is_forgotten_when_its_window_is_over_and_not_before() -> None:
    world = keyed()
    world.given("b", created(), at=T0 + IDEMPOTENCY_WINDOW - 1)
    assert world.models.idempotency.holder(*SCOPE) == "a"
    world.given("b", leased(), at=T0 + IDEMPOTENCY_WINDOW)
    assert world.models.idempotency.holder(*SCOPE) is None
    assert len(world.models.idempotency) == 0


def test_the_newest_command_holds_the_key_and_outlives_the_older_one() -> None:
    world = keyed()
    world.given("b", created(idempotency_key="key-1", params_digest="e" * 64), at=T0 + 5)
    assert world.models.idempotency.holder(*SCOPE) == "b"
    world.given("c", created(), at=T0 + IDEMPOTENCY_WINDOW)
    assert world.models.idempotency.holder(*SCOPE) == "b"


def test_a_clock_that_goes_back_forgets_nothing() -> None:
    world = keyed()
    world.given("b", created(), at=T0 - IDEMPOTENCY_WINDOW)
    assert world.models.idempotency.holder(*SCOPE) == "a"
