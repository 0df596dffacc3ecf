"""The auditors of the kill tests notice each kind of harm; otherwise their silence means nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.audit import promised_but_not_told
from tests.e2e.crowd import Log

EXPIRED = {"state": "EXPIRED", "attempt": 2}


def event(seq: int, kind: str, **data: Any) -> dict[str, Any]:
    before = {} if seq == 1 else {"prev": f"h{seq - 1}"}
    return {"seq": seq, "at": f"2026-03-01T10:00:0{seq}Z", "type": kind, "hash": f"h{seq}", "data": data, **before}


def leased(seq: int, lease_id: str, attempt: int) -> dict[str, Any]:
    return event(seq, "CommandLeased", leaseId=lease_id, attempt=attempt, expiresAt="2026-03-01T10:00:02Z")


GOOD = [
    event(1, "CommandCreated"),
    leased(2, "l1", 1),
    event(3, "LeaseExpired", leaseId="l1", attempt=1),
    event(4, "CommandExpired"),
    event(5, "LateResponseRecorded", sha256="s1"),
]


def found(events: list[dict[str, Any]], log: Log | None = None, status: dict[str, Any] = EXPIRED) -> list[str]:
    log = log or Log()
    log.sent["cmd"].add("s1")
    return promised_but_not_told("cmd", status, events, log)


def test_a_good_history_passes() -> None:
    log = Log()
    log.leases["l1"] = ("cmd", 1)
    log.answered["cmd"].add("s1")
    assert found(GOOD, log) == []


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([GOOD[0], *GOOD], id="created twice"),
        pytest.param([GOOD[0], leased(2, "l1", 1), leased(3, "l2", 1), GOOD[3], GOOD[4]], id="leases overlap"),
        pytest.param([GOOD[0], leased(2, "l1", 2), *GOOD[2:]], id="attempt jumps"),
        pytest.param([*GOOD, event(6, "CommandSucceeded", response={"sha256": "s1"})], id="two ends"),
        pytest.param([*GOOD[:3], {**GOOD[3], "prev": "h1"}, GOOD[4]], id="broken chain"),
        pytest.param([*GOOD[:4], event(5, "LateResponseRecorded", sha256="s2")], id="answer from nowhere"),
        pytest.param(GOOD[:3], id="no end"),
        pytest.param([*GOOD[:2], {**GOOD[2], "at": "2026-03-01T10:00:01Z"}, *GOOD[3:]], id="expired too early"),
    ],
)
def test_an_impossible_history_is_found(events: list[dict[str, Any]]) -> None:
    assert found(events) != []


def test_broken_promises_are_found() -> None:
    lease, answer, release = Log(), Log(), Log()
    lease.leases["l9"] = ("cmd", 1)
    answer.answered["cmd"].add("s9")
    release.leases["l1"] = ("cmd", 1)
    release.released.add("l1")
    assert all(found(GOOD, log) for log in (lease, answer, release))
    assert found(GOOD, status={"state": "FAILED", "attempt": 2})
