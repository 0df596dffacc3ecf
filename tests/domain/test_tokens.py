"""What each scope may do, and the life of a token."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_es.domain.errors import TokenIdTaken, TokenNotFound
from arc_es.domain.events import TokenCreated, TokenRevoked, TokenScope
from arc_es.domain.ids import OPERATOR, Target
from arc_es.domain.tokens import ADMIN, OPEN, RIGHTS, Grant, Right, Scope, Token, decide_token, evolve_token

SHA = "a" * 64
CREATED = TokenCreated(scope="sender", sha256=SHA, deployments=("dep",), name="n", expires_at=50)

deployments = st.sampled_from(["dep", "other", ""])
ids = st.sampled_from(["indexer", "mailer", OPERATOR, ""])
commands = st.sampled_from(["report/build", "restart", ""])
types = st.sampled_from(["worker", "container", "daemon"])
targets = st.builds(Target, ids, types)
grants = st.builds(
    Grant,
    st.sampled_from([*get_args(TokenScope), "open"]),
    st.none() | st.frozensets(deployments, min_size=1),
    st.none() | st.frozensets(targets, min_size=1),
    st.none() | commands,
)


# `arc.v1` 1.7 and extensions "Tokens", row by row
@pytest.mark.parametrize(
    ("scope", "rights"),
    [
        ("open", {"create", "read", "cancel", "lease", "audit", "administer"}),
        ("admin", {"create", "read", "cancel", "lease", "audit", "administer"}),
        ("sender", {"create", "read", "cancel"}),
        ("receiver", {"read", "lease"}),
        ("auditor", {"read", "audit"}),
        ("operations", {"create"}),
    ],
)
def test_what_a_scope_may_do_at_all(scope: Scope, rights: set[Right]) -> None:
    assert {right for right in get_args(Right) if Grant(scope).allows(right)} == rights


def test_every_scope_has_its_rights() -> None:
    assert set(RIGHTS) == {*get_args(TokenScope), "open"}


@pytest.mark.parametrize(
    ("grant", "deployment_id", "target_id", "command", "allowed"),
    [
        (OPEN, "dep", OPERATOR, "restart", True),
        (ADMIN, "dep", "indexer", "report/build", True),
        (ADMIN, "dep", None, "report/build", True),
        (ADMIN, "dep", OPERATOR, "restart", False),
        (Grant("sender"), "any", "indexer", "c", True),
        (Grant("sender"), "any", OPERATOR, "c", False),
        (Grant("sender", frozenset({"dep"})), "dep", "indexer", "c", True),
        (Grant("sender", frozenset({"dep"})), "dep", OPERATOR, "c", False),
        (Grant("sender", frozenset({"dep"})), "other", "indexer", "c", False),
        (Grant("receiver", frozenset({"dep"})), "dep", "indexer", "c", False),
        (Grant("auditor"), "dep", "indexer", "c", False),
        (Grant("operations", frozenset({"dep"}), None, "restart"), "dep", OPERATOR, "restart", True),
        (Grant("operations", frozenset({"dep"}), None, "restart"), "dep", OPERATOR, "stop", False),
        (Grant("operations", frozenset({"dep"}), None, "restart"), "dep", "indexer", "restart", False),
        (Grant("operations", frozenset({"dep"}), None, "restart"), "dep", None, "restart", False),
        (Grant("operations", frozenset({"dep"}), None, "restart"), "other", OPERATOR, "restart", False),
    ],
)
def test_what_may_be_created(
    grant: Grant, deployment_id: str, target_id: str | None, command: str, *, allowed: bool
) -> None:
    assert grant.may_create(deployment_id, target_id, command) is allowed


@given(grants, deployments, targets)
def test_a_target_is_covered_only_with_its_deployment(grant: Grant, deployment_id: str, target: Target) -> None:
    if grant.covers(deployment_id, target):
        assert grant.covers_deployment(deployment_id)
    if grant.targets is None:
        assert grant.covers(deployment_id, target) == grant.covers_deployment(deployment_id)


@given(grants, deployments, targets)
def test_exact_targets_are_those_and_never_the_operator(grant: Grant, deployment_id: str, target: Target) -> None:
    if grant.targets is not None:
        expected = target in grant.targets and target.resource_id != OPERATOR
        assert grant.covers(deployment_id, target) == (expected and grant.covers_deployment(deployment_id))


@given(grants, deployments, ids, types)
def test_a_target_without_a_type_goes_by_its_id(grant: Grant, deployment_id: str, name: str, kind: str) -> None:
    """Whoever could fix the type so that the target is covered sees it before as well, and nobody else does."""
    untyped = grant.covers(deployment_id, Target(name))
    assert untyped == any(grant.covers(deployment_id, Target(name, one)) for one in ("worker", "container", "daemon"))


@given(grants, deployments, st.none() | ids, commands)
def test_only_operations_create_for_the_operator(
    grant: Grant, deployment_id: str, target_id: str | None, command: str
) -> None:
    if grant.scope != "open" and grant.may_create(deployment_id, target_id, command):
        assert grant.allows("create")
        assert grant.covers_deployment(deployment_id)
        assert (target_id == OPERATOR) == (grant.scope == "operations")


@given(grants, deployments, deployments, targets, commands)
def test_a_smaller_grant_never_allows_more(
    grant: Grant, only: str, deployment_id: str, target: Target, command: str
) -> None:
    smaller = Grant(grant.scope, frozenset({only}), frozenset({target}), grant.command)
    wider = Grant(grant.scope, None, None, grant.command)
    assert smaller.covers(deployment_id, target) <= wider.covers(deployment_id, target)
    created = deployment_id, target.resource_id, command
    assert smaller.may_create(*created) <= wider.may_create(*created)


# --- one token's life


def test_a_token_is_made_once_and_revoked_once() -> None:
    assert decide_token(CREATED, None) == (CREATED,)
    token = evolve_token(None, CREATED, 5)
    assert token == Token(Grant("sender", frozenset({"dep"})), SHA, 5, "n", 50)
    with pytest.raises(TokenIdTaken):
        decide_token(CREATED, token)
    assert decide_token(TokenRevoked(), token) == (TokenRevoked(),)
    revoked = evolve_token(token, TokenRevoked(), 9)
    assert revoked.revoked_at == 9
    assert decide_token(TokenRevoked(), revoked) == ()


def test_what_was_never_made_cannot_be_revoked() -> None:
    with pytest.raises(TokenNotFound):
        decide_token(TokenRevoked(), None)
    with pytest.raises(TokenNotFound):
        evolve_token(None, TokenRevoked(), 5)


@pytest.mark.parametrize(
    ("expires_at", "revoked_at", "now", "alive"),
    [(None, None, 10**18, True), (50, None, 49, True), (50, None, 50, False), (None, 9, 9, False), (50, 9, 8, False)],
)
def test_until_when_a_token_lives(expires_at: int | None, revoked_at: int | None, now: int, *, alive: bool) -> None:
    """Once it is revoked it is dead at any time: clocks of nodes differ."""
    assert Token(ADMIN, SHA, 5, None, expires_at, revoked_at).alive(now) is alive


def test_a_restriction_that_was_stored_is_kept() -> None:
    event = TokenCreated(scope="receiver", sha256=SHA, deployments=("dep",), targets=(Target("indexer", "daemon"),))
    grant = evolve_token(None, event, 5).grant
    assert grant == Grant("receiver", frozenset({"dep"}), frozenset({Target("indexer", "daemon")}))
    operations = TokenCreated(scope="operations", sha256=SHA, deployments=("dep",), command="restart")
    assert evolve_token(None, operations, 5).grant == Grant("operations", frozenset({"dep"}), None, "restart")
