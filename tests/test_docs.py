"""The docs say what the code does: generated pages are fresh, and nothing public is left unmentioned."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from arc_es.cli.main import build
from arc_es.codec import EVENT_TYPES
from arc_es.config import Config
from docs import generate

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
DECISIONS = ROOT / "docs" / "decisions"

ROUTE_DECORATORS = {"get", "post", "put", "delete", "patch", "route"}
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def page(name: str) -> str:
    path = REFERENCE / name
    assert path.exists(), f"docs/reference/{name} is missing"
    return path.read_text("utf-8")


def routes() -> Iterator[str]:
    """The rules of the blueprints, with their parameters as the docs write them: /commands/{commandId}."""
    for source in sorted((ROOT / "arc_es" / "http").rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(attr=attr), args=[ast.Constant(value=str(rule)), *_]):
                    if attr in ROUTE_DECORATORS and rule.startswith("/"):
                        yield re.sub(r"<(?:[^<>:]*:)?(\w+)>", as_parameter, rule)
                case _:
                    pass


def as_parameter(found: re.Match[str]) -> str:
    head, *tail = found[1].split("_")
    return "{" + head + "".join(word.capitalize() for word in tail) + "}"


@pytest.mark.parametrize("name", sorted(generate.PAGES))
def test_a_generated_page_is_fresh(name: str) -> None:
    """If not: `make docs`."""
    text = page(name)
    assert text == generate.renewed(name, text, generate.PAGES[name]())


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the lines"):
        generate.renewed("events.md", "no markers", "")


def test_every_event_is_documented() -> None:
    text = page("events.md")
    assert [name for name in EVENT_TYPES if f"### {name}\n" not in text] == []


def test_every_setting_is_documented() -> None:
    text = page("config.md")
    assert [field.name for field in fields(Config) if f"`{field.name}`" not in text] == []


def test_every_route_is_documented() -> None:
    text = page("http.md")
    found = sorted(set(routes()))
    assert "/commands/{commandId}" in found
    assert [route for route in found if route not in text] == []


def test_every_sub_command_is_documented() -> None:
    text = page("cli.md")
    names = [name for name in build() if not name.startswith("-")]
    assert "serve" in names
    assert [name for name in names if f"arc-es {name}" not in text] == []


def test_every_decision_is_listed() -> None:
    index = DECISIONS / "README.md"
    assert index.exists(), "docs/decisions/README.md is missing"
    linked = set(LINK.findall(index.read_text("utf-8")))
    records = {path.name for path in DECISIONS.glob("*.md")} - {"README.md"}
    assert records - linked == set()


def test_every_dependency_was_decided_on() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = [re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0] for requirement in project["dependencies"]]
    records = "\n".join(path.read_text("utf-8") for path in DECISIONS.glob("*.md"))
    assert [name for name in names if not re.search(rf"\b{re.escape(name)}\b", records)] == []


def pages() -> list[Path]:
    return [*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md"))]


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    inside = [link for link in LINK.findall(path.read_text("utf-8")) if "://" not in link and "mailto:" not in link]
    assert [link for link in inside if not (path.parent / link).exists()] == []
