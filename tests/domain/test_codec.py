"""Stored bytes: every event comes back as it went, every version ever written can be read, nothing else is accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_es import codec
from arc_es.domain import events as e
from arc_es.domain.recorded import SERVICE, CommandKey, Decision, Principal, Recorded
from arc_es.ports import JournalCorrupt
from tests.domain.golden_events import GOLDEN, MORE
from tests.domain.strategies import decisions, event_strategy

EVENT_CLASSES: tuple[type[Any], ...] = get_args(e.Event)
GOLDEN_DIR = Path(__file__).parent / "golden" / "v1"


def test_every_event_can_be_stored() -> None:
    assert {cls.__name__: cls for cls in EVENT_CLASSES} == codec.EVENT_TYPES


@given(decisions(st.one_of([event_strategy(cls) for cls in EVENT_CLASSES])))
def test_a_decision_comes_back_as_it_went(decision: Decision) -> None:
    payload = codec.encode(decision)
    assert decision == codec.decode(payload)
    assert payload == codec.encode(codec.decode(payload))
    key = CommandKey("dep_7", "cmd_1")
    assert Recorded(9, key, decision.at, decision.events) == codec.decode_recorded(9, key, payload)


@pytest.mark.parametrize("cls", EVENT_CLASSES, ids=lambda cls: cls.__name__)
def test_each_event_comes_back_with_every_field_drawn(cls: type[Any]) -> None:
    @given(decisions(event_strategy(cls)))
    def check(decision: Decision) -> None:
        assert decision == codec.decode(codec.encode(decision))

    check()


# --- golden files: written once, kept for ever


def golden_names() -> list[str]:
    return sorted(path.stem for path in GOLDEN_DIR.glob("*.json"))


def test_every_event_has_a_golden_file() -> None:
    assert sorted(codec.EVENT_TYPES) == sorted(GOLDEN)
    assert sorted(GOLDEN | MORE) == golden_names()


@pytest.mark.parametrize("name", golden_names())
def test_the_stored_form_has_not_changed(name: str) -> None:
    """A difference means that journals in the field can no longer be read or verified: make a new version."""
    stored = (GOLDEN_DIR / f"{name}.json").read_bytes()
    assert stored == codec.encode((GOLDEN | MORE)[name])
    assert (GOLDEN | MORE)[name] == codec.decode(stored)


def test_golden_files_have_every_field_of_their_event_and_one_without_options() -> None:
    """Of the first file the first event has every field that there was then, and the others only what has no default.

    Fields that came later are in files of their own.
    """
    for name, decision in GOLDEN.items():
        full, *plain = orjson.loads(codec.encode(decision))["events"]
        later = [orjson.loads(codec.encode(more))["events"][0] for other, more in MORE.items() if is_more(other, name)]
        assert set(full).union(*later) - {"type"} == set(codec.EVENT_TYPES[name].__slots__), name
        for event in plain:
            assert set(event) < set(full), name


def is_more(name: str, of: str) -> bool:
    return name.partition(".")[0] == of


# --- what is refused

PLAIN = Decision("d1", 1, SERVICE, (e.LeaseReleased(lease_id="a", attempt=1),))


def stored(**changes: Any) -> bytes:
    return orjson.dumps(orjson.loads(codec.encode(PLAIN)) | changes)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"not json",
        b"[]",
        b"1",
        b"{}",
        stored(v=codec.VERSION + 1),
        stored(v=0),
        stored(v="1"),
        stored(v=None),
        stored(events=[{"type": "CommandTeleported"}]),
        stored(events=[{"type": "LeaseReleased", "lease_id": "a", "attempt": 1, "colour": "red"}]),
        stored(events=[{"type": "LeaseReleased", "lease_id": "a"}]),
        stored(events=[{"lease_id": "a", "attempt": 1}]),
        stored(events=["LeaseReleased"]),
        stored(events=None),
        stored(events=[{"type": "UploadCompleted", "params": "here"}]),
        stored(events=[{"type": "UploadCompleted", "params": {"place": "event", "size": 1}}]),
        stored(events=[{"type": ["LeaseReleased"]}]),
        stored(events=[{"type": "DeploymentDeclared", "model": "pull", "targets": ["web"]}]),
    ],
)
def test_what_cannot_be_understood_is_corrupt(payload: bytes) -> None:
    """Never guessed at, never skipped."""
    with pytest.raises(JournalCorrupt):
        codec.decode(payload)
    with pytest.raises(JournalCorrupt):
        codec.decode_recorded(1, CommandKey("d", "c"), payload)


def test_a_newer_version_says_what_to_do() -> None:
    with pytest.raises(JournalCorrupt, match="run that version or a later one"):
        codec.decode(stored(v=codec.VERSION + 1))


@pytest.mark.parametrize("changes", [{"by": {"id": "a", "kind": "b", "shoe": 42}}, {"by": None}, {"by": {}}])
def test_an_unknown_principal_is_corrupt(changes: dict[str, Any]) -> None:
    with pytest.raises(JournalCorrupt):
        codec.decode(stored(**changes))


def test_the_hash_chain_is_sha256_of_the_stored_bytes() -> None:
    assert codec.digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_secrets_of_a_push_target_are_stored_only_where_needed() -> None:
    """A principal has no field that could hold a token."""
    assert set(Principal.__slots__) == {"id", "kind", "address", "user_agent", "request_id"}
