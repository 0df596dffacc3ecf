"""`arc-es doctor`: each trouble is found, named, and comes with a remedy."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from arc_es.cli import checks
from arc_es.config import Config
from arc_es.journal.server_files import ServerError
from tests.cli.conftest import Arc


def look(arc: Arc, *arguments: str, **environ: str) -> tuple[int, dict[str, Any]]:
    done = arc("doctor", "--json", "--bind", "127.0.0.1:0", *arguments, **environ)
    return done.returncode, {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_healthy_machine_is_ok_and_nothing_is_left_behind(arc: Arc, tmp_path: Path) -> None:
    status, found = look(arc)
    assert (status, {"ok"}) == (0, {check["level"] for check in found.values()}), found
    assert list(tmp_path.iterdir()) == []


def test_table_for_people_says_what_to_do(arc: Arc) -> None:
    done = arc("doctor", ARC_BIND="0.0.0.0:1")
    assert done.returncode == 1
    assert b"FAIL" in done.stdout
    assert b"ARC_ADMIN_TOKEN" in done.stdout


def test_wrong_setting_is_named(arc: Arc) -> None:
    status, found = look(arc, ARC_WORKERS="many")
    assert (status, found["settings"]["level"]) == (1, "fail")
    assert "ARC_WORKERS" in found["settings"]["found"]


def test_data_dir_that_others_can_read_is_a_warning(arc: Arc, tmp_path: Path) -> None:
    tmp_path.joinpath("d").mkdir(mode=0o755)
    status, found = look(arc, "--data-dir", "d")
    assert (status, found["data dir"]["level"]) == (0, "warn")
    assert "chmod 700" in found["data dir"]["advice"]


def test_data_dir_that_is_a_file_fails_without_a_crash(arc: Arc, tmp_path: Path) -> None:
    tmp_path.joinpath("f").touch()
    status, found = look(arc, "--data-dir", "f")
    assert (status, found["data dir"]["level"]) == (1, "fail")


def test_taken_port_fails_with_a_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        check = checks.check_port(Config(bind=f"127.0.0.1:{taken.getsockname()[1]}"))
    assert (check.level, "--bind" in check.advice) == ("fail", True)


def test_foreign_address_fails() -> None:
    assert checks.check_port(Config(bind="192.0.2.1:8420")).level == "fail"


def test_files_from_the_future_are_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_file_clock_seconds", lambda _: -30.0)
    check = checks.check_clock(tmp_path)
    assert (check.level, "-30.0 s" in check.found) == ("warn", True)


def test_missing_package_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "PACKAGES", ("trio", "no-such-package"))
    check = checks.check_packages()
    assert (check.level, check.found) == ("fail", "missing: no-such-package")


def test_missing_nats_server_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Path:
        raise ServerError("there is none")

    monkeypatch.setattr(checks, "find_nats_server", missing)
    assert checks.check_nats_server().level == "fail"


def test_old_nats_server_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nats-server"
    program.write_text("#!/bin/sh\necho nats-server: v2.10.0\n")
    program.chmod(0o755)
    monkeypatch.setattr(checks, "find_nats_server", lambda: program)
    check = checks.check_nats_server()
    assert (check.level, "2.10.0" in check.found) == ("fail", True)


def test_running_holder_of_the_data_dir_is_named(tmp_path: Path) -> None:
    with tmp_path.joinpath("lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        check = checks.check_lock(tmp_path)
    assert (check.level, f"pid {os.getpid()}" in check.found) == ("ok", True)
    assert checks.check_lock(tmp_path).found == "nobody uses the data directory"


def test_unreachable_nats_fails_and_its_password_is_not_shown(arc: Arc) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        status, found = look(arc, "--nats-url", f"nats://me:s3cret@127.0.0.1:{port}")
    assert (status, found["stream"]["level"]) == (1, "fail")
    assert "s3cret" not in json.dumps(found)
