"""Signatures: the vectors of `arc.v1` 2.6 and 2.10, and what must not verify."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_es.domain.limits import SECOND
from arc_es.signing import Method, OldKey, Signer, key_from_admin_token, parse_expires, response_seconds

SIGNER = Signer(b"example-signing-key")
COMMAND = "cmd_0f8c1d2e"
EXPIRES = 1_800_000_000
TOKEN = "5f8739a7ee2fb074f470a56f315606465196b8fbb2b721fd86e8ade1ac4af4e6"
NOW = EXPIRES * SECOND


def test_the_vector_of_response_tokens() -> None:
    assert SIGNER.response_token(COMMAND, EXPIRES) == TOKEN


def test_the_vector_of_the_key() -> None:
    wanted = "900d5ec63ab4e683021b2cfb26e983abaa4797301031a5eb398445273e7c94f1"
    assert key_from_admin_token("admin-token-123").hex() == wanted


@pytest.mark.parametrize(
    ("method", "kind", "wanted"),
    [
        ("PUT", "params", "905f2ac865a470b99e786fbec74dab53861641df4e33217a72e82b12679530f9"),
        ("GET", "params", "9260ac48d7431b90774b1ae3b89e3cc04f3afa4dad96896a28f1e833dadd51b1"),
        ("PUT", "response", "2fca8b4d3626348efd02474200159d21a49736042bc3f6114bcee0265b8e2cae"),
        ("GET", "response", "1153309a029af85153699f402e952f3a1580f49c2cecfbc1b9be5a75b2ae0f78"),
    ],
)
def test_the_vectors_of_storage(method: Method, kind: str, wanted: str) -> None:
    path = f"arc/commands/{COMMAND}/{kind}"
    assert SIGNER.storage_signature(method, path, EXPIRES) == wanted
    assert SIGNER.storage_valid(method, path, wanted, str(EXPIRES), now=NOW)
    assert SIGNER.storage_valid(method, path, wanted.upper(), str(EXPIRES), now=NOW)
    assert not SIGNER.storage_valid(method, path, wanted, str(EXPIRES), now=NOW + 1)
    assert not SIGNER.storage_valid(method, path, wanted, str(EXPIRES + 1), now=NOW)
    assert not SIGNER.storage_valid(method, path + "x", wanted, str(EXPIRES), now=NOW)
    other: Method = "GET" if method == "PUT" else "PUT"
    assert not SIGNER.storage_valid(other, path, wanted, str(EXPIRES), now=NOW)


def test_an_empty_key_is_refused_and_a_key_is_never_shown() -> None:
    with pytest.raises(ValueError, match="empty"):
        Signer(b"")
    with pytest.raises(ValueError, match="empty"):
        Signer(b"example", [OldKey(b"")])
    assert "example" not in repr(SIGNER)
    assert "example" not in repr(OldKey(b"example"))


# --- several keys

PATH = f"arc/commands/{COMMAND}/params"


def both_valid(signer: Signer, by: Signer, now: int = NOW) -> tuple[bool, bool]:
    """Whether one verifies what the other signed: an answer, a download."""
    token, signature = by.response_token(COMMAND, EXPIRES), by.storage_signature("GET", PATH, EXPIRES)
    return (
        signer.token_valid(COMMAND, token, EXPIRES, now, 0),
        signer.storage_valid("GET", PATH, signature, str(EXPIRES), now=now),
    )


def test_the_current_key_signs_and_old_ones_verify() -> None:
    oldest, older, new = Signer(b"1"), Signer(b"2"), Signer(b"3", [OldKey(b"2"), OldKey(b"1")])
    assert new.response_token(COMMAND, EXPIRES) == Signer(b"3").response_token(COMMAND, EXPIRES)
    assert both_valid(new, new) == both_valid(new, older) == both_valid(new, oldest) == (True, True)
    assert both_valid(older, new) == both_valid(new, Signer(b"4")) == (False, False)


@pytest.mark.parametrize(("until", "valid"), [(NOW, True), (NOW - 1, False), (NOW + 1, True), (None, True)])
def test_an_old_key_verifies_until_its_time_is_over(until: int | None, *, valid: bool) -> None:
    signer = Signer(b"new", [OldKey(b"old", until)])
    assert both_valid(signer, Signer(b"old")) == (valid, valid)
    assert both_valid(signer, signer) == (True, True)


def test_an_old_key_changes_nothing_about_when_a_url_ends() -> None:
    signer = Signer(b"new", [OldKey(b"old")])
    assert both_valid(signer, Signer(b"old"), NOW + 1) == (False, False)


def test_all_keys_are_tried_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which key it was, or that it was none, does not show in the number of comparisons."""
    compared: list[bool] = []

    def compare(one: str, other: str) -> bool:
        compared.append(one == other)
        return compared[-1]

    monkeypatch.setattr(hmac, "compare_digest", compare)
    signer = Signer(b"3", [OldKey(b"2", 0), OldKey(b"1")])
    for key in (b"1", b"2", b"3", b"4"):
        both_valid(signer, Signer(key))
        assert len(compared) == 6
        compared.clear()


