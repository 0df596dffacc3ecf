"""`arc-es call` against a scripted service: what it prints, what it retries, how it ends."""

from __future__ import annotations

import base64
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Arc, command, environ, started
from tests.cli.fake import Answer, FakeService, problem

ID = "cmd_1"
TARGET = {"resourceId": "greeter", "resourceType": "daemon"}
CREATED = Answer(200, {"commandId": ID, "state": "PENDING", "inlineAllowedUpTo": 150_000, "next": "poll"})


def status(state: str, response: dict[str, Any] | None = None) -> Answer:
    more = {} if response is None else {"response": response}
    return Answer(200, {"commandId": ID, "state": state, "attempt": 1, "target": TARGET, **more})


def success(result: bytes) -> Answer:
    inline = {"mode": "inline", "inlineBase64": base64.b64encode(result).decode()}
    return status("SUCCEEDED", {"status": "success", "response": inline})


def accepting(fake: FakeService, last: Answer) -> None:
    fake.on("POST /v1/commands", CREATED)
    fake.on(f"GET /v1/commands/{ID}", last)


def test_result_goes_to_stdout_byte_for_byte(arc: Arc, fake: FakeService) -> None:
    accepting(fake, success(b'{"a":  1}'))
    done = arc("call", "demo", "greet", '{"n":1}', "--target", "greeter", ARC_URL=fake.url, ARC_TOKEN="t0k")
    assert (done.returncode, done.stdout, done.stderr) == (0, b'{"a":  1}', b"")
    request = fake.asked("POST /v1/commands")[0]
    asked = request.json()
    assert base64.b64decode(asked["params"]["inlineBase64"]) == b'{"n":1}'
    assert (asked["deploymentId"], asked["command"], asked["targetResourceId"]) == ("demo", "greet", "greeter")
    assert request.headers["authorization"] == "Bearer t0k"
    assert asked["idempotencyKey"]


def test_json_output_is_one_object(arc: Arc, fake: FakeService) -> None:
    accepting(fake, success(b"[1]"))
    done = arc("call", "demo", "greet", "--json", "--url", fake.url)
    assert json.loads(done.stdout) == {"commandId": ID, "state": "SUCCEEDED", "attempt": 1, "result": [1]}


def test_params_come_from_stdin_or_a_file_as_they_are(arc: Arc, fake: FakeService, tmp_path: Path) -> None:
    accepting(fake, success(b"{}"))
    (tmp_path / "p").write_bytes(b"\x00\xff")
    arc("call", "demo", "greet", "-", "--url", fake.url, stdin=b"raw")
    arc("call", "demo", "greet", "@p", "--url", fake.url)
    sent = [base64.b64decode(r.json()["params"]["inlineBase64"]) for r in fake.asked("POST /v1/commands")]
    assert sent == [b"raw", b"\x00\xff"]


def test_error_answer_is_one_line_on_stderr_and_status_1(arc: Arc, fake: FakeService) -> None:
    accepting(fake, status("FAILED", {"status": "error", "code": "DB_DOWN", "message": "no\x1b[31m connection"}))
    done = arc("call", "demo", "greet", "--url", fake.url)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == "arc-es: command cmd_1 failed: DB_DOWN: no\ufffd[31m connection\n"


def test_expired_command_is_a_failure(arc: Arc, fake: FakeService) -> None:
    accepting(fake, status("EXPIRED"))
    done = arc("call", "demo", "greet", "--url", fake.url)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"expired" in done.stderr


def test_time_out_tells_the_command_id_and_exits_3(arc: Arc, fake: FakeService) -> None:
    accepting(fake, status("DISPATCHED"))
    done = arc("call", "demo", "greet", "--timeout", "0.8", "--url", fake.url)
    assert done.returncode == 3
    assert b"arc-es history cmd_1" in done.stderr


def test_temporary_trouble_is_retried_with_the_same_key(arc: Arc, fake: FakeService) -> None:
    creates: Iterator[Answer] = iter([problem(503, "NOT_READY", retryable=True), Answer(502, b"<html>"), CREATED])
    polls: Iterator[Answer] = iter([problem(429, "OVERLOADED", retryable=True, Retry_After="0"), success(b"1")])
    fake.on("POST /v1/commands", lambda _: next(creates))
    fake.on(f"GET /v1/commands/{ID}", lambda _: next(polls))
    done = arc("call", "demo", "greet", "--url", fake.url)
    assert (done.returncode, done.stdout) == (0, b"1")
    assert len({request.json()["idempotencyKey"] for request in fake.asked("POST /v1/commands")}) == 1
    assert done.stderr.count(b"trying again") == 1


