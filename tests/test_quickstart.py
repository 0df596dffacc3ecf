"""The docs keep their word: the curl walk of the README and the agent of the how-to run as they stand."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = "127.0.0.1:8420"
WALK = re.compile(r"<!-- walk -->\n```bash\n(.*?)```\n<!-- end of walk -->", re.DOTALL)
AGENT = re.compile(r"<!-- agent -->\n```python\n(.*?)```\n<!-- end of agent -->", re.DOTALL)
CALLER = re.compile(r"<!-- caller -->\n```python\n(.*?)```\n<!-- end of caller -->", re.DOTALL)
TEST = re.compile(r"<!-- test -->\n```python\n(.*?)```\n<!-- end of test -->", re.DOTALL)
COUNTER = re.compile(r"<!-- counter -->\n```python\n(.*?)```\n<!-- end of counter -->", re.DOTALL)
LARGE_BODIES = re.compile(r"<!-- (?:caller|agent|result) -->\n```bash\n(.*?)```\n<!-- end of", re.DOTALL)
OPERATE = re.compile(r"<!-- operate -->\n```bash\n(.*?)```\n<!-- end of operate -->", re.DOTALL)
SHOWN = "#> "

pytestmark = pytest.mark.slow


def fenced(page: str, block: re.Pattern[str]) -> str:
    found = block.search((ROOT / page).read_text("utf-8"))
    assert found, f"{page} has nothing between its markers"
    return found[1]


def environ() -> dict[str, str]:
    """Ours without settings of the person who runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ARC_")}
    return {**kept, "PYTHONPATH": str(ROOT)}


def default_is_free() -> bool:
    host, _, port = DEFAULT.partition(":")
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, int(port)))
        return True
    return False


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """HOST:PORT of a service in an empty folder, the default one if nobody else has it."""
    options = [] if default_is_free() else ["--bind", "127.0.0.1:0"]
    serve = [sys.executable, "-m", "arc_es", "serve", "--log-level", "WARNING", *options]
    process = subprocess.Popen(serve, cwd=tmp_path, env=environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        ready = re.fullmatch(r"arc-es ready on http://(\S+)\n", line)
        assert ready, (line, process.stderr and process.stderr.read())
        yield ready[1]
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=20)
        assert (process.returncode, stderr) == (0, b"")
    finally:
        process.kill()
        process.communicate()


def check_walk(walk: str, address: str, folder: Path) -> None:
    """Run a walk against a service; it must print what it shows."""
    script = walk.replace(DEFAULT, address)
    bash = ["bash", "-eu", "-o", "pipefail"]
    done = subprocess.run(bash, input=script, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    shown = [line.removeprefix(SHOWN) for line in walk.splitlines() if line.startswith(SHOWN)]
    printed = done.stdout.splitlines()
    assert len(shown) == len(printed), done.stdout
    for wanted, found in zip(shown, printed, strict=True):
        assert re.fullmatch(re.escape(wanted).replace("…", ".+"), found), f"shown:   {wanted}\nprinted: {found}"


def test_walk_of_the_readme_prints_what_it_shows(address: str, tmp_path: Path) -> None:
    check_walk(fenced("README.md", WALK), address, tmp_path)


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
def test_walk_of_the_howto_on_large_bodies_prints_what_it_shows(address: str, tmp_path: Path) -> None:
    page = (ROOT / "docs/howto/large-bodies.md").read_text("utf-8")
    blocks = LARGE_BODIES.findall(page)
    assert len(blocks) == 3
    check_walk("".join(blocks), address, tmp_path)


def test_walk_of_the_operator_prints_what_it_shows(address: str, tmp_path: Path) -> None:
    """Both versions are this one; its directories are of this test."""
    for number in range(3):
        assert called(address, "greet", f"[{number}]", "--no-wait").returncode == 0
    for place in ("opt/arc-es/bin", "opt/arc-es-next/bin", "backup"):
        (tmp_path / place).mkdir(parents=True)
        if place != "backup":
            program = tmp_path / place / "arc-es"
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m arc_es "$@"\n')
            program.chmod(0o755)
    walk = "".join(OPERATE.findall((ROOT / "docs/howto/operate.md").read_text("utf-8")))
    for example in ("/opt/arc-es", "/backup"):
        walk = walk.replace(example, f"{tmp_path}{example}")
    walk = walk.replace("/var/lib/arc", str(tmp_path / "arc-data"))
    check_walk(f"PATH={tmp_path}/opt/arc-es/bin:$PATH\n{walk}", address, tmp_path)


def called(
    address: str, command: str, params: str, *more: str, target: str = "adder"
) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "arc_es", "call", "demo", command, params, "--target", target, *more]
    call += [] if more else ["--timeout", "20"]
    given = {**environ(), "ARC_URL": f"http://{address}"}
    return subprocess.run(call, env=given, capture_output=True, text=True, timeout=30, check=False)


def test_agent_and_caller_of_the_howto_in_python_do_what_it_says(address: str, tmp_path: Path) -> None:
    page, given = "docs/howto/agent.md", {**environ(), "ARC_URL": f"http://{address}"}
    (tmp_path / "agent.py").write_text(fenced(page, AGENT))
    process = subprocess.Popen([sys.executable, "agent.py"], env=given, cwd=tmp_path)
    try:
        assert called(address, "add", '{"numbers": [1, 2, 3]}').stdout == "6.0"
        assert called(address, "count", "[1]").stdout == '{"bytes":3,"attempt":1}'
        caller = [sys.executable, "-c", fenced(page, CALLER)]
        done = subprocess.run(caller, env=given, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "6.5\nNOTHING_TO_ADD\n", "")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait(10)


def test_counter_of_the_quickstart_counts(address: str) -> None:
    counter = fenced("docs/quickstart.md", COUNTER).replace(DEFAULT, address)
    process = subprocess.Popen([sys.executable, "-c", counter], env=environ())
    try:
        counted = called(address, "count", '"to be or not to be"', target="counter")
        assert (counted.stdout, counted.stderr) == ('{"words":6,"attempt":1}', "")
        assert "INVALID_ENVELOPE: params: [1] is no str" in called(address, "count", "[1]", target="counter").stderr
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_the_test_in_the_howto_passes(backend: str) -> None:
    code = fenced("docs/howto/agent.md", TEST) + f"\nimport anyio\nanyio.run(test_of_the_adder, backend={backend!r})\n"
    done = subprocess.run([sys.executable, "-c", code], env=environ(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_agent_of_the_howto_answers(address: str) -> None:
    agent = [sys.executable, "-I", "-c", fenced("docs/howto/agent-over-http.md", AGENT)]
    process = subprocess.Popen(agent, env={**environ(), "ARC_URL": f"http://{address}"})
    try:
        added = called(address, "add", "[1, 2, 3]")
        assert (added.returncode, added.stdout, added.stderr) == (0, "6", "")
        refused = called(address, "subtract", "[1]")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "HANDLER_ERROR: no command subtract" in refused.stderr
    finally:
        process.kill()
        process.wait(10)
