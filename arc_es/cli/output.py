"""Printing: results to stdout, everything else to stderr; tables for people, JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def complain(message: str, *, advice: str = "") -> None:
    """One line to stderr: what is wrong, and what to do about it."""
    print(f"arc-es: {message}" + (f" - {advice}" if advice else ""), file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """One JSON document to stdout: one line for a pipe, indented for a terminal."""
    indent = 2 if sys.stdout.isatty() else None
    print(json.dumps(value, indent=indent, ensure_ascii=False), flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """A table to stdout, as wide as the terminal; unlimited in a pipe, so that nothing is cut there."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    lines = list(rows)
    if not lines:
        print(empty, flush=True)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for line in lines:
        table.add_row(*(Text(printable(cell)) for cell in line))
    _console().print(table)


def _console() -> Console:
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=10_000, no_color=True)


def printable(text: str) -> str:
    """Text without control characters: what strangers wrote must not steer the terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)
