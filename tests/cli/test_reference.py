"""The reference pages name every sub-command, option and setting, with its default."""

from __future__ import annotations

import re
from dataclasses import MISSING, Field, fields
from pathlib import Path

import pytest
from cyclopts import App

from arc_es.cli.main import build
from arc_es.config import Config

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
SUB_COMMANDS = (
    "serve",
    "call",
    "work",
    "cancel",
    "redrive",
    "find",
    "history",
    "events",
    "explain",
    "queues",
    "erase",
    "export",
    "verify",
    "deployments",
    "token",
    "doctor",
    "backup",
    "restore",
    "snapshot",
    "replay",
    "bench",
)


def sections(page: str) -> dict[str, str]:
    parts = re.split(r"^## `arc-es (\w+)`$", (REFERENCE / page).read_text(), flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def test_every_sub_command_has_a_section() -> None:
    assert set(SUB_COMMANDS) == {name for name in build() if not name.startswith("-")}
    assert {"", *SUB_COMMANDS} == set(sections("cli.md"))


@pytest.mark.parametrize("name", SUB_COMMANDS)
def test_every_option_is_in_its_section_or_the_shared_one(name: str) -> None:
    written = sections("cli.md")
    text = written[""] + written[name]
    for command in nested(name).values():
        for argument in command.assemble_argument_collection(parse_docstring=True):
            if not argument.children:
                assert argument.parameter.help, argument.names
            for flag in argument.names:
                if flag.startswith("--"):
                    assert re.search(rf"`{flag}[ `]", text), flag


def nested(name: str) -> dict[str, App]:
    """A sub-command by its words, or those that it consists of."""
    command = build()[name]
    found = {f"{name} {one}": command[one] for one in command if not one.startswith("-")}
    return found or {name: command}


@pytest.mark.parametrize("name", SUB_COMMANDS)
def test_every_sub_command_shows_an_example(name: str) -> None:
    examples = sections("cli.md")[name].partition("```sh")[2]
    assert [words for words in nested(name) if f"arc-es {words}" not in examples] == []


@pytest.mark.parametrize("setting", fields(Config), ids=lambda setting: setting.name)
def test_every_setting_is_explained_with_its_default(setting: Field[object]) -> None:
    page = (REFERENCE / "config.md").read_text().splitlines()
    rows = [line for line in page if line.startswith(f"| `{setting.name}`")]
    assert len(rows) == 1
    assert setting.default is not MISSING
    _, _, default, environment, option, meaning, _ = [cell.strip() for cell in rows[0].split("|")]
    shown = str(setting.default).lower() if isinstance(setting.default, bool | None) else str(setting.default)
    assert default.strip("`") == shown
    assert f"`ARC_{setting.name.upper()}`" in environment
    assert meaning
    flags = {flag for argument in build()["serve"].assemble_argument_collection() for flag in argument.names}
    assert (f"--{setting.name.replace('_', '-')}" in flags) == option.startswith("`--")
