"""The shape of the house: imports point down, asyncio stays in one file, files and functions stay small."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = sorted(path for package in ("arc_es", "projections") for path in (ROOT / package).rglob("*.py"))
ALL = [*OURS, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "docs").rglob("*.py"))]

FILE_LINES_SOFT, FILE_LINES_HARD = 300, 500
FUNCTION_LINES_SOFT, FUNCTION_LINES_HARD = 25, 70

ASYNCIO_ONLY_IN = "arc_es/nats_bridge.py"
"""The one file that may know asyncio and nats-py."""
ASYNCIO_FAMILY = {"asyncio", "nats", "trio_asyncio"}

CLIENT_MAY_IMPORT = ("arc_es.client", "arc_es.wire", "arc_es.domain.ids")
"""What an agent installs should pull in nothing of the server; of `arc_es` itself it takes the version."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported_packages(source: str) -> set[str]:
    """The top-level packages that a module imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


def function_lengths(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            yield f"{name_of(path)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


def hold_to(soft: int, hard: int, what: str, sizes: dict[str, int]) -> None:
    """Warn over the soft limit, fail over the hard one."""
    over = {name: size for name, size in sorted(sizes.items()) if size > soft}
    if over:
        warnings.warn(f"soft limit of {soft} lines a {what}: {over}", stacklevel=2)
    too_big = {name: size for name, size in over.items() if size > hard}
    assert not too_big, f"over {hard} lines: make two of each such {what}"


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name("lint-imports")
    command = [str(script), "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def test_imports_point_down() -> None:
    """The contracts in pyproject.toml hold."""
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("file", "bad_import", "contract"),
    [
        ("arc_es/domain/decide.py", "import arc_es.codec", "Imports point down only"),
        ("arc_es/domain/decide.py", "import asyncio", "asyncio and nats live in nats_bridge only"),
        ("arc_es/codec.py", "import projections", "Only the composition root imports projections"),
        ("projections/__init__.py", "import arc_es.ports", "Projections import the domain only"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, file: str, bad_import: str, contract: str) -> None:
    """Each contract can fail: a copy of the code with one wrong import breaks exactly it."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in ("arc_es", "projections"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / file).open("a") as module:
        module.write(f"\n{bad_import}\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{contract} BROKEN" in " ".join(result.stdout.split())


def test_asyncio_and_nats_are_confined_to_the_bridge() -> None:
    """Also inside functions and under `if`: nobody else may run a foreign event loop."""
    offenders = {
        name_of(path): sorted(found)
        for path in OURS
        if (found := imported_packages(path.read_text("utf-8")) & ASYNCIO_FAMILY) and name_of(path) != ASYNCIO_ONLY_IN
    }
    assert offenders == {}


def test_the_client_imports_nothing_of_the_server() -> None:
    graph = grimp.build_graph("arc_es", cache_dir=None)
    inside = {module for module in graph.modules if module.startswith("arc_es.client")}
    offenders = {
        (module, imported)
        for module in inside
        for imported in graph.find_modules_directly_imported_by(module)
        if imported != "arc_es" and not imported.startswith(CLIENT_MAY_IMPORT)
    }
    assert offenders == set()


def test_the_domain_is_standard_library_only() -> None:
    imported = {
        package
        for path in (ROOT / "arc_es" / "domain").rglob("*.py")
        for package in imported_packages(path.read_text("utf-8"))
    }
    assert imported <= sys.stdlib_module_names | {"arc_es"}


def test_files_stay_small() -> None:
    sizes = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in ALL}
    hold_to(FILE_LINES_SOFT, FILE_LINES_HARD, "file", sizes)


def test_functions_stay_small() -> None:
    sizes = dict(length for path in ALL for length in function_lengths(path))
    hold_to(FUNCTION_LINES_SOFT, FUNCTION_LINES_HARD, "function", sizes)
