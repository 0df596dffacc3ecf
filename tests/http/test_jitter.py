"""Commands that rest after an attempt do not all come back at once, whoever noticed that the attempt had ended."""

from __future__ import annotations

import pytest
import trio

from arc_es.domain.limits import SECOND
from arc_es.domain.state import Pending
from tests.http.driver import T0, Served, a_target, serving

RESTS = {"initialSeconds": 100, "maxSeconds": 100, "factor": 1}


@pytest.mark.parametrize("noticed_by", ["ticker", "poll"])
async def test_each_command_rests_for_a_time_of_its_own(noticed_by: str) -> None:
    async with serving() as served:
        await served.declare(a_target(), retry=RESTS)
        ids = [await served.create() for _ in range(20)]
        await served.lease(maxLeases=20, leaseSeconds=10)
        served.clock.advance(10)
        if noticed_by == "ticker":
            await trio.sleep(2)  # in no time: the tests' own clock
        rests = [rest_of(served, await looked_at(served, command_id)) for command_id in ids]
        assert len(set(rests)) == len(ids)
        assert all(50 <= rest <= 100 for rest in rests)
        assert max(rests) - min(rests) > 10


async def looked_at(served: Served, command_id: str) -> str:
    await served.status(command_id)
    return command_id


def rest_of(served: Served, command_id: str) -> float:
    row = served.node.models.status.get(command_id)
    assert row is not None
    assert isinstance(row.state, Pending)
    assert row.state.available_at is not None
    return (row.state.available_at - T0) / SECOND - 10


async def test_a_plain_release_does_not_rest(served: Served) -> None:
    await served.declare(a_target(), retry=RESTS)
    await served.create()
    (lease,) = await served.lease()
    await served.release(lease["leaseId"])
    (again,) = await served.lease()
    await served.client.post(f"/v1/commands/leases/{again['leaseId']}/release", {"delaySeconds": 30})
    assert await served.lease() == []
    served.clock.advance(30)
    assert len(await served.lease()) == 1
