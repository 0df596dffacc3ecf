"""What was measured, as a table: medians over rounds, and how they compare to arc_es."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from tests.bench.peers.running import Phase, Round

BASE = "arc_es"
TIE = 1.4
"""On a shared machine two medians closer than this are not told apart."""
HEAD = (
    "system",
    "stores in",
    "workers",
    "single /s",
    "x",
    "CPU ms",
    "bulk /s",
    "x",
    "CPU ms",
    "wake p50 ms",
    "x",
    "p99 ms",
)


@dataclass(slots=True)
class Row:
    """The rounds of one system, or why there are none."""

    name: str
    stores_in: str
    workers: int
    rounds: list[Round] = field(default_factory=list)
    problem: str = ""

    def median_of(self, what: Callable[[Round], float]) -> float:
        return median(map(what, self.rounds))

    def wake_ms(self, share: float) -> float:
        """A percentile over the wakes of all rounds."""
        return percentile([wake for each in self.rounds for wake in each.wakes_ms], share)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def ratio(value: float, base: float) -> str:
    """How many times the base; a tie is marked."""
    times = value / base
    return f"{times:.2f}" + ("~" if 1 / TIE < times < TIE else "")


def cells(row: Row, base: Row | None) -> list[str]:
    """A row of the table, with ratios to a base if that was measured too."""
    head = [row.name, row.stores_in, str(row.workers)]
    if not row.rounds:
        return [*head, row.problem or "not measured", *[""] * (len(HEAD) - len(head) - 1)]

    def rate(what: Callable[[Round], Phase]) -> list[str]:
        measured = row.median_of(lambda each: what(each).rate)
        times = ratio(measured, base.median_of(lambda each: what(each).rate)) if base else ""
        return [f"{measured:,.0f}", times, f"{row.median_of(lambda each: what(each).cpu_ms):.2f}"]

    wake = row.wake_ms(0.5)
    return [
        *head,
        *rate(lambda each: each.single),
        *rate(lambda each: each.bulk),
        f"{wake:.1f}",
        ratio(wake, base.wake_ms(0.5)) if base else "",
        f"{row.wake_ms(0.99):.1f}",
    ]


def markdown(rows: Sequence[Row]) -> str:
    """The table; ratios are to arc_es, and empty where that was not measured."""
    base = rows[0] if rows and rows[0].name == BASE and rows[0].rounds else None
    lines = [HEAD, tuple("---" for _ in HEAD), *(tuple(cells(row, base)) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
