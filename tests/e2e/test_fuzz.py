"""Any input at all, against the real service: no 5xx, no growth, and no lost command."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import chain
from pathlib import Path
from typing import Final

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.process import ServiceProcess, serving
from tests.faults.test_service_hostile import ANSWERED, ATTACKS, UNREADABLE
from tests.fuzz import seeds
from tests.fuzz.strategies import Endpoint, Request, garbled, requests, sweep
from tests.fuzz.world import ADMIN, World
from tests.http import driver

BY_HEAD: Final = {"HEAD", "OPTIONS"}
RAW: Final = [data for data in ATTACKS.values() if len(data) < 1_000]
RAW_ALSO: Final = [data for table in (UNREADABLE, ANSWERED) for data, _ in table.values() if len(data) < 1_000]
GROWTH_BYTES_MAX: Final = 64 * 1024 * 1024
SMALL: Final = 5
LARGE: Final = 50
"""Random requests for each endpoint; and ten times as many raw ones."""


async def endpoints() -> list[Endpoint]:
    """All of the application, by its own word."""
    async with driver.serving() as served:
        rules = list(served.client.app.url_map.iter_rules())
    return [
        Endpoint(rule.endpoint, rule.rule, method)
        for rule in rules
        for method in sorted((rule.methods or set()) - BY_HEAD)
    ]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[ServiceProcess]:
    async with serving(tmp_path / "data", ARC_ADMIN_TOKEN=ADMIN) as running:
        yield running


async def test_every_endpoint_that_takes_a_body_has_a_seed() -> None:
    taking = {endpoint.name for endpoint in await endpoints() if endpoint.method != "GET"}
    assert taking == set(seeds.BODIES)


@pytest.mark.parametrize("examples", [SMALL, pytest.param(LARGE, marks=pytest.mark.slow)])
async def test_no_input_breaks_the_service_or_loses_a_command(service: ServiceProcess, examples: int) -> None:
    world = World(service.port, service.process.pid)
    found = await endpoints()
    await trio.to_thread.run_sync(fuzz, world, found, examples)
    assert service.process.poll() is None
    said = service.stderr.read_text()
    assert " ERROR " not in said, said
    assert "Traceback" not in said, said


def fuzz(world: World, found: list[Endpoint], examples: int) -> None:
    """In a thread: Hypothesis, and the sockets of `World`, block."""
    witness = world.call("POST", "/commands", seeds.CREATE | {"deploymentId": "witness"})["commandId"]
    for request in chain.from_iterable(map(sweep, found)):
        world.fire(request)
    before = world.rss_bytes()
    run_requests(world, found, examples)
    run_raw(world, 10 * examples)
    assert world.rss_bytes() - before < GROWTH_BYTES_MAX
    assert {200, 400, 404, 405, 422} <= set(world.statuses), world.statuses  # it got through to where it matters

    lease = seeds.LEASE | {"deploymentId": "witness"}
    leased = world.call("POST", "/commands/leases", lease)["leases"]
    assert [one["commandId"] for one in leased] == [witness]
    world.call("PUT", f"/commands/{witness}/response", seeds.SUCCESS)
    assert world.call("GET", f"/commands/{witness}")["state"] == "SUCCEEDED"
    for command_id in world.acknowledged:
        assert world.call("GET", f"/commands/{command_id}")["commandId"] == command_id
    world.close()


def run_requests(world: World, found: list[Endpoint], examples: int) -> None:
    for endpoint in found:

        @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(requests(endpoint))
        def fire(request: Request) -> None:
            world.fire(request)

        fire()


def run_raw(world: World, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.sampled_from(RAW + RAW_ALSO).flatmap(garbled), min_size=1, max_size=3).map(b"".join))
    def fire(data: bytes) -> None:
        world.fire_raw(data)

    fire()
