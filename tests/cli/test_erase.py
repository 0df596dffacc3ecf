"""`arc-es erase` asks before it does what cannot be undone."""

from __future__ import annotations

import json
import os
import pty
import subprocess

import pytest

from tests.cli.conftest import Arc, command, environ
from tests.cli.fake import Answer, FakeService, problem

WHY = "case 17"
ERASED = {"at": "2026-11-26T13:45:09Z", "by": {"id": "admin", "kind": "admin"}, "reason": WHY}


def answers(fake: FakeService, *, gone: bool = True) -> None:
    told = {"commandId": "cmd_1", "state": "SUCCEEDED", "erased": ERASED, "gone": gone}
    fake.on("POST /v1/commands/cmd_1/erase", Answer(200, told))


def test_it_says_who_erased_what_and_why(arc: Arc, fake: FakeService) -> None:
    answers(fake)
    done = arc("erase", "cmd_1", "--reason", WHY, "--yes", ARC_URL=fake.url)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"cmd_1 was erased at 2026-11-26T13:45:09Z by admin: case 17\n"
    (request,) = fake.requests
    assert json.loads(request.body) == {"reason": WHY}


def test_it_says_when_something_is_left(arc: Arc, fake: FakeService) -> None:
    answers(fake, gone=False)
    done = arc("erase", "cmd_1", "--reason", WHY, "--yes", ARC_URL=fake.url)
    assert done.returncode == 0
    assert b"not everything is gone yet" in done.stderr
    done = arc("erase", "cmd_1", "--reason", WHY, "--yes", "--json", ARC_URL=fake.url)
    assert json.loads(done.stdout)["gone"] is False


def test_without_a_terminal_it_must_be_told_that_it_is_meant(arc: Arc, fake: FakeService) -> None:
    done = arc("erase", "cmd_1", "--reason", WHY, stdin=b"yes\n", ARC_URL=fake.url)
    assert done.returncode == 2
    assert b"--yes" in done.stderr
    assert fake.requests == []


@pytest.mark.parametrize(("said", "status"), [(b"yes\n", 0), (b"y\n", 1)])
def test_on_a_terminal_it_asks(fake: FakeService, said: bytes, status: int) -> None:
    answers(fake)
    ours, theirs = pty.openpty()
    try:
        os.write(ours, said)
        asked = command("erase", "cmd_1", "--reason", WHY)
        done = subprocess.run(
            asked, stdin=theirs, capture_output=True, env=environ(ARC_URL=fake.url), timeout=60, check=False
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == status, done
    assert b"gone for good" in done.stderr
    assert len(fake.requests) == (status == 0)


def test_a_refusal_is_one_line(arc: Arc, fake: FakeService) -> None:
    fake.on("POST /v1/commands/cmd_1/erase", problem(400, "INVALID_STATE_TRANSITION", retryable=False))
    done = arc("erase", "cmd_1", "--reason", WHY, "--yes", ARC_URL=fake.url)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
