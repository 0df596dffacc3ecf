"""Giving leases back (`arc.v1` 2.5, 4.4 Release)."""

from __future__ import annotations

import pytest

from tests.http.driver import Served


async def test_a_release_gives_the_command_back_at_once_with_the_next_attempt(served: Served) -> None:
    command_id = await served.create()
    (lease,) = await served.lease()
    answer = await served.release(lease["leaseId"])
    assert (answer.status, answer.body) == (200, b"")
    status = await served.status(command_id)
    assert (status["state"], status["attempt"]) == ("PENDING", 2)
    (again,) = await served.lease()
    assert (again["commandId"], again["attempt"]) == (command_id, 2)
    assert again["leaseId"] != lease["leaseId"]


@pytest.mark.parametrize(
    ("raw", "kind"), [(b"", ""), (b'{"leaseId":"x"}', "application/json"), (b"\xff", "text/odd"), (b"{", "")]
)
async def test_the_body_is_ignored(served: Served, raw: bytes, kind: str) -> None:
    await served.create()
    (lease,) = await served.lease()
    path = f"/v1/commands/leases/{lease['leaseId']}/release"
    assert (await served.client.post(path, raw=raw, headers={"Content-Type": kind})).status == 200


@pytest.mark.parametrize("lease_id", ["lease_unknown", "x", "cmd_1", "%00", "é", "x" * 5000])
async def test_an_unknown_lease_is_404(served: Served, lease_id: str) -> None:
    (await served.release(lease_id)).refused(404, "LEASE_NOT_FOUND")


async def test_a_lease_is_released_once(served: Served) -> None:
    await served.create()
    (lease,) = await served.lease()
    await served.release(lease["leaseId"])
    end = await served.journal.end()
    (await served.release(lease["leaseId"])).refused(404, "LEASE_NOT_FOUND")
    assert await served.journal.end() == end


async def test_a_release_never_touches_a_newer_lease(served: Served) -> None:
    command_id = await served.create()
    (old,) = await served.lease()
    await served.release(old["leaseId"])
    (new,) = await served.lease()
    (await served.release(old["leaseId"])).refused(404, "LEASE_NOT_FOUND")
    status = await served.status(command_id)
    assert (status["state"], status["attempt"]) == ("DISPATCHED", 2)
    assert (await served.release(new["leaseId"])).status == 200


async def test_from_its_end_on_a_lease_cannot_be_released(served: Served) -> None:
    command_id = await served.create()
    (lease,) = await served.lease(leaseSeconds=10)
    served.clock.advance(10)
    (await served.release(lease["leaseId"])).refused(404, "LEASE_NOT_FOUND")
    status = await served.status(command_id)
    assert (status["state"], status["attempt"]) == ("PENDING", 2)


async def test_just_before_its_end_it_can(served: Served) -> None:
    command_id = await served.create()
    (lease,) = await served.lease(leaseSeconds=10)
    served.clock.advance(9.999999)
    assert (await served.release(lease["leaseId"])).status == 200
    assert await served.types(command_id) == ["CommandCreated", "CommandLeased", "LeaseReleased"]


async def test_the_lease_of_a_finished_command_is_404(served: Served) -> None:
    command_id = await served.create()
    (lease,) = await served.lease()
    await served.respond(command_id)
    (await served.release(lease["leaseId"])).refused(404, "LEASE_NOT_FOUND")
    assert (await served.status(command_id))["state"] == "SUCCEEDED"


async def test_a_passed_deadline_comes_before_the_release(served: Served) -> None:
    command_id = await served.create(deadline="2026-03-01T10:00:05Z")
    (lease,) = await served.lease()
    served.clock.advance(6)
    (await served.release(lease["leaseId"])).refused(404, "LEASE_NOT_FOUND")
    assert (await served.status(command_id))["state"] == "EXPIRED"


async def test_the_last_attempt_ends_in_failure(served: Served) -> None:
    command_id = await served.create(maxAttempts=2)
    for attempt in (1, 2):
        (lease,) = await served.lease()
        assert lease["attempt"] == attempt
        assert (await served.release(lease["leaseId"])).status == 200
    status = await served.status(command_id)
    assert (status["state"], status["attempt"]) == ("FAILED", 2)
    assert status["response"]["code"] == "MAX_ATTEMPTS_EXCEEDED"
    assert set(status["response"]) == {"status", "code", "message"}
    assert await served.lease() == []


async def test_the_limit_is_twenty_unless_the_deployment_says_otherwise(served: Served) -> None:
    from tests.http.driver import a_target

    plain = await served.create(deploymentId="plain")
    for _ in range(20):
        (lease,) = await served.lease(deploymentId="plain")
        await served.release(lease["leaseId"])
    assert (await served.status(plain))["attempt"] == 20
    assert (await served.status(plain))["state"] == "FAILED"
    (await served.declare(a_target(), maxAttempts=1)).ok()
    strict = await served.create()
    (lease,) = await served.lease()
    await served.release(lease["leaseId"])
    assert (await served.status(strict))["state"] == "FAILED"
