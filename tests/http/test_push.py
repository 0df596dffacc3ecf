"""One push command from create to its end (`arc.v1` 4.4 Push)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from arc_es.domain.decide import DELIVERY_FAILED_MESSAGE
from arc_es.domain.limits import PUSH_SECONDS_MAX
from arc_es.storage.memory import BodyFault, MemoryBodyStore
from tests.http.driver import Served, a_command, a_lease, a_target, inline, success
from tests.http.pushes import (
    PUBLIC_URL,
    REJECTED,
    UNCLEAR,
    WORKER_URL,
    Script,
    Sent,
    answer_by_url,
    push_target,
    pushing,
)

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LARGE = b"x" * 150_001
RETRY = {"initialSeconds": 4, "maxSeconds": 60, "factor": 2}


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def served(script: Script) -> AsyncGenerator[Served, None]:
    async with pushing(script) as found:
        yield found


async def create(served: Served, **more: Any) -> Any:
    return (await served.client.post("/v1/commands", a_command(targetResourceId="builder", **more))).ok()


async def ended(served: Served, command_id: str) -> Any:
    """The status as soon as it is terminal."""
    return (await served.client.get(f"/v1/commands/{command_id}?waitSeconds=60")).ok()


async def test_an_accepted_push_stays_dispatched_until_it_is_answered(served: Served, script: Script) -> None:
    created = await create(served)
    assert (created["state"], created["next"]) == ("DISPATCHED", "poll")
    (await answer_by_url(served, script.sent[0])).ok()
    status = await served.status(created["commandId"])
    assert (status["state"], status["attempt"], status["response"]) == ("SUCCEEDED", 1, success())
    assert await served.types(created["commandId"]) == ["CommandCreated", "CommandDispatched", "CommandSucceeded"]


async def test_the_envelope_has_absolute_urls(served: Served, script: Script) -> None:
    answer = await served.client.post(
        "/v1/commands",
        a_command(targetResourceId="builder", deadline="2026-03-01T10:05:00Z"),
        headers={"traceparent": TRACE},
    )
    (sent,) = script.sent
    assert (sent.url, sent.token) == (WORKER_URL, "push-s3cret")
    handling = sent.envelope.pop("responseHandling")
    assert sent.envelope == {
        "protocol": "arc.v1",
        "deploymentId": "dep",
        "target": a_target("builder", "worker"),
        "commandId": answer.ok()["commandId"],
        "attempt": 1,
        "traceContext": {"traceparent": TRACE},
        "deadline": "2026-03-01T10:05:00Z",
        "command": "report/build",
        "params": inline(b"{}"),
    }
    assert handling["submitResponseUrl"].startswith(f"{PUBLIC_URL}/commands/")
    assert handling["storageUploadRequest"]["backend"]["url"].startswith(f"{PUBLIC_URL}/storage/arc/commands/")


async def test_dispatched_is_recorded_before_anything_is_sent(served: Served, script: Script) -> None:
    seen: list[list[str]] = []

    async def look(sent: Sent) -> None:
        seen.append(await served.types(sent.command_id))

    script.before = look
    command_id = (await create(served))["commandId"]
    assert seen == [["CommandCreated", "CommandDispatched"]]
    dispatched = (await served.events(command_id))[1]
    assert dispatched["data"]["expiresAt"] == "2026-03-01T10:04:00Z"  # 180 s for the worker and 60 more
    assert dispatched["by"]["kind"] == "service"


async def test_a_rejected_push_fails_the_command(served: Served, script: Script) -> None:
    script.results = [REJECTED]
    created = await create(served)
    assert (created["state"], created["next"]) == ("FAILED", "poll")
    status = await served.status(created["commandId"])
    assert status["response"] == {"status": "error", "code": "DELIVERY_FAILED", "message": DELIVERY_FAILED_MESSAGE}
    assert DELIVERY_FAILED_MESSAGE == "Worker runtime did not accept command delivery"
    (failed,) = [event for event in await served.events(created["commandId"]) if event["type"] == "DeliveryFailed"]
    assert failed["data"]["reason"] == "answered 503"


async def test_with_retry_a_rejected_push_is_tried_again_after_a_rest(served: Served, script: Script) -> None:
    await served.declare(push_target(), retry=RETRY)
    script.results = [REJECTED, REJECTED, REJECTED, UNCLEAR]
    created = await create(served)
    assert created["state"] == "PENDING"
    assert (await served.status(created["commandId"]))["attempt"] == 2
    for pushed, rest_seconds in ((1, 4), (2, 8), (3, 16)):  # with jitter between half of it and the whole
        served.clock.advance(rest_seconds / 2 - 0.1)
        await wait_all_tasks_blocked()
        assert len(script.sent) == pushed
        served.clock.advance(rest_seconds / 2 + 0.1)
        await script.until(pushed + 1)
        await wait_all_tasks_blocked()
    assert script.attempts() == [1, 2, 3, 4]
    assert (await served.status(created["commandId"]))["state"] == "DISPATCHED"


async def test_retry_ends_at_the_attempt_limit(served: Served, script: Script) -> None:
    await served.declare(push_target(), retry=RETRY | {"initialSeconds": 0}, maxAttempts=3)
    script.results = [REJECTED]
    status = await ended(served, (await create(served))["commandId"])
    assert (status["state"], status["attempt"]) == ("FAILED", 3)
    assert status["response"]["code"] == "MAX_ATTEMPTS_EXCEEDED"
    assert script.attempts() == [1, 2, 3]


@pytest.mark.parametrize("result", ["accepted", "unclear"])
async def test_without_an_answer_it_is_pushed_again_when_the_delivery_lease_ends(
    served: Served, script: Script, result: str
) -> None:
    await served.declare(push_target(timeoutSeconds=30), maxAttempts=2)
    if result == "unclear":
        script.results = [UNCLEAR]
    created = await create(served)
    assert created["state"] == "DISPATCHED"
    served.clock.advance(89.9)
    assert (await served.status(created["commandId"]))["attempt"] == 1
    served.clock.advance(0.1)
    await script.until(2)
    await wait_all_tasks_blocked()
    status = await served.status(created["commandId"])
    assert (status["state"], status["attempt"]) == ("DISPATCHED", 2)
    served.clock.advance(90)
    status = await ended(served, created["commandId"])
    assert (status["attempt"], status["response"]["code"]) == (2, "MAX_ATTEMPTS_EXCEEDED")
    assert script.attempts() == [1, 2]


async def test_a_worker_that_does_not_answer_is_waited_for_as_long_as_a_push_may_take(
    served: Served, script: Script
) -> None:
    async def hang(sent: Sent) -> None:
        await trio.sleep_forever()

    script.before = hang
    began = trio.current_time()
    assert (await create(served))["state"] == "DISPATCHED"
    assert trio.current_time() - began == pytest.approx(PUSH_SECONDS_MAX)


@pytest.mark.parametrize("result", [REJECTED, UNCLEAR])
async def test_an_answer_before_the_result_of_the_push_wins(served: Served, script: Script, result: Any) -> None:
    async def respond(sent: Sent) -> None:
        (await answer_by_url(served, sent)).ok()

    script.before = respond
    script.results = [result]
    created = await create(served)
    assert created["state"] == "SUCCEEDED"
    assert await served.types(created["commandId"]) == ["CommandCreated", "CommandDispatched", "CommandSucceeded"]


async def test_a_late_answer_of_an_earlier_delivery_counts(served: Served, script: Script) -> None:
    command_id = (await create(served))["commandId"]
    served.clock.advance(240)
    await script.until(2)
    (await answer_by_url(served, script.sent[0])).ok()
    assert (await served.status(command_id))["state"] == "SUCCEEDED"


async def test_a_replay_neither_pushes_again_nor_waits(served: Served, script: Script) -> None:
    gate = trio.Event()

    async def hold(sent: Sent) -> None:
        await gate.wait()

    script.before = hold
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: create(served, idempotencyKey="order:42"))
        await script.until(1)
        replayed = await create(served, idempotencyKey="order:42")
        assert (replayed["state"], replayed["commandId"]) == ("DISPATCHED", script.sent[0].command_id)
        gate.set()
    await create(served, idempotencyKey="order:42")
    assert len(script.sent) == 1


async def test_a_caller_who_leaves_does_not_stop_the_push(served: Served, script: Script) -> None:
    gate = trio.Event()

    async def hold(sent: Sent) -> None:
        await gate.wait()

    script.before, script.results = hold, [REJECTED]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: create(served))
        await script.until(1)
        nursery.cancel_scope.cancel()
    gate.set()
    assert (await ended(served, script.sent[0].command_id))["state"] == "FAILED"


async def test_not_before_delays_the_push(served: Served, script: Script) -> None:
    created = await create(served, notBefore="2026-03-01T10:01:00Z")
    assert created["state"] == "PENDING"
    served.clock.advance(59.9)
    await wait_all_tasks_blocked()
    assert script.sent == []
    served.clock.advance(0.1)
    await script.until(1)
    assert script.sent[0].command_id == created["commandId"]


async def test_a_command_whose_deadline_passes_is_not_pushed_again(served: Served, script: Script) -> None:
    await served.declare(push_target(), retry=RETRY)
    script.results = [REJECTED]
    created = await create(served, deadline="2026-03-01T10:00:01Z")
    served.clock.advance(60)
    assert (await ended(served, created["commandId"]))["state"] == "EXPIRED"
    assert len(script.sent) == 1


async def test_only_declared_workers_are_pushed_to(script: Script) -> None:
    async with pushing(script, declare=False, admin_token=None) as served:
        served.client.token = None
        await only_declared_workers(served, script)


async def only_declared_workers(served: Served, script: Script) -> None:
    await served.declare(push_target(), push_target("operator"), {**a_target(), "delivery": "pull"})
    for target in ("operator", "indexer"):
        answer = await served.client.post("/v1/commands", a_command(targetResourceId=target))
        assert answer.ok()["state"] == "PENDING"
    assert script.sent == []


async def test_push_commands_are_never_leased(served: Served, script: Script) -> None:
    await create(served, notBefore="2026-03-01T10:01:00Z")
    await create(served)
    for target in (a_target("builder", "worker"), None):
        answer = await served.client.post("/v1/commands/leases", a_lease(target=target, maxLeases=9))
        assert answer.ok() == {"leases": []}


async def test_upload_complete_pushes(served: Served, script: Script) -> None:
    created = await create(served, params={"mode": "storage", "size": 2})
    assert (created["state"], script.sent) == ("PENDING_UPLOAD", [])
    url = created["storageUpload"]["putRequest"]["backend"]["url"].removeprefix("https://arc.example/prefix")
    (await served.client.presenting(None).call("PUT", url, raw=b"{}")).ok()
    answer = await served.client.post(f"/v1/commands/{created['commandId']}/upload-complete", {"size": 2})
    assert answer.ok()["state"] == "DISPATCHED"
    assert script.sent[0].envelope["params"] == inline(b"{}")


async def test_large_params_are_downloaded_by_an_absolute_url(served: Served, script: Script) -> None:
    await create(served, params=inline(LARGE))
    params = script.sent[0].envelope["params"]
    assert (params["mode"], params["size"]) == ("storage", len(LARGE))
    assert params["storageGetRequest"]["backend"]["url"].startswith(f"{PUBLIC_URL}/storage/arc/commands/")


async def test_params_out_of_reach_cost_no_attempt(script: Script) -> None:
    store = MemoryBodyStore()
    async with pushing(script, store=store) as served:
        created = await create(served, params=inline(LARGE), notBefore="2026-03-01T10:01:00Z")
        small = await create(served, notBefore="2026-03-01T10:01:00Z")
        store.fault = BodyFault.UNREACHABLE
        served.clock.advance(60)
        await script.until(1)
        assert script.sent[0].command_id == small["commandId"]
        status = await served.status(created["commandId"])
        assert (status["state"], status["attempt"]) == ("PENDING", 1)
        store.fault = None
        await script.until(2)
        assert script.sent[1].command_id == created["commandId"]
        assert await served.types(created["commandId"]) == ["CommandCreated", "CommandDispatched"]


async def test_params_that_are_gone_fail_the_command_before_it_is_dispatched(script: Script) -> None:
    store = MemoryBodyStore()
    async with pushing(script, store=store) as served:
        created = await create(served, params=inline(LARGE), notBefore="2026-03-01T10:01:00Z")
        (ref,) = [stored.name async for stored in store.names()]
        store.lose(ref)
        served.clock.advance(60)
        status = await ended(served, created["commandId"])
        assert status["response"]["code"] == "STORAGE_OPERATION_FAILED"
        assert (await served.types(created["commandId"]), script.sent) == (["CommandCreated", "CommandFailed"], [])


async def test_a_push_goes_by_the_current_declaration(served: Served, script: Script) -> None:
    created = await create(served, notBefore="2026-03-01T10:01:00Z")
    await served.declare(push_target(url="http://new.example/push", token=None, timeoutSeconds=1))
    served.clock.advance(60)
    await script.until(1)
    assert (script.sent[0].url, script.sent[0].token) == ("http://new.example/push", None)
    assert (await served.events(created["commandId"]))[1]["data"]["expiresAt"] == "2026-03-01T10:02:01Z"


@pytest.mark.parametrize("target", [a_target("other", "worker"), {**a_target("builder", "worker"), "delivery": "pull"}])
async def test_a_target_that_is_not_declared_for_push_any_more_is_a_rejection(
    served: Served, script: Script, target: Any
) -> None:
    created = await create(served, notBefore="2026-03-01T10:01:00Z")
    await served.declare(target)
    served.clock.advance(60)
    status = await ended(served, created["commandId"])
    assert (status["response"]["code"], script.sent) == ("DELIVERY_FAILED", [])


async def test_queues_show_what_is_pushed(served: Served, script: Script) -> None:
    await create(served)
    await create(served, notBefore="2026-03-01T10:01:00Z")
    (queue,) = (await served.client.get("/v1/queues")).ok()["queues"]
    assert queue["target"] == a_target("builder", "worker")
    assert (queue["pending"], queue["delayed"], queue["leased"]) == (0, 1, 1)


async def test_push_tokens_are_in_no_event_and_no_declaration(served: Served, script: Script) -> None:
    command_id = (await create(served))["commandId"]
    said = [
        await served.client.get("/v1/deployments/dep"),
        await served.client.get(f"/v1/commands/{command_id}/events"),
        await served.client.get("/v1/queues"),
    ]
    stored = [payload for _, payload in served.journal._messages]
    assert all(b"push-s3cret" not in text for text in (*(answer.body for answer in said), *stored))
