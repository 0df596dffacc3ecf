"""Printing: results to stdout, everything else to stderr; tables for people, JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Container, Iterable, Sequence
from typing import Any, Final

_STYLES: Final = {"ok": "green", "WARN": "bold yellow", "FAIL": "bold red"}


def complain(message: str, *, advice: str = "") -> None:
    """One line to stderr: what is wrong, and what to do about it."""
    print(f"arc-es: {message}" + (f" - {advice}" if advice else ""), file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """One JSON document to stdout: one line for a pipe, indented for a terminal."""
    indent = 2 if sys.stdout.isatty() else None
    print(json.dumps(value, indent=indent, ensure_ascii=False), flush=True)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str, wrap: Container[str] = ()
) -> None:
    """A table to stdout: on a terminal the `wrap` columns are folded to its width; in a pipe one line a row, uncut."""
    lines = [[printable(cell) for cell in row] for row in rows]
    if not lines:
        print(empty, flush=True)
    elif sys.stdout.isatty():
        _print_rich(columns, lines, wrap)
    else:
        widths = [max(map(len, cells)) for cells in zip(columns, *lines, strict=True)]
        for line in (columns, *lines):
            padded = "  ".join(cell.replace("\n", " ").ljust(width) for cell, width in zip(line, widths, strict=True))
            print(padded.rstrip())
        sys.stdout.flush()


def _print_rich(columns: Sequence[str], lines: Iterable[Sequence[str]], wrap: Container[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column not in wrap)
    for line in lines:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in line))
    Console().print(table)


def printable(text: str) -> str:
    """Text without control characters: what strangers wrote must not steer the terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)
