"""Histories and subjects map to each other, one to one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arc_es.domain.recorded import CommandKey, DeploymentKey, Key, LogKey, PayloadKey, TokenKey
from arc_es.journal.subjects import body_subject, event_subject, key_of
from arc_es.ports import JournalCorrupt

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.from_regex(
    r"=?[A-Za-z0-9_-]*", fullmatch=True
)
keys: st.SearchStrategy[Key] = st.one_of(
    st.builds(CommandKey, names, names),
    st.builds(DeploymentKey, names),
    st.builds(PayloadKey, names),
    st.builds(TokenKey, names),
    st.builds(LogKey, names),
)


@given(keys)
def test_a_subject_leads_back_to_its_history(key: Key) -> None:
    subject = event_subject(key)
    assert key_of(subject) == key
    assert type(key_of(subject)) is type(key)
    assert subject.isascii()
    assert not set(subject) & set(" \t\r\n*>")
    assert "" not in subject.split(".")


def test_plain_ids_stay_readable() -> None:
    key = CommandKey("dep_7", "cmd_3b1f6a52")
    assert event_subject(key) == "arc.event.command.dep_7.cmd_3b1f6a52"
    assert event_subject(DeploymentKey("dep_7")) == "arc.event.deployment.dep_7"
    assert body_subject(key, "params") == "arc.body.dep_7.cmd_3b1f6a52.params"
    assert event_subject(DeploymentKey("a.b")) == "arc.event.deployment.=YS5i"
    assert event_subject(TokenKey("9f86d081")) == "arc.event.token.9f86d081"
    assert event_subject(PayloadKey("cmd_9")) == "arc.event.payload.cmd_9"
    assert event_subject(LogKey("2026-11-21")) == "arc.event.log.2026-11-21"
    assert body_subject(PayloadKey("cmd_9"), "response") == "arc.body.cmd_9.response"


@given(keys, keys)
def test_different_histories_have_different_subjects(one: Key, other: Key) -> None:
    assert (event_subject(one) == event_subject(other)) == (one == other)
    bodiless = DeploymentKey | TokenKey | LogKey
    if not isinstance(one, bodiless) and not isinstance(other, bodiless):
        assert (body_subject(one, "params") == body_subject(other, "params")) == (one == other)


def test_histories_of_different_kinds_are_never_equal() -> None:
    named_alike: list[Key] = [DeploymentKey("a"), PayloadKey("a"), TokenKey("a"), LogKey("a"), CommandKey("a", "a")]
    assert len(set(named_alike)) == len(named_alike)


@pytest.mark.parametrize("key", [DeploymentKey("a"), TokenKey("a"), LogKey("a")])
def test_deployments_tokens_and_the_log_have_no_bodies(key: Key) -> None:
    with pytest.raises(TypeError):
        body_subject(key, "params")


@pytest.mark.parametrize(
    "subject",
    [
        "arc.event.token.x.y",
        "arc.event.command.a",
        "arc.event.command.a.b.c",
        "arc.event.deployment.=!",
        "arc.event.payload.a.b",
        "x",
    ],
)
def test_an_unknown_subject_is_not_understood(subject: str) -> None:
    with pytest.raises(JournalCorrupt):
        key_of(subject)
