"""Clients of `arc.v1` that nobody controls, of both generations, against a real service (`arc.v1` section 5)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio

from tests.e2e.old_clients.first import FirstSender, FirstWorker
from tests.e2e.old_clients.http import Failed
from tests.e2e.old_clients.proxy import proxying
from tests.e2e.old_clients.pushed import Relay, runtime
from tests.e2e.old_clients.receiver import ONE, OTHER, CommandError, Flavour, Receiver, receiving
from tests.e2e.old_clients.sender import (
    DiscoveredSender,
    Expired,
    LenientSender,
    RemoteError,
    StrictSender,
    until_terminal,
)
from tests.e2e.old_clients.world import ADMIN, World
from tests.e2e.process import ServiceProcess

LARGE = "x" * 400_000
"""More than travels inline."""
PUSH_TOKEN = "the-token-of-a-worker"


async def echo(data: bytes) -> Any:
    return json.loads(data)


async def nothing(data: bytes) -> None:
    return None


async def broken(data: bytes) -> Any:
    raise CommandError("DB_DOWN", "no connection")


HANDLERS = {"echo/it": echo, "nothing": nothing, "broken": broken}


def a_receiver(world: World, base: str | None = None, flavour: Flavour = ONE, **more: Any) -> Receiver:
    target = {"resourceId": "indexer", "resourceType": "daemon"}
    options = {"handlers": HANDLERS, "target": target, **more}
    base = f"{world.url}/v1" if base is None else base
    return Receiver(world.http, base, world.receiver, world.deployment, flavour=flavour, **options)


async def every_call(world: World, sender: StrictSender | LenientSender) -> None:
    """What an application does with a sender."""
    for_indexer = {"targetResourceId": "indexer"}
    assert await sender.call(world.deployment, "echo/it", {"day": "ü"}, **for_indexer) == {"day": "ü"}
    assert await sender.call(world.deployment, "nothing", {}, **for_indexer) is None
    assert await sender.call(world.deployment, "echo/it", LARGE, **for_indexer) == LARGE
    for command, code in (("broken", "DB_DOWN"), ("never heard of", "UNKNOWN_COMMAND")):
        with pytest.raises(RemoteError) as caught:
            await sender.call(world.deployment, command, {}, **for_indexer)
        assert caught.value.code == code


# --- current clients


@pytest.mark.parametrize(
    ("base", "flavour"),
    [("/v1", ONE), ("/v1/", OTHER), ("", ONE), ("/v1?token=x", OTHER), ("/v1/?token=x&y", ONE)],
    ids=repr,
)
async def test_current_clients_with_every_base_url(world: World, base: str, flavour: Flavour) -> None:
    receiver = a_receiver(world, world.url + base, flavour)
    sender: StrictSender | LenientSender = StrictSender(world.http, world.url + base.replace("/v1", ""), world.sender)
    if flavour is OTHER:
        sender = LenientSender(world.http, world.url + base, world.sender)
    async with receiving(receiver):
        await every_call(world, sender)
    assert len(receiver.leases) == 5
    assert receiver.accepted == [lease["commandId"] for lease in receiver.leases]
    submits = [headers for method, _, headers in world.http.seen if method == "PUT"]
    assert len(submits) == 6
    assert all("Authorization" not in headers for headers in submits)


@pytest.mark.parametrize(("base", "flavour"), [("/v1", ONE), ("/v1/", OTHER), ("?token=x", ONE)], ids=repr)
async def test_a_receiver_behind_a_proxy_that_strips_a_prefix(
    world: World, service: ServiceProcess, base: str, flavour: Flavour
) -> None:
    async with proxying(service.port, "/arc") as (url, seen):
        receiver = a_receiver(world, url + base, flavour)
        async with receiving(receiver):
            await every_call(world, StrictSender(world.http, world.url, world.sender))
    used = [line.partition("?")[0].split(" ")[:2] for line in seen]
    assert [method for method, _ in used if method == "PUT"] == ["PUT"] * 6  # five answers and one upload
    assert [method for method, _ in used if method == "GET"] == ["GET"]  # the large params


async def test_a_sender_that_gives_up_leaves_its_command_and_a_replay_finds_it(world: World) -> None:
    sender = StrictSender(world.http, world.url, world.sender)
    options = {"targetResourceId": "indexer", "idempotencyKey": "order:42 /ü"}
    with trio.move_on_after(0):
        await sender.call(world.deployment, "echo/it", 1, **options)
    first = await sender.create(
        world.deployment, "echo/it", 1, deadline="2999-01-01T00:00:00.123456789+00:00", **options
    )
    again = await sender.create(world.deployment, "echo/it", 1, **options)
    assert (again["commandId"], again["state"], again["next"]) == (first["commandId"], "PENDING", "poll")
    with pytest.raises(Failed) as caught:
        await sender.create(world.deployment, "echo/it", 2, **options)
    assert caught.value.status == 409
    async with receiving(a_receiver(world)):
        assert await sender.result(first["commandId"]) == 1
    finished = await sender.create(world.deployment, "echo/it", 1, **options)
    assert (finished["commandId"], finished["state"], finished["next"]) == (first["commandId"], "SUCCEEDED", "poll")


async def test_senders_see_a_deadline_pass(world: World) -> None:
    strict = StrictSender(world.http, world.url, world.sender)
    lenient = LenientSender(world.http, f"{world.url}/v1/", world.sender)
    for sender, form in ((strict, "%Y-%m-%dT%H:%M:%S.%fZ"), (lenient, "%Y-%m-%dT%H:%M:%S.%f+00:00")):
        deadline = (datetime.now(UTC) + timedelta(seconds=0.3)).strftime(form)
        with pytest.raises(Expired):
            await sender.call(world.deployment, "x", {}, targetResourceId="indexer", deadline=deadline)
    with pytest.raises(Failed) as caught:
        await strict.call(world.deployment, "x", {}, targetResourceId="indexer", deadline="2020-01-01T00:00:00+00:00")
    assert caught.value.status == 400


async def test_a_sender_by_discovery_refreshes_once_after_a_401(world: World) -> None:
    sender = DiscoveredSender(world.http, world.url, world.sender, world.deployment)
    created = await sender.create(world.deployment, "echo/it", {})
    sender.lose_token()
    assert (await sender.status(created["commandId"]))["state"] == "PENDING"
    assert sender.refreshes == 2
    wrong = DiscoveredSender(world.http, world.url, world.receiver, world.deployment)
    with pytest.raises(Failed) as caught:
        await wrong.refresh()
    assert caught.value.status == 403


async def test_a_receiver_by_discovery(world: World) -> None:
    wanted = {"deploymentId": world.deployment, "role": "receiver", "target": "indexer"}
    found = (await world.http.call("POST", f"{world.url}/v1/commands/bootstrap", wanted, bearer=world.receiver)).ok()
    assert (found["managerUrl"], found["token"]) == (world.url, world.receiver)
    assert found["target"] == {"resourceId": "indexer", "resourceType": "daemon"}
    receiver = a_receiver(world, f"{found['managerUrl']}/v1", target=found["target"])
    async with receiving(receiver):
        sender = StrictSender(world.http, world.url, world.sender)
        assert await sender.call(world.deployment, "echo/it", 5, targetResourceId="indexer") == 5


async def test_healthy_polls_never_end_a_receiver(world: World) -> None:
    """Nothing to do, whatever the reason, is 200 with an empty list."""
    await world.declare(
        {"resourceId": "indexer", "resourceType": "daemon"},
        {"resourceId": "w", "resourceType": "worker", "push": {"url": "http://127.0.0.1:9/push"}},
    )
    targets = [
        ("indexer", "daemon"),
        ("indexer", "container"),
        ("w", "container"),
        ("unknown", "daemon"),
        ("a:b", "daemon"),
    ]
    for flavour in (ONE, OTHER):
        for name, kind in [*targets, ("", "daemon"), ("x" * 2000, "daemon"), ("operator", "container")]:
            receiver = a_receiver(world, flavour=flavour, target={"resourceId": name, "resourceType": kind})
            assert await receiver.poll() == []
    receiver.deployment = "never heard of"
    with pytest.raises(Failed):  # 403: its token is for another deployment
        await receiver.poll()


async def test_a_lease_too_short_for_a_handler_is_answered_at_once(world: World) -> None:
    sender = StrictSender(world.http, world.url, world.sender)
    async with receiving(a_receiver(world, lease_seconds=5)):
        with pytest.raises(RemoteError) as caught:
            await sender.call(world.deployment, "echo/it", 1, targetResourceId="indexer")
    assert caught.value.code == "HANDLER_TIMEOUT"


@pytest.mark.parametrize("flavour", [ONE, OTHER], ids=["one", "other"])
async def test_a_receiver_that_shuts_down_gives_its_commands_back(world: World, flavour: Flavour) -> None:
    started = trio.Event()

    async def hang(data: bytes) -> None:
        started.set()
        await trio.sleep_forever()

    created = await StrictSender(world.http, world.url, world.sender).create(
        world.deployment, "job", {}, targetResourceId="indexer"
    )
    receiver = a_receiver(world, flavour=flavour, handlers={"job": hang})
    async with receiving(receiver):
        await started.wait()
        receiver.abort()
        status = await world.until(created["commandId"], state="PENDING")
    assert (status["attempt"], receiver.released) == (2, [200])
    assert (await a_receiver(world, flavour=OTHER).poll())[0]["attempt"] == 2


async def test_a_command_leased_again_while_it_runs_is_released_and_its_answer_counts(world: World) -> None:
    started, go_on = trio.Event(), trio.Event()

    async def job(data: bytes) -> str:
        started.set()
        await go_on.wait()
        return "done"

    created = await StrictSender(world.http, world.url, world.sender).create(
        world.deployment, "job", {}, targetResourceId="indexer", maxAttempts=1_000
    )
    receiver = a_receiver(world, handlers={"job": job}, leases_max=2)
    async with receiving(receiver):
        await started.wait()
        await world.admin("POST", f"/commands/leases/{receiver.leases[0]['leaseId']}/release")
        await receiver.has_released.wait()  # it was leased again, and released again
        go_on.set()
        status = await world.until(created["commandId"], state="SUCCEEDED")
    assert receiver.released[0] == 200
    assert status["response"]["response"]["inlineBase64"] == "ImRvbmUi"


async def test_uploaded_params_reach_a_receiver(world: World, service: ServiceProcess) -> None:
    wanted: dict[str, Any] = {"deploymentId": world.deployment, "command": "echo/it", "targetResourceId": "indexer"}
    wanted |= {"idempotencyKey": "", "params": {"mode": "storage", "size": 3}}
    call, raw = world.http.call, json.dumps(LARGE).encode()
    created = (await call("POST", f"{world.url}/commands", wanted, bearer=world.sender)).ok()
    again = (await call("POST", f"{world.url}/commands", wanted, bearer=world.sender)).ok()
    assert (created["next"], again["next"], again["commandId"]) == ("upload", "upload", created["commandId"])
    done = f"{world.url}/v1/commands/{created['commandId']}/upload-complete"
    (await call("POST", done, {"size": len(raw)}, bearer=world.sender)).refused(400, "INVALID_COMMAND")
    put = again["storageUpload"]["putRequest"]["backend"]
    assert (await call(put["method"], put["url"], raw=raw, **put["headers"])).body == b""
    (await call("POST", done, {"size": 3}, bearer=world.sender)).refused(400, "INVALID_COMMAND")
    assert (await call("POST", done, {"size": len(raw)}, bearer=world.sender)).ok()["state"] == "PENDING"
    (await call("POST", done, {"size": len(raw)}, bearer=world.sender)).refused(400, "INVALID_STATE_TRANSITION")
    (await call(put["method"], put["url"], raw=raw)).refused(409, "CONFLICT")
    async with proxying(service.port, "/arc") as (url, _), receiving(a_receiver(world, f"{url}/v1")):
        sender = StrictSender(world.http, world.url, world.sender)
        assert await sender.result(created["commandId"]) == LARGE


# --- relay, worker runtimes


@pytest.mark.parametrize("current", [True, False])
async def test_a_relay_and_its_worker(world: World, *, current: bool) -> None:
    sender = StrictSender(world.http, world.url, world.sender)
    ids = [
        (await sender.create(world.deployment, "job", params, targetResourceId="w"))["commandId"]
        for params in (1, LARGE[:100_000], {"n": 3})
    ]
    async with runtime(world.http, PUSH_TOKEN, "w") as worker:
        relay = Relay(world.http, f"{world.url}/v1", world.receiver, current=current)
        pushed = await relay.round(world.deployment, "w", worker.url, PUSH_TOKEN)
        assert pushed == [(command_id, 202) for command_id in ids]
        assert [await sender.result(command_id) for command_id in ids] == [1, LARGE[:100_000], {"n": 3}]
    assert worker.submitted == [200] * 3


async def test_a_push_that_a_relay_could_not_deliver_is_not_released(world: World) -> None:
    sender = StrictSender(world.http, world.url, world.sender)
    created = await sender.create(world.deployment, "job", 1, targetResourceId="w")
    async with runtime(world.http, PUSH_TOKEN, "w") as worker:
        relay = Relay(world.http, f"{world.url}/v1", world.receiver)
        assert await relay.round(world.deployment, "w", worker.url, "wrong") == [(created["commandId"], 401)]
        assert (await sender.status(created["commandId"]))["state"] == "DISPATCHED"
        assert await relay.round(world.deployment, "w", worker.url, PUSH_TOKEN) == []


async def test_the_service_pushes_to_a_worker_runtime(world: World) -> None:
    async with runtime(world.http, PUSH_TOKEN, "w") as worker:
        push = {"url": worker.url, "token": PUSH_TOKEN}
        await world.declare({"resourceId": "w", "resourceType": "worker", "delivery": "push", "push": push})
        strict = StrictSender(world.http, world.url, world.sender)
        assert await strict.call(world.deployment, "job", {"n": 1}) == {"n": 1}
        lenient = LenientSender(world.http, f"{world.url}/v1", world.sender)
        assert await lenient.call(world.deployment, "job", LARGE) == LARGE
        assert worker.answered == [202, 202]
        assert worker.submitted == [200, 200]
        assert all(envelope["attempt"] == 1 for envelope in worker.envelopes)


async def test_a_worker_runtime_that_refuses(world: World) -> None:
    async with runtime(world.http, PUSH_TOKEN, "w") as worker:
        push = {"url": worker.url, "token": "another"}
        await world.declare({"resourceId": "w", "resourceType": "worker", "delivery": "push", "push": push})
        sender = StrictSender(world.http, world.url, world.sender)
        created = await sender.create(world.deployment, "job", {})
        assert (created["state"], created["next"], worker.answered) == ("FAILED", "poll", [401])
        with pytest.raises(RemoteError, match=r"^Worker runtime did not accept command delivery$") as caught:
            await sender.result(created["commandId"])
    assert caught.value.code == "DELIVERY_FAILED"


# --- the first generation


@pytest.mark.parametrize("base", ["", "/"])
async def test_first_generation_clients(world: World, base: str) -> None:
    sender = FirstSender(world.http, world.url, world.sender)
    worker = FirstWorker(world.http, world.url + base, world.receiver)
    ids = [await sender.create(world.deployment, "job", str(n).encode()) for n in range(3)]
    with pytest.raises(Failed) as caught:
        await sender.create(world.deployment, "app:job")
    assert caught.value.status == 400
    leases = await worker.lease(world.deployment)
    assert [lease["commandId"] for lease in leases] == ids
    await worker.work(leases, echo)
    assert worker.submitted == [(command_id, 200) for command_id in ids]
    assert await worker.lease(world.deployment) == []
    shown = await until_terminal(lambda: sender.status(ids[2]))
    assert shown["response"]["response"]["inlineBase64"] == "Mg=="


async def test_late_answers_of_a_batch_under_short_leases_count(world: World) -> None:
    """The first task takes longer than the leases: the rest comes back to the queue, another leases it, both answer."""
    sender = FirstSender(world.http, world.url, world.sender)
    slow = FirstWorker(world.http, world.url, world.receiver, lease_seconds=1)
    other = FirstWorker(world.http, f"{world.url}/", world.receiver)
    ids = [await sender.create(world.deployment, "job", str(n).encode()) for n in range(3)]
    leases = await slow.lease(world.deployment)

    async def job(data: bytes) -> Any:
        if data == b"0":
            for command_id in ids:
                await world.until(command_id, state="PENDING", attempt=2)
            again = await other.lease(world.deployment)
            assert [(lease["commandId"], lease["attempt"]) for lease in again] == [(one, 2) for one in ids]
            await other.work(again[2:], echo)
        return "late"

    await slow.work(leases, job)
    assert slow.submitted == [(command_id, 200) for command_id in ids]
    shown = [(await sender.status(one))["response"]["response"]["inlineBase64"] for one in ids]
    assert shown == ["ImxhdGUi", "ImxhdGUi", "Mg=="]  # the first answer wins
    assert await other.lease(world.deployment) == []


async def test_the_operator_is_for_its_own_clients_only(world: World) -> None:
    operations = await world.mint("operations", deployments=[world.deployment], command="restart")
    body: dict[str, Any] = {"deploymentId": world.deployment, "command": "restart", "targetResourceId": "operator"}
    body |= {"params": {"mode": "inline", "inlineBase64": ""}}
    url = f"{world.url}/v1/commands"
    for token in (ADMIN, world.sender, world.receiver):
        (await world.http.call("POST", url, body, bearer=token)).refused(403, "FORBIDDEN")
    created = (await world.http.call("POST", url, body, bearer=operations)).ok()
    worker = FirstWorker(world.http, world.url, world.receiver)
    assert await worker.lease(world.deployment) == []
    operator = {"resourceId": "operator", "resourceType": "daemon"}
    (lease,) = await a_receiver(world, target=operator).poll()
    assert (lease["commandId"], lease["envelope"]["params"]) == (created["commandId"], body["params"])
