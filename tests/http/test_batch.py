"""Creating many commands in one request (extensions, "Creating and waiting")."""

from __future__ import annotations

from typing import Any

import pytest

from arc_es.domain.limits import INLINE_BYTES_MAX
from tests.http.driver import Answer, Served, a_command, a_target, inline, serving
from tests.http.test_agent_loop import Counting

TRACE = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "acme=1",
}


async def batch(served: Served, *commands: Any, **more: Any) -> list[Any]:
    """The results of a batch."""
    answer = await served.client.post("/v1/commands/batch", {"commands": list(commands)}, **more)
    found: list[Any] = answer.ok()["results"]
    return found


def code(result: Any) -> str | None:
    """The code of an entry that failed."""
    found: str | None = result.get("error", {}).get("code")
    return found


async def test_each_result_is_the_answer_to_a_create_in_order(served: Served) -> None:
    results = await batch(served, *(a_command(params=inline(b"%d" % number)) for number in range(20)))
    for result in results:
        assert result == {
            "commandId": result["commandId"],
            "state": "PENDING",
            "inlineAllowedUpTo": INLINE_BYTES_MAX,
            "next": "poll",
        }
    leases = await served.lease(maxLeases=20)
    assert [lease["commandId"] for lease in leases] == [result["commandId"] for result in results]
    assert [lease["envelope"]["params"] for lease in leases] == [inline(b"%d" % number) for number in range(20)]


async def test_a_batch_is_one_append() -> None:
    journal = Counting()
    async with serving(journal) as served:
        results = await batch(served, *[a_command()] * 1000)
        assert len({result["commandId"] for result in results}) == 1000
        assert journal.calls == [1000]


async def test_one_bad_entry_fails_itself_only(served: Served) -> None:
    entries: list[Any] = [
        5,
        {},
        a_command(command="a:b"),
        a_command(deadline="2026-03-01T09:00:00Z"),
        a_command(targetResourceId=""),
        a_command(targetResourceId="operator"),
        a_command(params={"mode": "inline", "inlineBase64": "!"}),
        a_command(),
    ]
    results = await batch(served, *entries)
    assert [code(result) for result in results] == [
        "INVALID_REQUEST",
        "INVALID_REQUEST",
        "INVALID_COMMAND",
        "INVALID_COMMAND",
        "COMMAND_TARGET_NOT_FOUND",
        "FORBIDDEN",
        "INVALID_REQUEST",
        None,
    ]
    assert set(results[0]["error"]) == {"code", "message"}
    (lease,) = await served.lease(maxLeases=9)
    assert lease["commandId"] == results[-1]["commandId"]


async def test_equal_keys_in_one_batch_give_one_command(served: Served) -> None:
    before = await served.create(idempotencyKey="old")
    one, two = a_command(idempotencyKey="k"), a_command(idempotencyKey="k", params=inline(b"other"))
    results = await batch(served, one, one, two, a_command(idempotencyKey="old"), a_command(idempotencyKey="l"))
    assert results[0]["commandId"] == results[1]["commandId"]
    assert [code(result) for result in results] == [None, None, "CONFLICT", None, None]
    assert results[3]["commandId"] == before
    assert await served.types(results[0]["commandId"]) == ["CommandCreated"]
    assert await batch(served, one, two) == [results[0], results[2]]


async def test_a_key_whose_window_is_over_is_free_again(served: Served) -> None:
    entry = a_command(idempotencyKey="k")
    (first,) = await batch(served, entry)
    served.clock.advance(86_400)
    second, third = await batch(served, entry, entry)
    assert second["commandId"] == third["commandId"] != first["commandId"]


async def test_uploads_and_large_params(served: Served) -> None:
    sizes = (0, 4_096, 4_097, 150_000, 150_001)
    entries = [a_command(params=inline(b"x" * size)) for size in sizes]
    *results, upload = await batch(served, *entries, a_command(params={"mode": "storage", "size": 3}))
    assert (upload["state"], upload["next"]) == ("PENDING_UPLOAD", "upload")
    assert upload["storageUpload"]["putRequest"]["backend"]["method"] == "PUT"
    leases = await served.lease(maxLeases=9)
    assert [lease["commandId"] for lease in leases] == [result["commandId"] for result in results]
    for lease, size in zip(leases[:-1], sizes, strict=False):
        assert lease["envelope"]["params"] == inline(b"x" * size)
    assert leases[-1]["envelope"]["params"]["size"] == 150_001


async def test_limits_of_a_batch(served: Served) -> None:
    async def send(data: Any) -> Answer:
        return await served.client.post("/v1/commands/batch", data)

    (await send({"commands": [{}] * 1001})).refused(413, "PAYLOAD_TOO_LARGE")
    shapes: list[Any] = [[], {}, {"commands": None}, {"commands": {}}, {"commands": "x"}]
    for shape in shapes:
        (await send(shape)).refused(422, "INVALID_REQUEST")
    assert (await send({"commands": []})).ok() == {"results": []}
    large = [a_command(params=inline(b"x" * 1_000_000))] * 5
    assert len((await send({"commands": large})).ok()["results"]) == 5
    assert (await served.client.get("/v1/commands/batch")).status == 405


@pytest.mark.parametrize("spare", [0, 1])
async def test_a_body_above_its_limit_is_413(spare: int) -> None:
    raw = b'{"commands":[]}'
    async with serving(batch_body_bytes_max=len(raw) - spare) as served:
        answer = await served.client.post("/v1/commands/batch", raw=raw, headers={"Content-Type": "application/json"})
        assert answer.status == (413 if spare else 200)


async def test_the_trace_of_the_request_is_that_of_all_its_commands(served: Served) -> None:
    await batch(served, a_command(), a_command(), headers=TRACE)
    for lease in await served.lease(maxLeases=2):
        assert lease["envelope"]["traceContext"] == TRACE


async def test_rights_are_looked_at_entry_by_entry(served: Served) -> None:
    minted = {"scope": "sender", "deployments": ["dep"]}
    token = (await served.client.post("/v1/tokens", minted)).json["token"]
    served.client = served.client.presenting(token)
    results = await batch(served, a_command(), a_command(deploymentId="another"))
    assert [code(result) for result in results] == [None, "FORBIDDEN"]


async def test_a_strict_deployment_is_strict(served: Served) -> None:
    await served.declare(a_target())
    results = await batch(served, a_command(targetResourceId=None), a_command(targetResourceId="unknown"))
    assert [code(result) for result in results] == [None, "COMMAND_TARGET_NOT_FOUND"]