def test_refusal_is_final_and_says_what_to_do(arc: Arc, fake: FakeService) -> None:
    fake.on("POST /v1/commands", problem(401, "UNAUTHORIZED", retryable=False))
    done = arc("call", "demo", "greet", "--url", fake.url)
    assert done.returncode == 1
    assert len(fake.requests) == 1
    assert b"ARC_TOKEN" in done.stderr
    assert b"Traceback" not in done.stderr


def test_unreachable_service_is_named(arc: Arc) -> None:
    with socket.socket() as nobody:  # bound, not listening: nobody else can take the port meanwhile
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        done = arc("call", "demo", "greet", "--timeout", "0.5", "--url", url)
    assert done.returncode == 1
    assert url.encode() in done.stderr
    assert b"is `arc-es serve` running there?" in done.stderr


def test_unknown_outcome_of_a_create_tells_the_key(arc: Arc, fake: FakeService) -> None:
    fake.on("POST /v1/commands", problem(503, "JOURNAL_UNAVAILABLE", retryable=True))
    done = arc("call", "demo", "greet", "--timeout", "0.5", "--key", "k1", "--url", fake.url)
    assert (done.returncode, b"--key k1" in done.stderr) == (1, True)


def test_stranger_at_the_url_is_recognised(arc: Arc, fake: FakeService) -> None:
    for answer in (Answer(200, b"<html>"), Answer(200, {"hello": 1}), Answer(302, headers={"Location": "/login"})):
        fake.on(".*", answer)
        for arguments in (("call", "demo", "greet"), ("queues",), ("history", "cmd_1")):
            done = arc(*arguments, "--url", fake.url)
            assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1), done.stderr
            assert b"does --url (ARC_URL) name an arc-es service?" in done.stderr


def test_no_wait_prints_the_id_only(arc: Arc, fake: FakeService) -> None:
    accepting(fake, success(b"{}"))
    done = arc("call", "demo", "greet", "--no-wait", "--deadline", "15m", "--url", fake.url)
    assert (done.returncode, done.stdout) == (0, b"cmd_1\n")
    assert fake.asked("POST /v1/commands")[0].json()["deadline"].endswith("Z")
    assert len(fake.requests) == 1


def presigned(fake: FakeService, path: str, method: str) -> dict[str, Any]:
    return {"backend": {"type": "http", "url": f"{fake.url}{path}", "method": method, "headers": {}}}


def awaiting_upload(fake: FakeService, path: str = "/storage/p?signature=s") -> Answer:
    upload = {"putRequest": presigned(fake, path, "PUT")}
    return Answer(200, {"commandId": ID, "state": "PENDING_UPLOAD", "next": "upload", "storageUpload": upload})


def stored(fake: FakeService, size: int, path: str = "/storage/r?signature=s") -> Answer:
    request = presigned(fake, path, "GET")
    body = {"mode": "storage", "size": size, "storageGetRequest": request, "storagePutUsed": True}
    return status("SUCCEEDED", {"status": "success", "response": body})


def test_large_params_are_uploaded_without_the_token(arc: Arc, fake: FakeService, tmp_path: Path) -> None:
    big = b"x" * 150_001
    (tmp_path / "big").write_bytes(big)
    fake.on("POST /v1/commands", lambda _: awaiting_upload(fake))
    fake.on("PUT /storage/p", Answer(200))
    fake.on(f"POST /v1/commands/{ID}/upload-complete", Answer(200, {"commandId": ID, "state": "PENDING"}))
    fake.on(f"GET /v1/commands/{ID}", success(b"{}"))
    for params in ("-", "@big"):
        done = arc("call", "demo", "greet", params, "--url", fake.url, "--token", "t0k", stdin=big)
        assert (done.returncode, done.stdout) == (0, b"{}")
    for put in fake.asked("PUT /storage/p"):
        assert (put.body, put.query, put.headers["content-length"]) == (big, "signature=s", "150001")
        assert "authorization" not in put.headers
    assert fake.asked("POST /v1/commands")[0].json()["params"] == {"mode": "storage", "size": len(big)}
    assert [asked.json() for asked in fake.asked(".*upload-complete")] == [{"size": len(big)}] * 2


