"""POST /commands (`arc.v1` 2.1)."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.http.driver import Client, Served, a_command, inline

LONG = "é" * 513
"""1026 bytes in 513 characters"""
FITS = "é" * 512


async def test_the_answer(client: Client) -> None:
    answer = (await client.post("/v1/commands", a_command())).ok()
    command_id = answer.pop("commandId")
    assert re.fullmatch(r"cmd_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", command_id)
    assert answer == {"state": "PENDING", "inlineAllowedUpTo": 150_000, "next": "poll"}


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"command": ""}, 400, "INVALID_COMMAND"),
        ({"command": "a:b"}, 400, "INVALID_COMMAND"),
        ({"deploymentId": ""}, 400, "INVALID_COMMAND"),
        ({"command": LONG}, 400, "INVALID_COMMAND"),
        ({"deploymentId": LONG}, 400, "INVALID_COMMAND"),
        ({"idempotencyKey": LONG}, 400, "INVALID_COMMAND"),
        ({"deadline": "2026-03-01T10:00:00Z"}, 400, "INVALID_COMMAND"),
        ({"deadline": "2026-03-01T09:59:59.999999Z"}, 400, "INVALID_COMMAND"),
        ({"params": {"mode": "inline", "inlineBase64": "x"}}, 400, "INVALID_REQUEST"),
        ({"targetResourceId": "a:b"}, 400, "COMMAND_TARGET_ID_INVALID"),
        ({"targetResourceId": LONG}, 400, "COMMAND_TARGET_ID_INVALID"),
        ({"targetResourceId": ""}, 404, "COMMAND_TARGET_NOT_FOUND"),
        ({"priority": 101}, 422, "INVALID_REQUEST"),
        ({"priority": -101}, 422, "INVALID_REQUEST"),
        ({"labels": {str(n): "" for n in range(33)}}, 400, "INVALID_COMMAND"),
        ({"labels": {"k" * 65: ""}}, 400, "INVALID_COMMAND"),
        ({"labels": {"k": "v" * 257}}, 400, "INVALID_COMMAND"),
        ({"labels": {"k": 1}}, 422, "INVALID_REQUEST"),
        ({"labels": []}, 422, "INVALID_REQUEST"),
        ({"notBefore": "soon"}, 422, "INVALID_REQUEST"),
        ({"maxAttempts": -1}, 422, "INVALID_REQUEST"),
    ],
)
async def test_each_check_refuses_and_writes_nothing(
    served: Served, changes: dict[str, Any], status: int, code: str
) -> None:
    (await served.client.post("/v1/commands", a_command(**changes))).refused(status, code)
    assert await served.journal.end() == 0


IN_ORDER: list[tuple[dict[str, Any], str]] = [
    ({"command": ""}, "command is empty"),
    ({"command": "a:b"}, "command must not contain"),
    ({"deploymentId": ""}, "deploymentId is empty"),
    ({"idempotencyKey": LONG}, "longer"),
    ({"deadline": "2020-01-01T00:00:00Z"}, "deadline"),
    ({"params": {"mode": "inline", "inlineBase64": "x"}}, "base64"),
    ({"targetResourceId": "a:b"}, "target"),
]


@pytest.mark.parametrize("at", range(len(IN_ORDER)))
async def test_checks_come_in_the_order_of_the_protocol(client: Client, at: int) -> None:
    """All that is checked later is wrong too."""
    wrong: dict[str, Any] = {}
    for changes, _ in reversed(IN_ORDER[at:]):
        wrong |= changes
    answer = await client.post("/v1/commands", a_command(**wrong))
    assert answer.status == 400
    assert IN_ORDER[at][1] in answer.json["message"]


@pytest.mark.parametrize("command", ["a/b", " ", "ünïcode ✓", "a\nb", FITS, "leases", "%3A", "\0"])
async def test_every_other_character_is_fine(served: Served, command: str) -> None:
    await served.create(command=command, deploymentId="dep", idempotencyKey=command)
    (lease,) = await served.lease()
    assert lease["envelope"]["command"] == command


@pytest.mark.parametrize("deployment", ["a/b", " ", "ünïcode ✓", "*", ">", "a.b", FITS, "%2F", "a\0b"])
async def test_deployments_of_any_name(served: Served, deployment: str) -> None:
    command_id = await served.create(deploymentId=deployment)
    (lease,) = await served.lease(deploymentId=deployment)
    assert (lease["commandId"], lease["envelope"]["deploymentId"]) == (command_id, deployment)


async def test_trace_headers_reach_the_envelope(served: Served) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"traceparent": parent, "tracestate": "acme=1"}
    (await served.client.post("/v1/commands", a_command(), headers=headers)).ok()
    (lease,) = await served.lease()
    assert lease["envelope"]["traceContext"] == headers


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
    ],
)
async def test_invalid_trace_headers_are_ignored(served: Served, parent: str) -> None:
    headers = {"traceparent": parent, "tracestate": "acme=1"}
    (await served.client.post("/v1/commands", a_command(), headers=headers)).ok()
    (lease,) = await served.lease()
    assert "traceContext" not in lease["envelope"]


async def test_a_deadline_right_after_now_is_fine(served: Served) -> None:
    command_id = await served.create(deadline="2026-03-01T10:00:00.000001Z")
    assert (await served.status(command_id))["state"] == "PENDING"


async def test_priorities_and_not_before_order_the_queue(served: Served) -> None:
    low = await served.create(priority=-100)
    plain = await served.create()
    later = await served.create(notBefore="2026-03-01T10:00:10Z", priority=100)
    high = await served.create(priority=100)
    assert [lease["commandId"] for lease in await served.lease(maxLeases=9)] == [high, plain, low]
    served.clock.advance(9.999999)
    assert await served.lease() == []
    served.clock.advance(0.000001)
    assert [lease["commandId"] for lease in await served.lease()] == [later]


async def test_large_params_are_inline_up_to_the_limit(served: Served) -> None:
    command_id = await served.create(params=inline(b"x" * 150_000))
    found = (await served.client.get(f"/v1/commands/{command_id}/payload")).ok()
    assert found["params"] == inline(b"x" * 150_000)
