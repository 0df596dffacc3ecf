"""`NullPusher` accepts everything and says so."""

from __future__ import annotations

import logging

import pytest

from arc_es.dispatch.null import NullPusher
from arc_es.ports import PushOutcome


async def test_everything_is_accepted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert await NullPusher().push("http://worker.example/push?key=s3cret", "s3cret", b"{}") == PushOutcome("accepted")
    assert "push = null" in caplog.text
    assert "s3cret" not in caplog.text