def test_params_up_to_the_limit_travel_inline(arc: Arc, fake: FakeService) -> None:
    accepting(fake, success(b"{}"))
    assert arc("call", "demo", "greet", "-", "--url", fake.url, stdin=b"x" * 150_000).returncode == 0
    assert fake.asked("POST /v1/commands")[0].json()["params"]["mode"] == "inline"


def test_a_refused_upload_url_is_asked_for_again(arc: Arc, fake: FakeService) -> None:
    paths = iter(["/storage/old", "/storage/new"])
    fake.on("POST /v1/commands", lambda _: awaiting_upload(fake, next(paths)))
    fake.on("PUT /storage/old", problem(403, "FORBIDDEN", retryable=False))
    fake.on("PUT /storage/new", Answer(200))
    fake.on(f"POST /v1/commands/{ID}/upload-complete", Answer(200, {"commandId": ID, "state": "PENDING"}))
    done = arc("call", "demo", "greet", "-", "--no-wait", "--url", fake.url, stdin=b"x" * 200_000)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"cmd_1\n", b"")
    assert len({request.json()["idempotencyKey"] for request in fake.asked("POST /v1/commands")}) == 1


def test_an_upload_url_that_is_always_refused_is_told(arc: Arc, fake: FakeService) -> None:
    fake.on("POST /v1/commands", lambda _: awaiting_upload(fake))
    fake.on("PUT /storage/p", problem(403, "FORBIDDEN", retryable=False))
    done = arc("call", "demo", "greet", "-", "--no-wait", "--url", fake.url, stdin=b"x" * 200_000)
    assert (done.returncode, done.stderr.count(b"\n"), b"URL_REFUSED" in done.stderr) == (1, 1, True)


def test_what_another_call_has_uploaded_already_is_not_uploaded_again(arc: Arc, fake: FakeService) -> None:
    answers = iter([awaiting_upload(fake), CREATED])
    fake.on("POST /v1/commands", lambda _: next(answers))
    fake.on("PUT /storage/p", problem(409, "CONFLICT", retryable=False))
    done = arc("call", "demo", "greet", "-", "--no-wait", "--url", fake.url, stdin=b"x" * 200_000)
    assert (done.returncode, done.stdout) == (0, b"cmd_1\n")


def test_a_stored_result_is_downloaded_without_the_token(arc: Arc, fake: FakeService, tmp_path: Path) -> None:
    raw = bytes(range(256)) * 800
    fake.on("POST /v1/commands", CREATED)
    fake.on(f"GET /v1/commands/{ID}", lambda _: stored(fake, len(raw)))
    fake.on("GET /storage/r", Answer(200, raw))
    piped = arc("call", "demo", "greet", "--url", fake.url, "--token", "t0k")
    assert (piped.returncode, piped.stdout, piped.stderr) == (0, raw, b"")
    filed = arc("call", "demo", "greet", "--output", "r.bin", "--json", "--url", fake.url, "--token", "t0k")
    assert json.loads(filed.stdout)["resultBytes"] == len(raw)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("r.bin", raw)]
    assert [request.query for request in fake.asked("GET /storage/r")] == ["signature=s"] * 2
    assert not any("authorization" in request.headers for request in fake.asked("GET /storage/r"))


def test_a_refused_download_url_is_asked_for_again(arc: Arc, fake: FakeService) -> None:
    paths = iter(["/storage/old", "/storage/new"])
    fake.on("POST /v1/commands", CREATED)
    fake.on(f"GET /v1/commands/{ID}", lambda _: stored(fake, 3, next(paths)))
    fake.on("GET /storage/old", problem(403, "FORBIDDEN", retryable=False))
    fake.on("GET /storage/new", Answer(200, b"abc"))
    done = arc("call", "demo", "greet", "--url", fake.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"abc", b"")


def test_a_download_that_breaks_goes_on_where_it_was(arc: Arc, fake: FakeService) -> None:
    raw = bytes(range(256)) * 800
    answers = iter([Answer(200, raw[:70_000], {"Content-Length": str(len(raw)), "Connection": "close"})])
    fake.on("POST /v1/commands", CREATED)
    fake.on(f"GET /v1/commands/{ID}", lambda _: stored(fake, len(raw)))
    fake.on("GET /storage/r", lambda _: next(answers, Answer(200, raw)))
    done = arc("call", "demo", "greet", "--url", fake.url)
    assert (done.returncode, done.stdout == raw, b"trying again" in done.stderr) == (0, True, True)


