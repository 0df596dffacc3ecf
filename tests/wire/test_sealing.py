"""Push tokens at rest: only the right key, deployment and target open them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_es.declarations import declaration_json, parse_declaration, resealed
from arc_es.domain.events import DeclaredTarget, DeploymentDeclared, PushSettings
from arc_es.sealing import CannotUnseal, Sealer

SEALER = Sealer(b"example-signing-key")
SEALED = "siv1.7a1af4bf500522ac._42aAU3IWZr8Z673nLYZG9jq_HBWN2J6iMEvBNKxJw"
TOKEN = "worker-secret-1"
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
tokens = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)


def test_the_stored_form_has_not_changed() -> None:
    """A difference means that sealed tokens in the field can no longer be opened."""
    assert SEALER.seal(TOKEN, "dep", "indexer") == SEALED
    assert SEALER.open(SEALED, "dep", "indexer") == TOKEN


@given(tokens, names, names, st.binary(min_size=1))
def test_it_opens_where_it_was_sealed(token: str, deployment_id: str, target_id: str, key: bytes) -> None:
    sealer = Sealer(key)
    sealed = sealer.seal(token, deployment_id, target_id)
    assert sealer.seal(token, deployment_id, target_id) == sealed
    assert token not in sealed.rpartition(".")[2] or len(token) < 4
    assert sealer.is_current(sealed)
    assert sealer.open(sealed, deployment_id, target_id) == token
    for place in ((deployment_id + "x", target_id), (deployment_id, target_id + "x"), (target_id + "y", deployment_id)):
        with pytest.raises(CannotUnseal):
            sealer.open(sealed, *place)


def test_parts_of_a_place_do_not_run_together() -> None:
    assert SEALER.seal(TOKEN, "ab", "c") != SEALER.seal(TOKEN, "a", "bc")
    with pytest.raises(CannotUnseal):
        SEALER.open(SEALER.seal(TOKEN, "ab", "c"), "a", "bc")


@pytest.mark.parametrize(
    "sealed",
    ["", "siv1", "siv1..", TOKEN, SEALED[:-4] + "AAAA", SEALED + "é", f"siv2{SEALED[4:]}", f"siv1.00{SEALED[7:]}"],
)
def test_what_is_damaged_does_not_open_and_is_not_shown(sealed: str) -> None:
    with pytest.raises(CannotUnseal) as refused:
        SEALER.open(sealed, "dep", "indexer")
    assert SEALED[25:] not in str(refused.value)


def test_old_keys_open_and_the_current_one_seals() -> None:
    newer = Sealer(b"new", [b"other", b"example-signing-key"])
    assert newer.open(SEALED, "dep", "indexer") == TOKEN
    assert not newer.is_current(SEALED)
    again = newer.seal(TOKEN, "dep", "indexer")
    assert newer.is_current(again)
    with pytest.raises(CannotUnseal, match=r"declare the deployment again"):
        SEALER.open(again, "dep", "indexer")
    assert "new" not in repr(newer)


def declared(push: PushSettings | None) -> DeploymentDeclared:
    target = DeclaredTarget(resource_id="indexer", resource_type="worker", push=push)
    return DeploymentDeclared(model="pull", targets=(target,))


def test_a_declaration_is_sealed_as_it_is_read() -> None:
    push = {"url": "http://127.0.0.1:9/x", "token": TOKEN}
    wanted = {"targets": [{"resourceId": "indexer", "resourceType": "worker", "push": push}]}
    found = parse_declaration(wanted, lambda target_id, token: SEALER.seal(token, "dep", target_id))
    assert found == declared(PushSettings(url="http://127.0.0.1:9/x", token_sealed=SEALED))
    assert TOKEN not in repr(found)
    assert SEALER.token_of("dep", found.targets[0]) == TOKEN
    shown = declaration_json("dep", found)["targets"][0]["push"]
    assert shown == {"url": "http://127.0.0.1:9/x", "timeoutSeconds": 180}


@pytest.mark.parametrize(
    "push", [None, PushSettings(url="http://a"), PushSettings(url="http://a", token_sealed=SEALED)]
)
def test_what_is_sealed_already_stays(push: PushSettings | None) -> None:
    assert resealed("dep", declared(push), SEALER) == declared(push)


@pytest.mark.parametrize(
    "push", [PushSettings(url="http://a", token=TOKEN), PushSettings(url="http://a", token_sealed=SEALED)]
)
def test_what_is_in_clear_or_under_an_old_key_is_sealed_anew(push: PushSettings) -> None:
    newer = Sealer(b"new", [b"example-signing-key"])
    again = resealed("dep", declared(push), newer)
    sealed = newer.seal(TOKEN, "dep", "indexer")
    assert again == declared(PushSettings(url="http://a", token_sealed=sealed))
    assert SEALER.token_of("dep", declared(push).targets[0]) == TOKEN
    assert SEALER.token_of("dep", declared(None).targets[0]) is None
