"""Whatever is sent as a token request is read or refused; what is read means the same after it was stored."""

from __future__ import annotations

from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st

from arc_es.domain.events import TokenCreated, TokenScope
from arc_es.domain.ids import Target
from arc_es.domain.tokens import evolve_token
from arc_es.tokens import TokenRequest, parse_token_request, token_json
from arc_es.wire import WireError

names = st.text(max_size=8)
targets = st.fixed_dictionaries({"resourceId": names, "resourceType": st.sampled_from(["worker", "daemon", "x"])})
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
likely = st.fixed_dictionaries(
    {"scope": st.sampled_from(get_args(TokenScope))},
    optional={
        "deployments": st.lists(names, max_size=3) | anything,
        "targets": st.lists(targets, max_size=3) | anything,
        "command": names | anything,
        "ttlSeconds": st.integers() | anything,
        "name": names | anything,
    },
)


def read(value: Any) -> TokenRequest | None:
    try:
        return parse_token_request(value)
    except WireError:
        return None


@given(anything | likely)
def test_it_is_read_or_refused(value: Any) -> None:
    request = read(value)
    if request is None:
        return
    assert (request.targets is not None) <= (request.scope == "receiver")
    assert (request.command is not None) == (request.scope == "operations")
    assert request.scope != "admin" or request.deployments is None
    assert request.deployments != ()
    assert request.targets != ()
    assert request.ttl_seconds is None or request.ttl_seconds >= 1


@given(likely)
def test_what_is_shown_asks_for_the_same_again(value: Any) -> None:
    request = read(value)
    if request is None:
        return
    event = TokenCreated(
        scope=request.scope,
        sha256="0" * 64,
        deployments=request.deployments,
        targets=request.targets,
        command=request.command,
        name=request.name,
    )
    token = evolve_token(None, event, 0)
    again = parse_token_request(token_json("id", token))
    assert (again.scope, again.command, again.name) == (request.scope, request.command, request.name)
    assert set(again.deployments or ()) == set(request.deployments or ())
    assert set(again.targets or ()) == set(request.targets or ()) == (token.grant.targets or set())
    assert all(isinstance(target, Target) for target in again.targets or ())