def test_a_failed_call_leaves_the_output_file_as_it_was(arc: Arc, fake: FakeService, tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(b"before")
    fake.on("POST /v1/commands", CREATED)
    fake.on(f"GET /v1/commands/{ID}", lambda _: stored(fake, 3))
    fake.on("GET /storage/r", problem(404, "OBJECT_NOT_FOUND", retryable=False))
    done = arc("call", "demo", "greet", "--output", "r", "--url", fake.url)
    assert (done.returncode, b"OBJECT_NOT_FOUND" in done.stderr) == (1, True)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("r", b"before")]


def test_a_result_that_does_not_come_in_time_is_not_called_a_failure(arc: Arc, fake: FakeService) -> None:
    fake.on("POST /v1/commands", CREATED)
    fake.on(f"GET /v1/commands/{ID}", lambda _: stored(fake, 3))
    fake.on("GET /storage/r", problem(503, "STORAGE_OPERATION_FAILED", retryable=True))
    done = arc("call", "demo", "greet", "--key", "k1", "--timeout", "0.5", "--url", fake.url)
    assert (done.returncode, b"succeeded" in done.stderr, b"--key k1" in done.stderr) == (3, True, True)


def test_output_that_cannot_be_written_is_told(arc: Arc, fake: FakeService) -> None:
    accepting(fake, success(b"{}"))
    done = arc("call", "demo", "greet", "--output", "no/such/folder", "--url", fake.url)
    assert (done.returncode, done.stderr.count(b"\n"), b"cannot be written" in done.stderr) == (1, 1, True)


@pytest.mark.slow
def test_params_from_a_pipe_are_uploaded(fake: FakeService) -> None:
    fake.on("POST /v1/commands", lambda _: awaiting_upload(fake))
    fake.on("PUT /storage/p", Answer(200))
    fake.on(f"POST /v1/commands/{ID}/upload-complete", Answer(200, {"commandId": ID, "state": "PENDING"}))
    line = [*command("call", "demo", "greet", "-", "--no-wait", "--url", fake.url)]
    big = bytes(range(256)) * 8_000
    done = subprocess.run(line, input=big, env=environ(), capture_output=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"cmd_1\n", b"")
    assert fake.asked("PUT /storage/p")[0].body == big


def test_wrong_usage_is_one_line_and_status_2(arc: Arc) -> None:
    wrong = [
        ("call", "demo"),
        ("call", "demo", "greet", "{not json"),
        ("call", "demo", "greet", "@missing"),
        ("call", "demo", "greet", "--deadline", "soon"),
        ("call", "demo", "greet", "--deadline", "99999999999999d"),
        ("call", "demo", "greet", "--deadline", "2000-01-01T00:00:00Z"),
        ("call", "demo", "greet", "--timeout", "0"),
        ("call", "demo", "greet", "--url", "nowhere"),
        ("call", "demo", "greet", "--token", "two words"),
        ("call", "demo", "\udcff"),
        ("nonsense",),
    ]
    for arguments in wrong:
        done = arc(*arguments)
        assert done.returncode == 2, arguments
        assert done.stdout == b""
        assert done.stderr.startswith(b"arc-es: ")
        assert done.stderr.count(b"\n") == 1, done.stderr


@pytest.mark.slow
def test_ctrl_c_tells_where_to_look(fake: FakeService) -> None:
    accepting(fake, status("PENDING"))
    with started("call", "demo", "greet", "--url", fake.url) as process:
        fake.wait_for(f"GET /v1/commands/{ID}")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=10)
    assert process.returncode == 130
    assert b"arc-es history cmd_1" in stderr
    assert b"Traceback" not in stderr


@pytest.mark.slow
def test_call_imports_nothing_of_the_server() -> None:
    """What makes `arc-es call` start slowly must not creep in."""
    code = (
        "import sys; from arc_es.cli.main import main; main(['call', 'd', 'c', '--url', 'http://127.0.0.1:1',"
        " '--timeout', '0.1']); print(*sorted(m for m in sys.modules if '.' not in m))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=True)
    loaded = set(done.stdout.decode().split())
    assert "httpx2" in loaded
    assert not loaded & {"quart", "quart_trio", "hypercorn", "nats", "asyncio", "trio_asyncio"}
