"""Renewing leases (extensions, "Pulling work"), and giving them back for later."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.driver import Answer, Served


async def renew(served: Served, lease_id: str, **body: Any) -> Answer:
    return await served.client.post(f"/v1/commands/leases/{lease_id}/renew", body)


async def test_a_renewal_counts_from_now_and_keeps_the_attempt(served: Served) -> None:
    command_id = await served.create()
    (lease,) = await served.lease(leaseSeconds=10)
    served.clock.advance(9)
    answer = await renew(served, lease["leaseId"], leaseSeconds=30)
    assert answer.ok() == {"leaseId": lease["leaseId"], "leaseExpiresAt": "2026-03-01T10:00:39Z", "cancelled": False}
    served.clock.advance(29)
    assert (await served.status(command_id))["state"] == "DISPATCHED"
    served.clock.advance(1)
    status = await served.status(command_id)
    assert (status["state"], status["attempt"]) == ("PENDING", 2)
    assert (await served.types(command_id))[1:] == ["CommandLeased", "LeaseRenewed", "LeaseExpired"]


@pytest.mark.parametrize(
    ("body", "ends"),
    [
        ({}, "2026-03-01T10:01:00Z"),
        ({"leaseSeconds": None}, "2026-03-01T10:01:00Z"),
        ({"leaseSeconds": 0}, "2026-03-01T10:00:01Z"),
        ({"leaseSeconds": 10**30}, "2026-03-01T22:00:00Z"),
    ],
)
async def test_seconds_are_clamped_as_those_of_a_lease(served: Served, body: Any, ends: str) -> None:
    await served.create()
    (lease,) = await served.lease(leaseSeconds=9)
    assert (await renew(served, lease["leaseId"], **body)).ok()["leaseExpiresAt"] == ends


async def test_only_a_live_lease_is_renewed(served: Served) -> None:
    (await renew(served, "lease_unknown")).refused(404, "LEASE_NOT_FOUND")
    await served.create()
    (lease,) = await served.lease(leaseSeconds=10)
    served.clock.advance(10)
    (await renew(served, lease["leaseId"])).refused(404, "LEASE_NOT_FOUND")
    (again,) = await served.lease()
    (await renew(served, lease["leaseId"])).refused(404, "LEASE_NOT_FOUND")
    await served.respond(again["commandId"])
    (await renew(served, again["leaseId"])).refused(404, "LEASE_NOT_FOUND")


@pytest.mark.parametrize("value", [-1, 1.5, "1", True, []])
async def test_seconds_that_are_none_are_422(served: Served, value: Any) -> None:
    (await renew(served, "lease_unknown", leaseSeconds=value)).refused(422, "INVALID_REQUEST")


async def test_the_holder_of_a_cancelled_command_learns_it_until_the_lease_would_have_ended(served: Served) -> None:
    command_id = await served.create()
    (lease,) = await served.lease(leaseSeconds=10)
    await served.client.post(f"/v1/commands/{command_id}/cancel")
    end = await served.journal.end()
    served.clock.advance(9)
    told = {"leaseId": lease["leaseId"], "leaseExpiresAt": "2026-03-01T10:00:10Z", "cancelled": True}
    assert (await renew(served, lease["leaseId"], leaseSeconds=60)).ok() == told
    assert await served.journal.end() == end
    served.clock.advance(1)
    (await renew(served, lease["leaseId"])).refused(404, "LEASE_NOT_FOUND")


async def test_a_renewal_whose_deadline_has_passed_finds_no_lease(served: Served) -> None:
    command_id = await served.create(deadline="2026-03-01T10:00:05Z")
    (lease,) = await served.lease()
    served.clock.advance(6)
    (await renew(served, lease["leaseId"])).refused(404, "LEASE_NOT_FOUND")
    assert (await served.status(command_id))["state"] == "EXPIRED"


# --- giving back for later


async def test_a_command_given_back_may_rest(served: Served) -> None:
    command_id = await served.create()
    (lease,) = await served.lease()
    path = f"/v1/commands/leases/{lease['leaseId']}/release"
    assert (await served.client.post(path, {"delaySeconds": 5, "leaseId": "x"})).status == 200
    assert await served.lease() == []
    served.clock.advance(5)
    (again,) = await served.lease()
    assert (again["commandId"], again["attempt"]) == (command_id, 2)


@pytest.mark.parametrize("value", [-1, 1.5, "1", True])
async def test_a_rest_that_is_no_number_of_seconds_is_422(served: Served, value: Any) -> None:
    await served.create()
    (lease,) = await served.lease()
    answer = await served.client.post(f"/v1/commands/leases/{lease['leaseId']}/release", {"delaySeconds": value})
    answer.refused(422, "INVALID_REQUEST")


async def test_a_rest_is_clamped(served: Served) -> None:
    await served.create()
    (lease,) = await served.lease()
    path = f"/v1/commands/leases/{lease['leaseId']}/release"
    assert (await served.client.post(path, {"delaySeconds": 10**30})).status == 200
    served.clock.advance(43_200)
    assert len(await served.lease()) == 1
