"""Signing keys over several lives of a service: what signs, what still verifies, what the files look like."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from arc_es.config import Config, ConfigError, load
from arc_es.domain.limits import SECOND, URL_SECONDS_MAX
from arc_es.keyring import (
    KEY_FILE,
    RING_FILE,
    KeyFileError,
    KeyRing,
    open_ring,
    signing_key,
    write_secret,
)
from arc_es.signing import key_from_admin_token

T0 = 1_772_359_200 * SECOND
DAY = 86_400 * SECOND
KEY_1, KEY_2 = "1" * 32, "2" * 32


def ring(folder: Path, now: int = T0, **settings: str) -> KeyRing:
    return open_ring(Config(data_dir=folder / "data", **settings), now)  # type: ignore[arg-type]


def test_which_key_is_current(tmp_path: Path) -> None:
    assert ring(tmp_path / "a", signing_key=KEY_1, admin_token="a").current == KEY_1.encode()
    assert ring(tmp_path / "b", admin_token="a").current == key_from_admin_token("a")
    random = ring(tmp_path / "c").current
    assert len(random) == 32
    assert (tmp_path / "c" / "data" / KEY_FILE).read_bytes() == random == ring(tmp_path / "c").current
    assert ring(tmp_path / "d").current != random


def test_a_new_key_leaves_the_old_one_as_long_as_its_urls_live(tmp_path: Path) -> None:
    assert ring(tmp_path, signing_key=KEY_1).old == ()
    assert ring(tmp_path, T0 + 100 * DAY, signing_key=KEY_1).old == ()
    changed_at = T0 + 200 * DAY
    end = changed_at + URL_SECONDS_MAX * SECOND
    found = ring(tmp_path, changed_at, signing_key=KEY_2)
    assert [(one.key, one.until) for one in found.old] == [(KEY_1.encode(), end)]
    assert ring(tmp_path, end, signing_key=KEY_2) == found
    assert ring(tmp_path, end + 1, signing_key=KEY_2).old == ()
    assert KEY_1.encode().hex() not in (tmp_path / "data" / RING_FILE).read_text()


def test_every_way_to_change_the_key_is_noticed(tmp_path: Path) -> None:
    keys = [ring(tmp_path).current]
    (tmp_path / "data" / KEY_FILE).unlink()
    keys.append(ring(tmp_path, T0 + 1).current)
    keys.append(ring(tmp_path, T0 + 2, admin_token="a").current)
    keys.append(ring(tmp_path, T0 + 3, admin_token="b").current)
    found = ring(tmp_path, T0 + 4, signing_key=KEY_1)
    assert [one.key for one in found.old] == keys
    assert len({*keys, found.current}) == 5


def test_a_key_that_comes_back_is_current_again(tmp_path: Path) -> None:
    ring(tmp_path, signing_key=KEY_1)
    ring(tmp_path, T0 + SECOND, signing_key=KEY_2)
    found = ring(tmp_path, T0 + 2 * SECOND, signing_key=KEY_1)
    assert found.current == KEY_1.encode()
    assert [one.key for one in found.old] == [KEY_2.encode()]
    assert ring(tmp_path, T0 + 3 * SECOND, signing_key=KEY_1) == found


def test_old_keys_of_the_configuration_verify_as_long_as_they_are_there(tmp_path: Path) -> None:
    listed = f"{KEY_2}\n hex:{b'three'.hex()}  {KEY_1} hex:zz"
    found = ring(tmp_path, signing_key=KEY_1, signing_keys_previous=listed)
    assert [(one.key, one.until) for one in found.old] == [(KEY_2.encode(), None), (b"three", None), (b"hex:zz", None)]
    assert ring(tmp_path, T0 + DAY, signing_key=KEY_1).old == ()


def test_signer_and_sealer_use_the_whole_ring(tmp_path: Path) -> None:
    before = ring(tmp_path, signing_key=KEY_1)
    after = ring(tmp_path, T0 + SECOND, signing_key=KEY_2)
    expires = T0 // SECOND + 60
    token = before.signer().response_token("cmd_1", expires)
    assert after.signer().token_valid("cmd_1", token, expires, T0 + SECOND, 0)
    assert not before.signer().token_valid("cmd_1", after.signer().response_token("cmd_1", expires), expires, T0, 0)
    assert after.sealer().open(before.sealer().seal("t", "d", "x"), "d", "x") == "t"
    assert KEY_2 not in repr(after)


@pytest.mark.parametrize("name", ["ARC_SIGNING_KEY", "ARC_SIGNING_KEYS_PREVIOUS"])
def test_short_keys_are_refused_without_being_quoted(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="32 bytes") as refused:
        load(environ={name: "a-short-key"}, toml=None)
    assert "a-short-key" not in str(refused.value)
    assert name in str(refused.value)


# --- files


def test_key_files_are_for_their_owner_only(tmp_path: Path) -> None:
    ring(tmp_path)
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "data").iterdir()} == {
        KEY_FILE: 0o600,
        RING_FILE: 0o600,
    }


@pytest.mark.parametrize("name", [KEY_FILE, RING_FILE])
def test_a_key_file_that_others_could_read_is_closed_and_reported(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = ring(tmp_path)
    path = tmp_path / "data" / name
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert ring(tmp_path) == found
    assert path.stat().st_mode & 0o777 == 0o600
    assert "could be read by others (mode 644)" in caplog.text
    assert found.current.hex() not in caplog.text


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"keys":[{}]}', b'{"keys":[{"key":"xx"}]}', b"\xff"])
def test_a_damaged_ring_is_refused_with_advice(tmp_path: Path, content: bytes) -> None:
    ring(tmp_path)
    (tmp_path / "data" / RING_FILE).write_bytes(content)
    with pytest.raises(KeyFileError, match="delete it"):
        ring(tmp_path)


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    ring(tmp_path)
    (tmp_path / "data" / KEY_FILE).write_bytes(b"short")
    with pytest.raises(KeyFileError, match="5 bytes, not 32"):
        signing_key(Config(data_dir=tmp_path / "data"))


def test_a_start_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    ring(tmp_path, signing_key=KEY_1)
    path = tmp_path / "data" / RING_FILE
    before = path.stat().st_ino, path.stat().st_mtime_ns
    ring(tmp_path, T0 + DAY, signing_key=KEY_1)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == before
    assert json.loads(path.read_text()) == {"keys": [{"key": KEY_1.encode().hex()}]}


def test_what_a_broken_start_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    left = tmp_path / "secret.new"
    left.write_bytes(b"half")
    left.chmod(0o666)
    write_secret(path, b"whole")
    assert (path.read_bytes(), path.stat().st_mode & 0o777, left.exists()) == (b"whole", 0o600, False)
