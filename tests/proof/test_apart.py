"""A log is checked in a process of its own as it is in ours."""

from __future__ import annotations

from contextlib import closing

import pytest

from arc_es.proof.apart import AuditApart
from arc_es.proof.audit import Audit
from arc_es.proof.tiles import Tiles
from tests.bench.verify import SIGNER, Stored, signed

pytestmark = pytest.mark.slow


def changed(stored: list[Stored], number: int) -> list[Stored]:
    """One byte of one message is another one."""
    position, subject, payload = stored[number]
    return [*stored[:number], (position, subject, payload[:-2] + b"!" + payload[-1:]), *stored[number + 1 :]]


@pytest.mark.parametrize("number", [None, 1, 30])
def test_the_report_is_the_same(number: int | None) -> None:
    """Of a log that holds, and of one in which a message was changed: it is named."""
    stored = signed(20) if number is None else changed(signed(20), number)
    here = Audit(Tiles(), key=SIGNER.verifier)
    here.take(stored)
    with closing(AuditApart(key=SIGNER.verifier)) as apart:
        apart.take(stored[:25])
        apart.take(stored[25:])
        report = apart.end()
    assert here.end() == report
    assert (len(stored), number is None) == (report.messages, not report.problems)
    assert number is None or report.problems[0].startswith(f"seq {number + 1} of ")


def test_a_process_that_was_killed_is_an_error_and_no_report() -> None:
    with closing(AuditApart()) as apart:
        apart._process.kill()
        with pytest.raises(ChildProcessError, match="status -9"):
            apart.end()
