"""`arc-es work` as a real process: programs, answers, uploads, time limits, signals and restarts of the service."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import threading
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.cli.conftest import Arc, started
from tests.cli.fake import Answer, FakeService, Request, problem, serving

pytestmark = pytest.mark.slow

EMPTY = Answer(200, {"leases": []})
SUBMIT = "PUT /v1/commands/.*/response"
LEASE = "POST /v1/commands/leases"


def stamp(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def lease(command_id: str = "cmd_1", params: bytes = b"hello", seconds: float = 60, **envelope: Any) -> dict[str, Any]:
    """A LeaseInfo as the service writes it: relative URLs."""
    upload = {"type": "http", "url": f"../storage/{command_id}?signature=s", "method": "PUT", "headers": {}}
    handling = {
        "maxInlineBytes": 150_000,
        "submitResponseUrl": f"{command_id}/response?response_token=t&expires=1",
        "storageUploadRequest": {"backend": upload, "expiration": stamp(3600), "operation": "put", "path": "p"},
    }
    return {
        "leaseId": f"lease_of_{command_id}",
        "leaseExpiresAt": stamp(seconds),
        "commandId": command_id,
        "attempt": 2,
        "envelope": {
            "protocol": "arc.v1",
            "deploymentId": "demo",
            "target": {"resourceId": "greeter", "resourceType": "daemon"},
            "commandId": command_id,
            "attempt": 2,
            "command": "greet/loud",
            "params": {"mode": "inline", "inlineBase64": base64.b64encode(params).decode()},
            "responseHandling": handling,
            **envelope,
        },
    }


def offering(fake: FakeService, *leases: dict[str, Any]) -> None:
    """Each lease once, one a call; afterwards long-polls wait until the service is shut down. It knows `arc.v1` and
    waitSeconds, and nothing else: answers come by their signed URLs, and leases are not renewed."""
    left = list(leases)
    never = threading.Event()

    def script(request: Request) -> Answer:
        asked = request.json()
        if left and asked["maxLeases"]:
            return Answer(200, {"leases": [left.pop(0)]})
        if "waitSeconds" in asked:
            never.wait(20)
        return EMPTY

    fake.on(LEASE, script)
    fake.on(SUBMIT, Answer(200))
    fake.on("POST /v1/commands/leases/.*/release", Answer(200))
    fake.on("PUT /v1/storage/.*", Answer(200))


def once(fake: FakeService, arc: Arc, *program: str, **more: str) -> tuple[int, dict[str, Any]]:
    done = arc("work", "demo", "greeter", "--once", "--url", fake.url, "--", *program, **more)
    return done.returncode, fake.asked(SUBMIT)[-1].json()


def result_of(response: dict[str, Any]) -> bytes:
    return base64.b64decode(response["response"]["inlineBase64"])


def test_stdin_is_the_params_and_stdout_the_result(arc: Arc, fake: FakeService) -> None:
    offering(fake, lease())
    status, response = once(fake, arc, "tr", "a-z", "A-Z", ARC_TOKEN="t0k")
    assert (status, result_of(response)) == (0, b"HELLO")
    asked, submitted = fake.asked(LEASE)[0], fake.asked(SUBMIT)[0]
    assert asked.json()["target"] == {"resourceId": "greeter", "resourceType": "daemon"}
    assert asked.headers["authorization"] == "Bearer t0k"
    assert submitted.query == "response_token=t&expires=1"
    assert "authorization" not in submitted.headers


def test_program_is_told_what_it_runs_but_not_our_token(arc: Arc, fake: FakeService) -> None:
    offering(fake, lease(deadline=stamp(3000)))
    _, response = once(fake, arc, "sh", "-c", "env | grep ^ARC_ | sort", ARC_TOKEN="t0k")
    told = dict(line.split("=", 1) for line in result_of(response).decode().splitlines())
    ends_at = datetime.fromisoformat(told.pop("ARC_DEADLINE"))
    assert told == {
        "ARC_ATTEMPT": "2",
        "ARC_COMMAND": "greet/loud",
        "ARC_COMMAND_ID": "cmd_1",
        "ARC_DEPLOYMENT": "demo",
    }
    assert 45 < (ends_at - datetime.now(UTC)).total_seconds() <= 55


def test_exit_status_becomes_an_error_answer(arc: Arc, fake: FakeService) -> None:
    offering(fake, lease())
    status, response = once(fake, arc, "sh", "-c", "echo out; echo first >&2; echo broken >&2; exit 7")
    assert status == 1
    assert response == {"status": "error", "code": "EXIT_7", "message": "first\nbroken"}


def test_long_stderr_is_bounded(arc: Arc, fake: FakeService) -> None:
    offering(fake, lease())
    _, response = once(fake, arc, "sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x >&2; kill -9 $$")
    assert (response["code"], len(response["message"])) == ("EXIT_137", 4096)


def test_large_result_is_uploaded_first(arc: Arc, fake: FakeService) -> None:
    offering(fake, lease())
    status, response = once(fake, arc, "head", "-c", "150001", "/dev/zero")
    upload = fake.asked("PUT /v1/storage/cmd_1")[0]
    assert (status, len(upload.body), upload.query) == (0, 150_001, "signature=s")
    assert "authorization" not in upload.headers
    assert response["response"] == {"mode": "storage", "size": 150_001, "storagePutUsed": True}


def test_stored_params_are_downloaded_relative_to_the_lease_endpoint(arc: Arc, fake: FakeService) -> None:
    raw = bytes(range(256)) * 800
    backend = {"type": "http", "url": "../storage/p?signature=s", "method": "GET", "headers": {}}
    request = {"backend": backend, "expiration": stamp(3600), "operation": "get", "path": "p"}
    params = {"mode": "storage", "size": len(raw), "storageGetRequest": request, "storagePutUsed": True}
    offering(fake)
    left = [lease() | {"envelope": lease()["envelope"] | {"params": params}}]
    fake.on("POST /prefix/v1/commands/leases", lambda _: Answer(200, {"leases": [left.pop()] if left else []}))
    fake.on("GET /prefix/v1/storage/p", Answer(200, raw))
    fake.on("PUT /prefix/v1/.*", Answer(200))
    url = f"{fake.url}/prefix"
    done = arc("work", "demo", "greeter", "--once", "--url", url, "--token", "t0k", "--", "cat")
    assert done.returncode == 0, done.stderr
    (download,) = fake.asked("GET /prefix/v1/storage/p")
    assert (download.query, "authorization" in download.headers) == ("signature=s", False)
    assert fake.asked("PUT /prefix/v1/storage/cmd_1")[0].body == raw


def test_an_upload_that_fails_is_repeated_whole(arc: Arc, fake: FakeService) -> None:
    offering(fake, lease())
    answers = iter([problem(503, "STORAGE_OPERATION_FAILED", retryable=True), Answer(502, b"<html>")])
    fake.on("PUT /v1/storage/cmd_1", lambda _: next(answers, Answer(200)))
    status, response = once(fake, arc, "head", "-c", "2000000", "/dev/zero")
    assert (status, response["response"]["size"]) == (0, 2_000_000)
    assert [len(upload.body) for upload in fake.asked("PUT /v1/storage/cmd_1")] == [2_000_000] * 3


def test_a_result_that_storage_refuses_is_an_error_answer(arc: Arc, fake: FakeService) -> None:
    offering(fake, lease())
    fake.on("PUT /v1/storage/cmd_1", problem(413, "PAYLOAD_TOO_LARGE", retryable=False))
    status, response = once(fake, arc, "head", "-c", "150001", "/dev/zero")
    assert (status, response["code"]) == (1, "STORAGE_OPERATION_FAILED")
    assert "PAYLOAD_TOO_LARGE" in response["message"]


def test_bad_params_are_answered(arc: Arc, fake: FakeService) -> None:
    offering(fake, lease(params=b"") | {})
    fake.on(LEASE, Answer(200, {"leases": [lease(params=b"x") | bad_params()]}))
    status, response = once(fake, arc, "cat")
    assert (status, response["code"]) == (1, "INVALID_ENVELOPE")


def bad_params() -> dict[str, Any]:
    envelope = lease()["envelope"] | {"params": {"mode": "inline", "inlineBase64": "*"}}
    return {"envelope": envelope}


def test_program_and_its_children_are_stopped_when_time_is_up(arc: Arc, fake: FakeService) -> None:
    offering(fake, lease(seconds=5.2))
    _, response = once(fake, arc, "sh", "-c", "sleep 60 & wait")
    assert response["code"] == "HANDLER_TIMEOUT"


def test_background_children_do_not_hold_up_the_answer(arc: Arc, fake: FakeService) -> None:
    offering(fake, lease())
    status, response = once(fake, arc, "sh", "-c", "sleep 60 & echo done")
    assert (status, result_of(response)) == (0, b"done\n")


def test_refusal_ends_it_with_a_reason(arc: Arc, fake: FakeService) -> None:
    fake.on(LEASE, problem(403, "FORBIDDEN", retryable=False))
    done = arc("work", "demo", "greeter", "--url", fake.url, "--", "cat")
    assert done.returncode == 1
    assert b"FORBIDDEN" in done.stderr
    assert b"Traceback" not in done.stderr


def test_signal_lets_the_running_program_finish(fake: FakeService) -> None:
    offering(fake, lease())
    program = ("sh", "-c", "echo started >&2; read line; sleep 0.3; echo finished")
    with started("work", "demo", "greeter", "--url", fake.url, "--", *program) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"started\n"
        process.send_signal(signal.SIGTERM)
        process.wait(10)
    assert process.returncode == 0
    assert result_of(fake.asked(SUBMIT)[0].json()) == b"finished\n"


def test_signal_gives_back_what_does_not_finish(fake: FakeService) -> None:
    offering(fake, lease())
    program = ("sh", "-c", "echo started >&2; sleep 60")
    with started("work", "demo", "greeter", "--drain-seconds", "0.1", "--url", fake.url, "--", *program) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"started\n"
        process.send_signal(signal.SIGINT)
        process.wait(10)
    assert process.returncode == 0
    assert [r.path for r in fake.asked(".*/release")] == ["/v1/commands/leases/lease_of_cmd_1/release"]
    assert fake.asked(SUBMIT) == []


def test_restart_of_the_service_is_waited_for_and_the_answer_kept() -> None:
    first, second = FakeService(), FakeService()
    offering(first, lease())
    offering(second, lease("cmd_2"))
    first.on(SUBMIT, problem(503, "JOURNAL_UNAVAILABLE", retryable=True))
    with ExitStack() as later:
        with serving(first):
            worker = started("work", "demo", "greeter", "--json", "--url", first.url, "--", "cat")
            process = later.enter_context(worker)
            first.wait_for(SUBMIT)
        with serving(second, port=int(first.url.rpartition(":")[2])):
            second.wait_for(SUBMIT, count=2)
            process.send_signal(signal.SIGTERM)
            stdout, stderr = process.communicate(timeout=10)
    told = [json.loads(line) for line in stdout.splitlines()]
    assert [(t["commandId"], t["outcome"]) for t in told] == [("cmd_1", "succeeded"), ("cmd_2", "succeeded")]
    assert b"Traceback" not in stderr


def test_wrong_usage_is_refused(arc: Arc) -> None:
    for arguments in (
        ["demo", "t"],
        ["demo", "t", "--bogus", "--", "cat"],
        ["demo", "t:robot", "--", "cat"],
        ["demo", "t", "--", "no-such-program"],
    ):
        done = arc("work", *arguments)
        assert (done.returncode, done.stderr[:8]) == (2, b"arc-es: ")


def test_concurrency_runs_programs_side_by_side(fake: FakeService) -> None:
    """Each program ends only when the other has started: side by side or never."""
    left = [lease("cmd_1"), lease("cmd_2")]

    def script(request: Request) -> Answer:
        count = request.json()["maxLeases"]
        given, left[:] = left[:count], left[count:]
        return Answer(200, {"leases": given})

    offering(fake)
    fake.on(LEASE, script)
    meet = "mkfifo $D/$ARC_COMMAND_ID 2>/dev/null; other=cmd_$((3 - ${ARC_COMMAND_ID#cmd_})); "
    meet += "until [ -p $D/$other ]; do sleep 0.05; done; echo met"
    folder = subprocess.run(["mktemp", "-d"], capture_output=True, check=True).stdout.decode().strip()
    arguments = ("work", "demo", "greeter", "--concurrency", "2", "--url", fake.url, "--", "sh", "-c", meet)
    with started(*arguments, D=folder) as process:
        submitted = fake.wait_for(SUBMIT, count=2)
        process.send_signal(signal.SIGTERM)
        process.wait(10)
    assert [result_of(request.json()) for request in submitted] == [b"met\n", b"met\n"]
