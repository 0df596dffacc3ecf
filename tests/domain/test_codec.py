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
from tests.domain.golden_events import GOLDEN, MORE, SALT
from tests.domain.strategies import decisions, event_strategy

EVENT_CLASSES: tuple[type[Any], ...] = get_args(e.Event)
GOLDEN_DIRS = Path(__file__).parent / "golden"
NEWEST = GOLDEN_DIRS / f"v{codec.VERSION}"


def test_every_event_can_be_stored() -> None:
    assert {cls.__name__: cls for cls in EVENT_CLASSES} == codec.EVENT_TYPES


@given(decisions(st.one_of([event_strategy(cls) for cls in EVENT_CLASSES])))
def test_a_decision_comes_back_as_it_went(decision: Decision) -> None:
    payload = codec.encode(decision, SALT)
    assert decision == codec.decode(payload)
    assert payload == codec.encode(codec.decode(payload), SALT)
    key = CommandKey("dep_7", "cmd_1")
    assert Recorded(9, key, decision.at, decision.events) == codec.decode_recorded(9, key, payload)


@given(decisions(st.one_of([event_strategy(cls) for cls in EVENT_CLASSES])))
def test_what_is_written_today_is_read_the_fast_way(decision: Decision) -> None:
    assert (decision.at, decision.events) == codec._READER.read(codec.encode(decision))


@pytest.mark.parametrize("cls", EVENT_CLASSES, ids=lambda cls: cls.__name__)
def test_each_event_comes_back_with_every_field_drawn(cls: type[Any]) -> None:
    @given(decisions(event_strategy(cls)))
    def check(decision: Decision) -> None:
        assert decision == codec.decode(codec.encode(decision))

    check()


# --- golden files: written once, kept for ever


def golden_names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.json"))


def test_every_event_has_a_golden_file() -> None:
    assert sorted(codec.EVENT_TYPES) == sorted(GOLDEN)
    assert sorted(GOLDEN | MORE) == golden_names(NEWEST)


@pytest.mark.parametrize("name", golden_names(NEWEST))
def test_the_stored_form_has_not_changed(name: str) -> None:
    """A difference means that journals in the field can no longer be read or verified: make a new version."""
    stored = (NEWEST / f"{name}.json").read_bytes()
    assert stored == codec.encode((GOLDEN | MORE)[name], SALT)


@pytest.mark.parametrize(
    "path", sorted(GOLDEN_DIRS.glob("v*/*.json")), ids=lambda path: str(path.relative_to(GOLDEN_DIRS))
)
def test_every_version_can_be_read(path: Path) -> None:
    decision = (GOLDEN | MORE)[path.stem]
    assert decision == codec.decode(path.read_bytes())
    key = CommandKey("dep_7", "cmd_1")
    assert decision.events == codec.decode_recorded(1, key, path.read_bytes()).events


def test_golden_files_have_every_field_of_their_event_and_one_without_options() -> None:
    """Of the first file the first event has every field that there was then, and the others only what has no default.

    Fields that came later are in files of their own.
    """
    for name, decision in GOLDEN.items():
        full, *plain = fields_of(decision)
        later = [fields_of(more)[0] for other, more in MORE.items() if is_more(other, name)]
        assert set(full).union(*later) - {"type"} == set(codec.EVENT_TYPES[name].__slots__), name
        for event in plain:
            assert set(event) < set(full), name


def fields_of(decision: Decision) -> list[dict[str, Any]]:
    """The fields of each event in both lines."""
    public, _, private = codec.encode(decision).partition(b"\n")
    events = orjson.loads(public)["events"]
    hidden = orjson.loads(private).get("events") if private else None
    return [event | more for event, more in zip(events, hidden or [{}] * len(events), strict=True)]


def is_more(name: str, of: str) -> bool:
    return name.partition(".")[0] == of


# --- what is private, and erased


