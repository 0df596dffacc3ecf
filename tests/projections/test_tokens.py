"""Which tokens there are."""

from __future__ import annotations

import pytest

from arc_es.domain.errors import ImpossibleHistory
from arc_es.domain.events import TokenCreated, TokenRevoked
from arc_es.domain.recorded import DeploymentKey, Recorded, TokenKey
from projections import Projections
from tests.domain.story import created
from tests.projections.world import T0

MADE = TokenCreated(scope="auditor", sha256="a" * 64)


def apply(models: Projections, position: int, *events: TokenCreated | TokenRevoked, token_id: str = "t") -> None:
    assert models.apply(Recorded(position, TokenKey(token_id), T0 + position, events)) is None


def test_nothing_is_known_of_a_token_that_was_never_made() -> None:
    models = Projections()
    assert models.tokens.get("t") is None
    assert models.tokens.version("t") == 0
    assert list(models.tokens.all()) == []


def test_a_token_is_known_also_after_it_was_revoked() -> None:
    models = Projections()
    apply(models, 3, MADE)
    apply(models, 4, MADE, token_id="u")
    apply(models, 7, TokenRevoked())
    token = models.tokens.get("t")
    assert token is not None
    assert (token.grant.scope, token.created_at, token.revoked_at) == ("auditor", T0 + 3, T0 + 7)
    assert [name for name, _ in models.tokens.all()] == ["t", "u"]
    assert (models.tokens.version("t"), models.tokens.version("u")) == (7, 4)
    assert (models.stats.messages, models.stats.events) == (3, 3)


def test_a_decision_is_applied_once_and_only_what_can_happen_to_a_token() -> None:
    models = Projections()
    with pytest.raises(ImpossibleHistory):
        apply(models, 2, TokenRevoked())
    apply(models, 3, MADE)
    for position, event in ((3, TokenRevoked()), (2, TokenRevoked()), (4, MADE), (4, created())):
        with pytest.raises(ImpossibleHistory):
            models.apply(Recorded(position, TokenKey("t"), T0, (event,)))
    assert models.tokens.version("t") == 3
    with pytest.raises(ImpossibleHistory):
        models.apply(Recorded(9, DeploymentKey("t"), T0, (MADE,)))
