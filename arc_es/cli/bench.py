"""`arc-es bench`: what a service does on this machine, with charts that move."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final

from cyclopts import Parameter
from cyclopts.validators import Number

from arc_es.bench.drive import Place
from arc_es.bench.loads import BenchFailed, Loads, Measured
from arc_es.bench.own import OwnService, own_service
from arc_es.cli.options import EXIT_USAGE, CommandFailure, Json
from arc_es.cli.output import complain, print_json, print_table

LOADS: Final = ("create", "batch", "lifecycle", "wake", "replay")
_BARS: Final = " ▁▂▃▄▅▆▇█"
_CHART_COLUMNS: Final = 40


def bench(
    *loads: str,
    url: str | None = None,
    token: Annotated[str | None, Parameter(env_var="ARC_TOKEN")] = None,
    commands: Annotated[int, Parameter(validator=Number(gte=1, lte=1_000_000))] = 2_000,
    connections: Annotated[int, Parameter(validator=Number(gte=1, lte=500))] = 16,
    json: Json = False,
) -> int:
    """Measure a service: rates, and how long things take.

    Without --url it starts a real service of its own, with its own nats-server, in a temporary folder, and removes it
    at the end. A service that you name is really loaded: its log keeps what is made, in a deployment bench-…, and what
    nobody answers expires after an hour. On a terminal, charts show the rate while it runs.

    create: one command a request. batch: a hundred a request. lifecycle: create, lease, answer, read, by as many
    callers as agents. wake: from a create to the agent that waits for it, when nothing else happens. replay: kill -9
    the service, and time its start.

    For example:

        arc-es bench

        arc-es bench create lifecycle --commands 20000 --connections 64

        arc-es bench wake --url http://127.0.0.1:8420 --json

    Args:
        loads: Which ones, in this order; default: all (replay only on a service of its own).
        url: Of a service to measure; plain http. Never taken from ARC_URL: load should not go where calls go.
        token: Admin token of that service.
        commands: How many commands a load makes; wake a tenth of it, at most 300.
        connections: How many connections at the same time, and for lifecycle as many agents.
        json: Print one JSON object: url, own, results with name, count, perSecond, p50Ms, p99Ms.
    """
    chosen = loads or tuple(name for name in LOADS if url is None or name != "replay")
    unknown = [name for name in chosen if name not in LOADS]
    if unknown or (url is not None and "replay" in chosen):
        message = f"there is no load {unknown[0]!r}" if unknown else "replay needs a service of its own"
        raise CommandFailure(message, advice=f"choose among {', '.join(LOADS)}", exit_status=EXIT_USAGE)
    try:
        with _service(url) as (where, own):
            results = _measured(chosen, Place.of(where, token if own is None else None), own, commands, connections)
    except ValueError as error:
        raise CommandFailure(str(error), exit_status=EXIT_USAGE) from error
    except (BenchFailed, OSError) as error:
        raise CommandFailure(str(error), advice="see arc-es doctor, and --url and --token") from error
    _report(where, results, own=own is not None, as_json=json)
    return 0


@contextmanager
def _service(url: str | None) -> Iterator[tuple[str, OwnService | None]]:
    if url is not None:
        yield url, None
        return
    complain("starting a service of its own")
    with own_service() as own:
        yield own.url, own


def _measured(
    chosen: tuple[str, ...], place: Place, own: OwnService | None, commands: int, connections: int
) -> list[Measured]:
    chart = Chart()
    results: list[Measured] = []
    for name in chosen:
        if name == "replay":
            assert own is not None
            results.append(_replayed(own, sum(one.count for one in results)))
            place = Place.of(own.url)
        else:
            results.append(getattr(Loads(place, commands, connections, chart.tick), name)())
        chart.close()
    return results


def _replayed(own: OwnService, commands: int) -> Measured:
    """How long a start takes that has so many commands to read."""
    own.kill()
    seconds = own.start()
    return Measured("replay", commands, seconds, [seconds])


class Chart:
    """The rate of a load as a line that grows on a terminal; elsewhere nothing."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._rates: list[float] = []
        self._last = (0.0, 0)

    def tick(self, name: str, seconds: float, count: int) -> None:
        """One more column."""
        since, done = self._last
        self._last = (seconds, count)
        self._rates = [*self._rates, (count - done) / (seconds - since)][-_CHART_COLUMNS:]
        if self._shown:
            line = f"{name:10} {line_of(self._rates):{_CHART_COLUMNS}} {self._rates[-1]:10,.0f} /s {count:10,}"
            print(f"\r{line}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """The load is over."""
        if self._shown and self._rates:
            print(file=sys.stderr)
        self._rates, self._last = [], (0.0, 0)


def line_of(values: list[float]) -> str:
    """Values as a row of bars, the highest one full."""
    highest = max(values, default=0.0) or 1.0
    return "".join(_BARS[round(value / highest * (len(_BARS) - 1))] for value in values)


def histogram_of(latencies: list[float], columns: int = 24) -> str:
    """How often which latency came, from nothing to the highest of the lowest 99 %."""
    ordered = sorted(latencies)
    highest = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))] or 1e-9
    counts = [0.0] * columns
    for value in ordered:
        counts[min(columns - 1, int(value / highest * (columns - 1)))] += 1
    return line_of(counts)


def _report(where: str, results: list[Measured], *, own: bool, as_json: bool) -> None:
    if as_json:
        print_json({"url": where, "own": own, "results": [_json(one) for one in results]})
        return
    rows = [
        (
            one.name,
            f"{one.count:,}",
            f"{one.per_second:,.0f}",
            f"{one.milliseconds(0.5):,.1f}",
            f"{one.milliseconds(0.99):,.1f}",
            histogram_of(one.latencies),
        )
        for one in results
    ]
    print_table(("load", "commands", "per s", "p50 ms", "p99 ms", "0 ms to p99"), rows, empty="nothing was measured")


def _json(one: Measured) -> dict[str, Any]:
    return {
        "name": one.name,
        "count": one.count,
        "seconds": round(one.seconds, 3),
        "perSecond": round(one.per_second, 1),
        "p50Ms": round(one.milliseconds(0.5), 3),
        "p99Ms": round(one.milliseconds(0.99), 3),
    }
