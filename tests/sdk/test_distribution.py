"""The client alone: what importing it imports, and what it needs when it is installed without the service."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from tests.bench.servers import service
from tests.test_quickstart import environ

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "arc_es" / "client" / "pyproject.toml"
FOREIGN = (
    "quart",
    "quart_trio",
    "hypercorn",
    "nats",
    "trio",
    "trio_asyncio",
    "cyclopts",
    "rich",
    "obstore",
    "cryptography",
)

BOTH_SIDES = """
import asyncio, sys
from arc_es.client import Caller, Context, Worker

worker = Worker(sys.argv[1], deployment="alone", target="echo")

@worker.command("echo")
async def echo(params: str, ctx: Context) -> str:
    return params * 2

async def main() -> None:
    async with Caller(sys.argv[1]) as arc:
        running = asyncio.create_task(worker.run())
        print(await arc.call("alone", "echo", "ab", target="echo", timeout=30))
        worker.stop()
        await running

asyncio.run(main())
for name in sys.argv[2:]:
    try:
        __import__(name)
    except ImportError:
        continue
    print("there is", name)
"""


def dependencies(project: Path) -> dict[str, str]:
    requirements = tomllib.loads(project.read_text("utf-8"))["project"]["dependencies"]
    return {re.split(r"[<>=]", one, maxsplit=1)[0]: one for one in requirements}


def needed(names: set[str]) -> set[str]:
    """Distributions with all that they require."""
    found: set[str] = set()
    while names - found:
        name = (names - found).pop()
        found.add(name)
        for requirement in metadata.requires(name) or []:
            wanted, _, marker = requirement.partition(";")
            bare = re.split(r"[<>=~!\[ ]", wanted, maxsplit=1)[0].strip().replace("_", "-").lower()
            if "extra" not in marker and is_installed(bare):
                names.add(bare)
    return found


def is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def test_importing_the_client_imports_nothing_of_the_server() -> None:
    code = f"import sys, arc_es.client; print([name for name in {FOREIGN!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_the_client_alone_needs_is_what_the_service_needs_too() -> None:
    alone, whole = dependencies(PROJECT), dependencies(ROOT / "pyproject.toml")
    assert alone == {name: whole[name] for name in alone}


@pytest.mark.slow
def test_installed_alone_it_calls_and_works_on_asyncio(tmp_path: Path) -> None:
    """A virtual environment with three dependencies, what these need, and nothing else."""
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--disable-pip-version-check",
    ]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(PROJECT.parent)], check=True, timeout=120)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True, timeout=60)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv")}))
    with zipfile.ZipFile(next(tmp_path.glob("arc_es_client-*.whl"))) as wheel:
        wheel.extractall(site)
    ours = Path(sysconfig.get_path("purelib"))
    for name in needed(set(dependencies(PROJECT))):
        for top in {file.parts[0] for file in metadata.files(name) or [] if file.parts[0] not in ("..", "__pycache__")}:
            (site / top).symlink_to(ours / top)
    with service() as server:
        script = [str(python), "-I", "-c", BOTH_SIDES, f"http://127.0.0.1:{server.port}", *FOREIGN]
        done = subprocess.run(script, env=environ(), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "abab\n", "")
