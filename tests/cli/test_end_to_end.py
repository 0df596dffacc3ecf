"""The sub-commands against a real `arc-es serve` with its own nats-server."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import Arc, started

pytestmark = pytest.mark.slow

TOKEN = "an-admin-token-of-this-test"


@dataclass(frozen=True)
class Serving:
    url: str
    data_dir: Path
    process: subprocess.Popen[bytes]

    def environ(self) -> dict[str, str]:
        return {"ARC_URL": self.url, "ARC_TOKEN": TOKEN}


def ready_url(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().decode()
    found = re.fullmatch(r"arc-es ready on (http://127\.0\.0\.1:\d+)\n", line)
    assert found, line
    return found[1]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    data_dir = tmp_path_factory.mktemp("arc") / "data"
    with started(
        "serve", "--bind", "127.0.0.1:0", "--data-dir", str(data_dir), "--log-level", "WARNING", ARC_ADMIN_TOKEN=TOKEN
    ) as process:
        yield Serving(ready_url(process), data_dir, process)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=20)
        assert (process.returncode, stdout) == (0, b""), stderr


def test_call_is_answered_by_work_and_leaves_a_history(arc: Arc, service: Serving) -> None:
    created = arc("call", "demo", "greet", '{"name":"ada"}', "--target", "greeter", "--no-wait", **service.environ())
    command_id = created.stdout.decode().strip()
    assert created.returncode == 0, created.stderr

    queues = json.loads(arc("queues", "--json", **service.environ()).stdout)["queues"]
    assert [queue["pending"] for queue in queues if queue["deploymentId"] == "demo"] == [1]

    worked = arc("work", "demo", "greeter", "--once", "--", "tr", "a-z", "A-Z", **service.environ())
    assert worked.returncode == 0, worked.stderr

    history = json.loads(arc("history", command_id, "--json", **service.environ()).stdout)["events"]
    assert [event["type"] for event in history] == ["CommandCreated", "CommandLeased", "CommandSucceeded"]
    table = arc("history", command_id, **service.environ()).stdout.decode().splitlines()
    assert len(table) == 1 + len(history)
    assert table[0].split() == ["seq", "at", "event", "by", "data"]


def test_a_program_can_be_given_as_one_text(arc: Arc, service: Serving) -> None:
    called = arc("call", "demo", "greet", '"ada"', "--target", "texter", "--no-wait", **service.environ())
    assert called.returncode == 0, called.stderr
    worked = arc("work", "demo", "texter", "--once", "--exec", "tr 'a-z' A-Z", "--json", **service.environ())
    assert worked.returncode == 0, worked.stderr
    assert json.loads(worked.stdout)["outcome"] == "succeeded"
    for wrong in (("--exec", "tr 'a"), ("--exec", "tr a b", "--", "cat"), ("--exec", "no-such-program-here"), ()):
        assert arc("work", "demo", "texter", "--once", *wrong, **service.environ()).returncode == 2


def test_find_lists_what_was_asked_for(arc: Arc, service: Serving) -> None:
    given = ("--target", "lister", "--no-wait")
    names = [arc("call", "finding", f"list/{n}", *given, **service.environ()).stdout.decode().strip() for n in range(3)]

    def found(*options: str) -> list[str]:
        done = arc("find", "--deployment", "finding", "--json", *options, **service.environ())
        assert done.returncode == 0, done.stderr
        return [json.loads(line)["commandId"] for line in done.stdout.splitlines()]

    assert found() == names[::-1]
    assert found("--oldest-first", "--limit", "2") == names[:2]
    assert found("--command", "list/1", "--state", "PENDING") == [names[1]]
    assert found("--label", "run:8") == found("--until", "2020-01-01T00:00:00Z") == []
    assert found("--since", "2020-01-01T00:00:00Z", "--target", "lister") == names[::-1]
    table = arc("find", "--deployment", "finding", **service.environ()).stdout.decode().splitlines()
    assert [line.split()[1] for line in table[1:]] == names[::-1]
    refused = arc("find", "--state", "LOST", **service.environ())
    assert refused.returncode == 1
    assert b"state must be one of" in refused.stderr
    events = arc("events", "--deployment", "finding", "--json", "--since", "2999-01-01T00:00:00Z", **service.environ())
    assert events.stdout == b""
    until = ("--until", "2999-01-01T00:00:00Z")
    events = arc("events", "--deployment", "finding", "--json", *until, **service.environ())
    assert len(events.stdout.splitlines()) == len(names)
    assert arc("events", "--follow", *until, **service.environ()).returncode == 2


def test_dead_letters_are_cancelled_found_and_redriven(arc: Arc, service: Serving) -> None:
    def said(*arguments: str, status: int = 0) -> list[str]:
        done = arc(*arguments, **service.environ())
        assert done.returncode == status, done.stderr
        return done.stdout.decode().splitlines()

    given = ("--target", "greeter", "--no-wait")
    (first,), (second,) = said("call", "dead", "greet", "{}", *given), said("call", "dead", "greet", "{}", *given)
    assert said("cancel", first, "--reason", "ordered twice") == [f"{first} is cancelled"]
    assert said("cancel", first) == [f"{first} is cancelled"]
    assert json.loads(said("cancel", second, "--json")[0])["response"]["code"] == "CANCELLED"
    filters = ("--deployment", "dead", "--origin", "cancel")
    dry = said("redrive", *filters, "--dry-run")
    assert dry == [f"{first}  would be redriven", f"{second}  would be redriven"]
    (new,) = said("redrive", first)
    lines = said("redrive", *filters)
    assert lines[0] == f"{first}  runs already as  {new}"
    assert lines[1].startswith(f"{second}  redriven as  cmd_")
    (again,) = [json.loads(line) for line in said("redrive", *filters, "--redriven", "--json") if second in line]
    assert again["redriven"] is False
    assert said("find", *filters, "--no-redriven") == ["No such command."]
    said("redrive", status=1)
    said("redrive", first, "--dry-run", status=2)
    said("redrive", new, status=1)


def test_deployments_are_declared_paused_and_limited(arc: Arc, service: Serving, tmp_path: Path) -> None:
    file = tmp_path / "shop.json"
    file.write_text('{"targets":[{"resourceId":"indexer","resourceType":"daemon"}]}')

    def said(*arguments: str, status: int = 0) -> list[str]:
        done = arc("deployments", *arguments, **service.environ())
        assert done.returncode == status, done.stderr
        return done.stdout.decode().splitlines()

    assert said("declare", "controlled", str(file)) == ["controlled is declared with 1 targets"]
    assert "controlled" in said("list")[1]
    assert "database" in said("pause", "controlled", "--target", "indexer", "--reason", "database moves")[1]
    said("limit", "controlled", "indexer", "4")
    shown = json.loads(said("show", "controlled", "--json")[0])
    (target,) = shown["controls"]["targets"]
    assert (target["paused"], target["maxConcurrent"], target["reason"]) == (True, 4, "database moves")
    assert shown["declaration"]["targets"][0]["resourceId"] == "indexer"
    arc("call", "controlled", "index", "{}", "--no-wait", **service.environ())
    line = next(
        line for line in arc("queues", **service.environ()).stdout.decode().splitlines() if "controlled" in line
    )
    assert "paused, 4 at once" in line
    said("resume", "controlled", "--target", "indexer")
    assert said("limit", "controlled", "indexer") == ["Nothing is paused or limited."]
    assert said("show", "nobody") == ["Nothing is paused or limited."]
    said("pause", "controlled", "--target", "indexr", status=1)
    said("declare", "controlled", str(tmp_path / "none.json"), status=2)
    said("limit", "controlled", "indexer", "0", status=2)


def test_queues_of_the_past_say_who_held_what(arc: Arc, service: Serving) -> None:
    """The service asks another process; offline the same is said."""
    made = arc("call", "past", "greet", "{}", "--target", "greeter", "--no-wait", **service.environ())
    arc("work", "past", "greeter", "--once", "--", "cat", **service.environ())
    command_id = made.stdout.decode().strip()
    history = json.loads(arc("history", command_id, "--json", **service.environ()).stdout)["events"]
    leased = str(history[1]["seq"])
    shown = arc("queues", "--as-of", leased, **service.environ())
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.decode().splitlines()
    assert lines[-1] == f"as of seq {int(leased):,}"
    (lease,) = [line.split() for line in lines if command_id in line]
    assert [lease[0], lease[2], lease[4]] == ["past", command_id, "1"]
    offline = arc("replay", "--at", leased, "--queues", "--data-dir", str(service.data_dir))
    assert [line.split() for line in offline.stdout.decode().splitlines() if command_id in line] == [lease]
    answer = json.loads(arc("queues", "--as-of", leased, "--json", **service.environ()).stdout)
    assert answer["appliedSeq"] == int(leased)


def test_same_key_joins_the_first_call_and_prints_its_result(arc: Arc, service: Serving) -> None:
    key = ("--key", "k1", "--target", "joiner")
    arc("call", "demo", "join", "[1]", *key, "--no-wait", **service.environ())
    arc("work", "demo", "joiner", "--once", "--", "cat", **service.environ())
    joined = arc("call", "demo", "join", "[1]", *key, **service.environ())
    assert (joined.returncode, joined.stdout) == (0, b"[1]")
    other = arc("call", "demo", "join", "[2]", *key, **service.environ())
    assert (other.returncode, b"CONFLICT" in other.stderr) == (1, True)


def test_worker_processes_serve_waiting_calls(arc: Arc, service: Serving) -> None:
    program = ("sh", "-c", "cat >/dev/null; test $ARC_COMMAND = good && printf yes || { echo no >&2; exit 3; }")
    with started("work", "demo", "both", "--", *program, **service.environ()) as worker:
        good = arc("call", "demo", "good", "--target", "both", **service.environ())
        bad = arc("call", "demo", "bad", "--target", "both", **service.environ())
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=10)
    assert worker.returncode == 0
    assert (good.returncode, good.stdout) == (0, b"yes")
    assert (bad.returncode, bad.stdout) == (1, b"")
    assert b"EXIT_3: no" in bad.stderr


def test_time_out_leaves_the_command_alive(arc: Arc, service: Serving) -> None:
    late = arc("call", "demo", "late", "--target", "nobody", "--timeout", "0.5", "--json", **service.environ())
    assert (late.returncode, json.loads(late.stdout)["state"]) == (3, "PENDING")
    assert b"arc-es history cmd_" in late.stderr


def test_passed_deadline_is_told(arc: Arc, service: Serving) -> None:
    done = arc("call", "demo", "late", "--target", "nobody", "--deadline", "0.3s", **service.environ())
    assert (done.returncode, b"expired" in done.stderr) == (1, True)


def test_wrong_token_is_refused_in_one_line(arc: Arc, service: Serving) -> None:
    for arguments in (("queues",), ("history", "cmd_x"), ("call", "d", "c"), ("work", "d", "t", "--", "cat")):
        done = arc(*arguments, ARC_URL=service.url, ARC_TOKEN="wrong")
        assert (done.returncode, done.stdout) == (1, b""), arguments
        assert (done.stderr.count(b"\n"), b"ARC_TOKEN" in done.stderr) == (1, True), done.stderr


def test_unknown_command_is_refused(arc: Arc, service: Serving) -> None:
    done = arc("history", "cmd_unknown", **service.environ())
    assert (done.returncode, b"COMMAND_NOT_FOUND" in done.stderr) == (1, True)


def test_doctor_sees_the_running_service(arc: Arc, service: Serving) -> None:
    bind = service.url.removeprefix("http://")
    done = arc("doctor", "--json", "--bind", bind, "--data-dir", str(service.data_dir))
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert {"ok"} == {check["level"] for check in found.values()}, found
    assert "ready" in found["port"]["found"]
    assert f"pid {service.process.pid}" in found["data lock"]["found"]
    assert "as this version needs it" in found["stream"]["found"]


def test_second_service_on_the_same_data_is_refused(service: Serving) -> None:
    with started("serve", "--bind", "127.0.0.1:0", "--data-dir", str(service.data_dir)) as second:
        stdout, stderr = second.communicate(timeout=20)
    assert (second.returncode, stdout) == (1, b"")
    assert f"pid {service.process.pid}".encode() in stderr
    assert b"Traceback" not in stderr


def test_wrong_setting_ends_serve_with_status_2(arc: Arc) -> None:
    done = arc("serve", "--bind", "nowhere")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
