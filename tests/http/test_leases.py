"""Acquiring leases (`arc.v1` 2.4, 3.9 to 3.11, 4.4 Lease, 4.8)."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio

from arc_es.journal.memory import MemoryJournal
from tests.http.driver import Clock, Served, a_target, inline, serving

LEASE_ID = re.compile(r"lease_[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


async def test_a_lease_and_its_envelope_have_exactly_these_fields(served: Served) -> None:
    command_id = await served.create(deadline="2026-03-01T10:05:00Z")
    (lease,) = await served.lease()
    envelope = lease.pop("envelope")
    assert LEASE_ID.fullmatch(lease.pop("leaseId"))
    assert lease == {"leaseExpiresAt": "2026-03-01T10:01:00Z", "commandId": command_id, "attempt": 1}
    handling = envelope.pop("responseHandling")
    assert envelope == {
        "protocol": "arc.v1",
        "deploymentId": "dep",
        "target": a_target(),
        "commandId": command_id,
        "attempt": 1,
        "deadline": "2026-03-01T10:05:00Z",
        "command": "report/build",
        "params": inline(b"{}"),
    }
    upload = handling.pop("storageUploadRequest")
    assert set(handling) == {"maxInlineBytes", "submitResponseUrl"}
    assert handling["maxInlineBytes"] == 150_000
    assert set(upload.pop("backend")) == {"type", "url", "method", "headers"}
    assert upload == {
        "expiration": "2026-03-01T12:00:00Z",
        "operation": "put",
        "path": f"arc/commands/{command_id}/response",
    }


async def test_optional_fields_are_absent(served: Served) -> None:
    await served.create()
    (lease,) = await served.lease()
    assert not {"deadline", "traceContext"} & set(lease["envelope"])


async def test_oldest_first_and_at_most_max(served: Served) -> None:
    ids = [await served.create() for _ in range(5)]
    assert [lease["commandId"] for lease in await served.lease()] == ids[:1]
    assert [lease["commandId"] for lease in await served.lease(maxLeases=2)] == ids[1:3]
    assert [lease["commandId"] for lease in await served.lease(maxLeases=1000)] == ids[3:]
    assert await served.lease() == []


async def test_zero_leases_are_none_and_change_nothing(served: Served) -> None:
    await served.create(targetResourceId="new")
    end = await served.journal.end()
    assert await served.lease(maxLeases=0, target=a_target("new", "container")) == []
    assert await served.journal.end() == end
    assert len(await served.lease(target=a_target("new", "daemon"))) == 1


async def test_more_than_a_thousand_count_as_a_thousand(served: Served) -> None:
    for _ in range(1001):
        await served.create()
    assert len(await served.lease(maxLeases=5000)) == 1000
    assert len(await served.lease(maxLeases=5000)) == 1


@pytest.mark.parametrize(
    ("seconds", "ends"),
    [
        (None, "2026-03-01T10:01:00Z"),
        (0, "2026-03-01T10:00:01Z"),
        (1, "2026-03-01T10:00:01Z"),
        (3660, "2026-03-01T11:01:00Z"),
        (43_200, "2026-03-01T22:00:00Z"),
        (43_201, "2026-03-01T22:00:00Z"),
    ],
)
async def test_lease_seconds_are_clamped_and_honoured_exactly(served: Served, seconds: int | None, ends: str) -> None:
    await served.create(deadline="2026-03-01T10:00:00.5Z")
    (lease,) = await served.lease(leaseSeconds=seconds)
    assert lease["leaseExpiresAt"] == ends


@pytest.mark.parametrize(("seconds", "expires"), [(1, 7200), (6900, 7200), (6901, 7201), (43_200, 43_500)])
async def test_urls_live_longer_than_their_lease(served: Served, seconds: int, expires: int) -> None:
    await served.create()
    (lease,) = await served.lease(leaseSeconds=seconds)
    handling = lease["envelope"]["responseHandling"]
    until = 1_772_359_200 + expires
    assert handling["submitResponseUrl"].endswith(f"&expires={until}")
    assert f"?expires={until}&signature=" in handling["storageUploadRequest"]["backend"]["url"]


async def test_one_command_is_leased_once(served: Served) -> None:
    """Also when everybody asks at the same time."""
    ids = {await served.create() for _ in range(10)}
    found: list[Any] = []

    async def take() -> None:
        found.extend(await served.lease(maxLeases=3))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(take)
    assert sorted(lease["commandId"] for lease in found) == sorted(ids)


async def test_a_target_gets_its_own_commands_only(served: Served) -> None:
    await served.create(targetResourceId="other")
    await served.create(deploymentId="another")
    mine = await served.create()
    assert [lease["commandId"] for lease in await served.lease(maxLeases=9)] == [mine]


async def test_expired_commands_are_skipped_and_hide_nothing(served: Served) -> None:
    stale = await served.create(deadline="2026-03-01T10:00:05Z")
    fresh = await served.create()
    served.clock.advance(5.000001)
    assert [lease["commandId"] for lease in await served.lease()] == [fresh]
    assert (await served.status(stale))["state"] == "EXPIRED"
    assert await served.types(stale) == ["CommandCreated", "CommandExpired"]


async def test_a_command_that_comes_back_keeps_its_old_place(served: Served) -> None:
    ids = [await served.create() for _ in range(3)]
    leases = await served.lease(maxLeases=2)
    await served.release(leases[1]["leaseId"])
    await served.release(leases[0]["leaseId"])
    assert [lease["commandId"] for lease in await served.lease(maxLeases=9)] == ids


async def test_lease_ends_that_are_due_are_applied_first(served: Served) -> None:
    first = await served.create()
    await served.lease(leaseSeconds=10)
    second = await served.create()
    served.clock.advance(10)
    leases = await served.lease(maxLeases=2)
    assert [(lease["commandId"], lease["attempt"]) for lease in leases] == [(first, 2), (second, 1)]


async def test_the_first_generation_gets_all_pull_targets_but_the_operator(open_served: Served) -> None:
    await open_served.create(targetResourceId="operator")
    one = await open_served.create(targetResourceId="one")
    two = await open_served.create(targetResourceId="two")
    await open_served.create(deploymentId="another")
    leases = await open_served.lease(target=None, maxLeases=10)
    assert [lease["commandId"] for lease in leases] == [one, two]
    assert leases[0]["envelope"]["target"] == a_target("one", "worker")
    end = await open_served.journal.end()
    assert len(await open_served.lease(target=a_target("operator", "daemon"))) == 1
    assert await open_served.journal.end() > end


async def test_two_nodes_never_lease_one_command_twice() -> None:
    journal, clock = MemoryJournal(), Clock()
    found: list[Any] = []
    async with serving(journal, clock) as one, serving(journal, clock) as other:
        ids = [await one.create() for _ in range(12)]

        async def take(node: Served) -> None:
            while leases := await node.lease(maxLeases=4):
                found.extend(leases)

        async with trio.open_nursery() as nursery:
            for node in (one, other, one, other):
                nursery.start_soon(take, node)
        assert sorted(lease["commandId"] for lease in found) == sorted(ids)
        for command_id in ids:
            assert await other.types(command_id) == ["CommandCreated", "CommandLeased"]


@pytest.mark.parametrize(
    ("cap", "wanted", "got"), [(2, 5, 2), (2, 1, 1), (0, 5, 1), (9_999, 5, 3), (None, 5, 3), (2, 0, 0)]
)
async def test_a_declared_deployment_may_cap_requests_without_target(
    served: Served, cap: int | None, wanted: int, got: int
) -> None:
    declared = await served.declare(a_target(), maxLeasesWithoutTarget=cap)
    assert declared.ok().get("maxLeasesWithoutTarget") == (None if cap is None else min(max(cap, 1), 1_000))
    for _ in range(3):
        await served.create()
    assert len(await served.lease(target=None, maxLeases=wanted)) == got


async def test_the_cap_is_for_requests_without_target_only(served: Served) -> None:
    await served.declare(a_target(), maxLeasesWithoutTarget=1)
    for _ in range(3):
        await served.create()
    assert len(await served.lease(maxLeases=5)) == 3