@pytest.mark.parametrize(
    ("now_seconds", "lease_end_seconds", "valid"),
    [
        (EXPIRES, 0, True),
        (EXPIRES + 0.000001, 0, False),
        (EXPIRES - 7500, 0, True),
        (EXPIRES - 7500.000001, 0, False),
        (EXPIRES - 40_000, EXPIRES - 600, True),
        (EXPIRES - 40_000, EXPIRES - 600.000001, False),
    ],
)
def test_the_window_of_response_tokens(now_seconds: float, lease_end_seconds: float, *, valid: bool) -> None:
    now, lease_end = round(now_seconds * SECOND), round(lease_end_seconds * SECOND)
    assert SIGNER.token_valid(COMMAND, TOKEN, EXPIRES, now, lease_end) is valid


@pytest.mark.parametrize("token", ["", TOKEN[:-1], TOKEN + "0", "g" * 64, " " + TOKEN[1:], TOKEN[:-1] + "\n", "é" * 64])
def test_what_is_no_token(token: str) -> None:
    assert not SIGNER.token_valid(COMMAND, token, EXPIRES, NOW, 0)


@given(st.text(), st.integers(0, 2**40), st.binary(min_size=1))
def test_only_the_same_key_command_and_time_verify(command_id: str, expires: int, key: bytes) -> None:
    signer = Signer(key)
    token = signer.response_token(command_id, expires)
    now = expires * SECOND
    assert signer.token_valid(command_id, token, expires, now, 0)
    assert signer.token_valid(command_id, token.upper(), expires, now, 0)
    assert not signer.token_valid(command_id + "x", token, expires, now, 0)
    assert not signer.token_valid(command_id, token, expires + 1, now, 0)
    assert not Signer(key + b"x").token_valid(command_id, token, expires, now, 0)


@given(st.integers(0, 2**50), st.integers(1, 43_200))
def test_a_fresh_token_outlives_its_lease(now: int, lease_seconds: int) -> None:
    expires = now // SECOND + response_seconds(lease_seconds)
    lease_end = now + lease_seconds * SECOND
    token = SIGNER.response_token(COMMAND, expires)
    assert expires - now // SECOND == max(7200, lease_seconds + 300)
    for at in (now, lease_end, lease_end + 299 * SECOND):
        assert SIGNER.token_valid(COMMAND, token, expires, at, lease_end)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("-5", -5),
        ("007", 7),
        ("1800000000", EXPIRES),
        ("", None),
        ("+5", None),
        ("1.0", None),
        ("1e3", None),
        (" 5", None),
        ("5\n", None),
        ("٣", None),
        ("0x5", None),
        ("1_000", None),
        ("-", None),
    ],
)
def test_reading_expires(text: str, seconds: int | None) -> None:
    assert parse_expires(text) == seconds


@pytest.mark.parametrize("digits", [19, 5000])
def test_expires_of_any_length_are_integers(digits: int) -> None:
    assert (parse_expires("9" * digits) or 0) > 10**17
    assert (parse_expires("-" + "9" * digits) or 0) < -(10**16)
