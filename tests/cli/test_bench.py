"""`arc-es bench`: what it refuses, what it draws, and that every load runs on a real service."""

from __future__ import annotations

import json

import pytest

from arc_es.bench.drive import Place
from arc_es.bench.own import own_service
from arc_es.cli.bench import LOADS, histogram_of, line_of
from tests.cli.conftest import Arc


def test_charts_grow_to_their_highest_value() -> None:
    assert line_of([0, 1, 2, 4]) == " ▂▄█"
    assert line_of([]) == ""
    assert line_of([0, 0]) == "  "
    assert histogram_of([1.0] * 10, columns=4) == "   █"
    assert histogram_of([0.0, 1.0, 1.0], columns=3) == "▄ █"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://h", Place("h", 80)),
        ("http://h:1/p/v1/", Place("h", 1, "/p")),
        ("http://127.0.0.1:8420", Place("127.0.0.1", 8420)),
    ],
)
def test_a_place_is_read_from_a_url(url: str, place: Place) -> None:
    assert Place.of(url) == place


def test_requests_carry_prefix_and_token() -> None:
    sent = Place("h", 1, "/p", "t0k").request("POST", "/v1/commands", b"{}")
    assert sent.startswith(b"POST /p/v1/commands HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer t0k\r\n")


def test_wrong_usage_is_refused(arc: Arc) -> None:
    for arguments in (["sleep"], ["replay", "--url", "http://h"], ["create", "--url", "https://h"]):
        done = arc("bench", *arguments)
        assert (done.returncode, done.stderr.count(b"\n")) == (2, 1), done.stderr


def test_a_service_that_is_not_there_is_told(arc: Arc) -> None:
    done = arc("bench", "create", "--url", "http://127.0.0.1:1", "--commands", "1")
    assert (done.returncode, done.stderr[:8]) == (1, b"arc-es: ")


@pytest.mark.slow
def test_every_load_runs_on_a_service_of_its_own(arc: Arc) -> None:
    done = arc("bench", "--commands", "64", "--connections", "4", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [one["name"] for one in told["results"]] == list(LOADS)
    assert all(one["perSecond"] > 0 and one["p99Ms"] >= one["p50Ms"] > 0 for one in told["results"]), told
    assert told["results"][0]["count"] == 64


@pytest.mark.slow
def test_a_named_service_is_measured_and_refusals_are_told(arc: Arc) -> None:
    with own_service() as own:
        done = arc("bench", "lifecycle", "--commands", "16", "--connections", "2", "--url", own.url)
        assert done.returncode == 0, done.stderr
        assert b"lifecycle  16" in done.stdout
        wrong = arc("bench", "create", "--url", f"{own.url}/nowhere", "--commands", "1")
        assert (wrong.returncode, b"404" in wrong.stderr) == (1, True)