@given(decisions(st.one_of([event_strategy(cls) for cls in EVENT_CLASSES])))
def test_what_is_erased_leaves_the_chain_and_what_is_public(decision: Decision) -> None:
    payload = codec.encode(decision)
    left = codec.redacted(payload)
    assert codec.digest(left) == codec.digest(payload)
    erased = codec.decode(left)
    assert erased.is_erased == (left != payload)
    assert (erased.id, erased.at, erased.prev, erased.by.id, erased.by.kind) == (
        decision.id,
        decision.at,
        decision.prev,
        decision.by.id,
        decision.by.kind,
    )
    key = CommandKey("dep_7", "cmd_1")
    assert Recorded(9, key, decision.at, erased.events) == codec.decode_recorded(9, key, left)
    for event, before in zip(erased.events, decision.events, strict=True):
        check_erased(event, before)


def check_erased(left: Any, before: Any) -> None:
    """Public fields are as before, private ones say nothing."""
    assert type(left) is type(before)
    hidden = codec.PRIVATE.get(type(left), frozenset())
    for name in type(left).__slots__:
        now, then = getattr(left, name), getattr(before, name)
        if name in hidden:
            assert not now
        elif isinstance(then, e.Body):
            check_erased(now, then)
        else:
            assert now == then


PLAIN = Decision("d1", 1, SERVICE, (e.LeaseReleased(lease_id="a", attempt=1),))
TOLD = Decision(
    "d1",
    1,
    Principal("tok_1", "sender", "192.0.2.7"),
    (e.CommandCreated(deployment_id="d", command="c", target_id="t", target_type=None, labels={"name": "Ada"}),),
)


def test_a_salt_hides_what_was_there() -> None:
    """The same private part never has the same digest twice: nobody finds it by trying."""
    one, other = codec.encode(TOLD), codec.encode(TOLD)
    assert codec.redacted(one) != codec.redacted(other)
    assert codec.decode(one) == codec.decode(other)


@pytest.mark.parametrize(
    "changed",
    [
        lambda payload: payload.replace(b"Ada", b"Eve"),
        lambda payload: payload + b"\n",
        lambda payload: payload + b" ",
        lambda payload: codec.redacted(payload) + b"\n",
        lambda payload: payload.replace(b'"private":"', b'"privy":"'),
        lambda payload: codec.encode(PLAIN) + b'\n{"salt":"x"}',
    ],
)
def test_a_changed_private_part_is_corrupt(changed: Any) -> None:
    with pytest.raises(JournalCorrupt, match="private part"):
        codec.decode(changed(codec.encode(TOLD)))


@pytest.mark.parametrize("name", golden_names(GOLDEN_DIRS / "v1"))
def test_of_version_1_a_stub_is_left(name: str) -> None:
    """It has the digest that the whole of it had, and says what a message of version 2 would say in public."""
    stored = (GOLDEN_DIRS / "v1" / f"{name}.json").read_bytes()
    left = codec.redacted(stored)
    assert codec.is_stub(left)
    assert codec.digest(left) == codec.digest(stored)
    assert codec.redacted(left) == left
    whole = codec.redacted(codec.encode((GOLDEN | MORE)[name]))
    assert codec.decode(left) == codec.decode(whole)
    assert codec.decode_recorded(1, CommandKey("d", "c"), left).events == codec.decode(left).events


def test_of_version_1_what_has_nothing_private_stays_whole() -> None:
    stored = codec.encode(PLAIN).replace(b'{"v":2', b'{"v":1')
    assert codec.redacted(stored) == stored
    assert not codec.decode(stored).is_erased


# --- what is refused


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


def test_the_hash_chain_is_sha256_of_the_first_line() -> None:
    assert codec.digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert (
        codec.digest(b"a\nb")
        == codec.digest(b"a")
        == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    )


def test_the_secrets_of_a_push_target_are_stored_only_where_needed() -> None:
    """A principal has no field that could hold a token."""
    assert set(Principal.__slots__) == {"id", "kind", "address", "user_agent", "request_id", "agent"}
