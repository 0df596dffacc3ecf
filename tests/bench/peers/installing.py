"""The environments that systems run in, apart from ours: made once in a folder that the next run finds again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.peers.catalogue import Peer
from tests.bench.peers.servers import MissingError, find

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
REQUIREMENTS = HERE / "requirements.txt"
PACKAGE_JSON = HERE / "package.json"
NEWER = ("python3.12", "python3.13", "python3.14")


def command(peer: Peer, home: Path) -> tuple[list[str], dict[str, str]]:
    """What runs a system's script, and the environment variables that it needs; installs what is not there yet.

    Raises:
        MissingError: no interpreter is new enough, or there is no Node.js.
    """
    script = HERE / "systems" / peer.script
    if peer.runtime == "node":
        return [find("node", "nodejs"), str(script)], {"NODE_PATH": str(_node_modules(home))}
    python = sys.executable if peer.runtime == "arc_es" else str(_environment(peer.python, home))
    return [python, "-m", f"{__package__}.systems.{script.stem}"], {}


def _environment(oldest: tuple[int, int], home: Path) -> Path:
    """The interpreter of a virtual environment with the peers' packages.

    It is made from the Python that runs arc_es where that is new enough, so that the interpreter makes no difference.
    """
    base = _interpreter(oldest)
    show = [base, "-c", "import sys; print(*sys.version_info[:2], sep='.')"]
    version = subprocess.run(show, check=True, capture_output=True, text=True).stdout.strip()
    folder = home / f"python{version}"
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    if not stamp.exists() or stamp.read_bytes() != REQUIREMENTS.read_bytes():
        print(f"installing the peers' packages for Python {version} in {folder} (a minute or two)", file=sys.stderr)
        subprocess.run([base, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", str(REQUIREMENTS)], check=True)
        shutil.copy(REQUIREMENTS, stamp)
    return python


def _interpreter(oldest: tuple[int, int]) -> str:
    if sys.version_info >= oldest:
        return sys.executable
    for candidate in _candidates():
        code = f"import sys, venv; sys.exit(sys.version_info < {oldest})"
        try:
            if subprocess.run([candidate, "-c", code], check=False, capture_output=True).returncode == 0:
                return candidate
        except OSError:
            continue
    needed = ".".join(map(str, oldest))
    raise MissingError(f"Python {needed} or newer is not installed: apt-get install python{needed} python{needed}-venv")


def _candidates() -> Iterator[str]:
    yield from NEWER
    yield from sorted(str(path) for path in Path("~/.pyenv/versions").expanduser().glob("3.*/bin/python"))


def _node_modules(home: Path) -> Path:
    folder = home / "node"
    installed, stamp = folder / "package.json", folder / "complete"
    if not stamp.exists() or installed.read_bytes() != PACKAGE_JSON.read_bytes():
        npm = find("npm", "npm")
        print(f"installing BullMQ in {folder}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(PACKAGE_JSON, folder)
        install = [npm, "install", "--silent", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(install, cwd=folder, check=True)
        stamp.touch()
    return folder / "node_modules"
