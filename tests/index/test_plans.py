"""A page costs as much as it is long: each filter walks along an index of its own, and sorts at most equal times."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace

import pytest

from arc_es.index import schema
from arc_es.index.query import page_of, parts_of, statement_of
from arc_es.index.rows import Batch, write
from arc_es.summaries import Find, Order, Place, Reach

COMMANDS = 3_000

FILTERS = {
    "nothing": (Find(), "by_age"),
    "deployment": (Find(deployment_id="d1"), "by_deployment"),
    "target": (Find(target_id="t1"), "by_target"),
    "command": (Find(command="c1"), "by_command"),
    "state": (Find(state="PENDING"), "by_state"),
    "origin": (Find(state="FAILED", origin="attempts"), "by_origin"),
    "deployment and origin": (Find(deployment_id="d1", origin="attempts"), "by_deployment_origin"),
    "label": (Find(labels=(("k", "1"),)), "labels"),
    "deployment and state": (Find(deployment_id="d1", state="PENDING"), "by_deployment_state"),
    "deployment and target": (Find(deployment_id="d1", target_id="t1"), "by_deployment_target"),
    "time": (Find(created_after=1_000, created_before=2_000), "by_age"),
    "deployment and time": (Find(deployment_id="d1", created_after=1_000), "by_deployment"),
    "the past": (Find(as_of=2_000), "by_age"),
    "ended in the past": (Find(as_of=2_000, deployment_id="d1", state="SUCCEEDED"), "by_deployment_state"),
    "pending in the past": (
        Find(as_of=2_000, deployment_id="d1", target_id="t1", state="PENDING"),
        "by_deployment_target",
    ),
    "label in the past": (Find(as_of=2_000, labels=(("k", "1"),), state="PENDING"), "labels"),
}


@pytest.fixture(scope="module")
def index() -> Iterator[sqlite3.Connection]:
    """Commands of many kinds, one a microsecond."""
    connection = schema.connect(None)
    schema.create(connection, "stream")
    rows, labels = [], []
    for n in range(1, COMMANDS + 1):
        values = dict.fromkeys(schema.COLUMNS)
        values |= {
            "n": n,
            "id": f"cmd_{n * 7919 % COMMANDS:05}",
            "deployment_id": f"d{n % 3}",
            "target_id": f"t{n % 5}",
        }
        values |= {"command": f"c{n % 7}", "state": ("PENDING", "SUCCEEDED")[n % 2], "attempt": 1, "created_at": n}
        values |= {"origin": (None, "attempts", "delivery")[n % 3 - n % 2]}
        values |= {"priority": 0, "version": n, "params_at": n, "answer_at": 0}
        rows.append(tuple(values.values()))
        labels.append(("k", str(n % 4), n, n))
    write(connection, Batch(rows, labels, [], [], COMMANDS, "digest"))
    yield connection
    connection.close()


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("name", FILTERS)
def test_a_page_walks_along_one_index(index: sqlite3.Connection, name: str, order: Order) -> None:
    find, walked = FILTERS[name]
    for after in (None, Place(1_500, "cmd_00001")):
        (part,) = parts_of(find)
        text, values = statement_of(replace(find, order=order, after=after), *part)
        plan = [row[3] for row in index.execute(f"EXPLAIN QUERY PLAN {text}", values)]
        way = "PRIMARY KEY" if walked == "labels" else f"INDEX {walked} "
        assert way in plan[0] + " ", plan
        assert not any("TEMP B-TREE FOR ORDER BY" in line for line in plan), plan
        if after is not None:
            assert "created_at" in plan[0], "the walk begins at the cursor"


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("name", [name for name, (find, _) in FILTERS.items() if find.as_of is None])
def test_a_page_looks_at_no_more_rows_than_it_shows(index: sqlite3.Connection, name: str, order: Order) -> None:
    """Steps of SQLite's machine do not grow with the place of the page, nor with the number of commands."""
    find = replace(FILTERS[name][0], order=order, limit=10)
    costs: list[int] = []
    while True:
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        index.set_progress_handler(count, 10)
        try:
            page = page_of(index, find)
        finally:
            index.set_progress_handler(None, 0)
        costs.append(steps)
        if page.behind is None:
            break
        find = find.behind(page.behind)
    assert len(costs) > 10
    assert max(costs) <= 3 * min(costs[:-1]), costs


def test_what_a_token_covers_is_walked_deployment_by_deployment() -> None:
    reach = Reach(frozenset({"d1", "d2"}), frozenset({"t1", "t2"}))
    assert parts_of(Find(reach=reach)) == [("d1", "t1"), ("d1", "t2"), ("d2", "t1"), ("d2", "t2")]
    assert parts_of(Find(reach=reach, deployment_id="d2", target_id="t1")) == [("d2", "t1")]
    assert parts_of(Find(reach=reach, deployment_id="d3")) == []


def test_merged_walks_are_in_order_and_complete(index: sqlite3.Connection) -> None:
    for order in ("asc", "desc"):
        find = Find(reach=Reach(frozenset({"d0", "d2", "none"})), order="asc" if order == "asc" else "desc", limit=77)
        seen: list[int] = []
        while True:
            page = page_of(index, find)
            seen += [summary.created_at for summary in page.commands]
            if page.behind is None:
                break
            find = find.behind(page.behind)
        wanted = [n for n in range(1, COMMANDS + 1) if n % 3 != 1]
        assert seen == (wanted if order == "asc" else wanted[::-1])
