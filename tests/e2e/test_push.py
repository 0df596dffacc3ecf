"""Push delivery by a real service to real sockets: through SIGKILL, to the end of the process, beside a slow target."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio

from tests.dispatch.worker import Received, Worker, answer, hang, working
from tests.e2e.http import SUCCESS, Client, NoAnswer, create_body
from tests.e2e.process import ROOT, ServiceProcess, free_port, serving

SECONDS_MAX = 90
RETRY_SECONDS = 0.05
"""Between two looks at what another process does."""
SHORT_DELIVERY_LEASE = "from arc_es.domain import limits; limits.DELIVERY_LEASE_EXTRA_SECONDS = 1"
"""Nobody wants to wait for 61 s, the shortest delivery lease there is: the process gets a shorter one as it starts."""
WORKER = re.compile(r"<!-- worker -->\n```python\n(.*?)```\n<!-- end of worker -->", re.DOTALL)


@asynccontextmanager
async def pushing(tmp_path: Path, *workers: tuple[str, Worker]) -> AsyncGenerator[ServiceProcess, None]:
    """A service with a deployment e2e, whose targets are these workers, and whose delivery leases last 2 s."""
    (tmp_path / "sitecustomize.py").write_text(SHORT_DELIVERY_LEASE)
    bind = f"127.0.0.1:{free_port()}"
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    options = ("--public-url", f"http://{bind}/v1", "--log-level", "WARNING")
    async with serving(tmp_path / "data", *options, bind=bind, PYTHONPATH=path) as service:
        targets = [
            {"resourceId": name, "resourceType": "worker", "push": {"url": worker.url, "timeoutSeconds": 1}}
            for name, worker in workers
        ]
        async with service.client() as client:
            declared = await client.call("PUT", "/v1/deployments/e2e", {"model": "push", "targets": targets})
            assert declared.status == 200, declared
        yield service


async def insist(service: ServiceProcess, method: str, path: str, data: Any = None) -> Any:
    """Ask until there is an answer, whatever happens to the service meanwhile."""
    while True:
        try:
            async with service.client() as client:
                answered = await client.call(method, path, data)
        except NoAnswer:
            answered = None
        if answered is not None and answered.status < 500:
            assert answered.status == 200, answered
            return answered.json
        await trio.sleep(RETRY_SECONDS)


class Runtime:
    """A worker runtime that accepts and answers everything, and kills the service once at a chosen moment."""

    def __init__(self, service: ServiceProcess, worker: Worker, nursery: trio.Nursery) -> None:
        self._service = service
        self._nursery = nursery
        self._harm_at: str | None = None
        self._harmed = trio.Event()
        worker.behave = self._behave
        worker.greet = lambda: self._moment("connected")

    async def harm(self, moment: str) -> None:
        """SIGKILL the service at the next such moment, start it again, and come back when that is done."""
        self._harm_at, self._harmed = moment, trio.Event()
        await self._harmed.wait()

    async def _moment(self, moment: str) -> None:
        if self._harm_at == moment:
            self._harm_at = None
            await self._service.kill()
            await self._service.start()
            self._harmed.set()

    async def _behave(self, stream: trio.SocketStream, request: Received) -> None:
        await self._moment("read")
        await answer(202, b"", b"Connection: close")(stream, request)
        await self._moment("accepted")
        self._nursery.start_soon(self._respond, request.envelope)
        await stream.aclose()  # so that every push comes by a connection of its own

    async def _respond(self, envelope: Any) -> None:
        url = urlsplit(envelope["responseHandling"]["submitResponseUrl"])
        await insist(self._service, "PUT", f"{url.path}?{url.query}", SUCCESS)


@pytest.mark.slow
async def test_no_kill_loses_or_doubles_a_push_command(tmp_path: Path) -> None:
    """SIGKILL when DISPATCHED is recorded and nothing was read; when it was read; when it was accepted."""
    created: set[str] = set()
    more = True

    async def caller(number: int, service: ServiceProcess) -> None:
        count = 0
        while more:
            body = create_body("w", idempotencyKey=f"{number}-{count}")
            created.add((await insist(service, "POST", "/v1/commands", body))["commandId"])
            count += 1

    with trio.fail_after(SECONDS_MAX):
        async with (
            working() as worker,
            pushing(tmp_path, ("w", worker)) as service,
            trio.open_nursery() as answers,
        ):
            runtime = Runtime(service, worker, answers)
            async with trio.open_nursery() as callers:
                for number in range(3):
                    callers.start_soon(caller, number, service)
                for moment in ("connected", "read", "accepted", "connected", "read"):
                    await worker.until(len(worker.received) + 20)
                    await runtime.harm(moment)
                more = False
            redelivered = [await check_history(service, command_id) for command_id in created]
            assert await service.terminate() == 0
            answers.cancel_scope.cancel()
    assert any(redelivered), "no kill hit a push"
    assert "Traceback" not in service.stderr.read_text()
    print(f"{len(created)} commands, {sum(redelivered)} deliveries repeated")


async def check_history(service: ServiceProcess, command_id: str) -> int:
    """The command succeeded, and never had two delivery leases at once; returns how often it was redelivered."""
    while True:
        status = await insist(service, "GET", f"/v1/commands/{command_id}?waitSeconds=30")
        if status["state"] == "SUCCEEDED":
            break
        assert status["state"] in ("PENDING", "DISPATCHED"), status
    events = (await insist(service, "GET", f"/v1/commands/{command_id}/events"))["events"]
    kinds = [event["type"] for event in events if event["type"] != "LateResponseRecorded"]
    repeats = kinds.count("LeaseExpired")
    whole = ["CommandCreated", *["CommandDispatched", "LeaseExpired"] * repeats, "CommandDispatched"]
    in_rest = whole[:-1]  # the answer of an earlier delivery came while it was pending
    assert kinds in ([*whole, "CommandSucceeded"], [*in_rest, "CommandSucceeded"])
    return repeats


async def test_a_push_under_way_is_waited_for_at_the_end(tmp_path: Path) -> None:
    """A rejection that comes while the service drains is recorded."""
    release = trio.Event()

    async def reject_late(stream: trio.SocketStream, request: Received) -> None:
        await release.wait()
        await answer(503)(stream, request)

    with trio.fail_after(SECONDS_MAX):
        async with working() as worker, pushing(tmp_path, ("w", worker)) as service:
            worker.behave = reject_late
            async with service.client() as client:
                await client.send("POST", "/v1/commands", create_body("w"))
                await worker.until(1)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(service.terminate)
                    assert (await client.answer()).json["state"] == "DISPATCHED"  # it is not kept waiting
                    release.set()
            await service.start()
            command_id = worker.received[0].envelope["commandId"]
            async with service.client() as client:
                status = (await client.call("GET", f"/v1/commands/{command_id}")).json
            assert (status["state"], status["response"]["code"]) == ("FAILED", "DELIVERY_FAILED")


async def test_a_slow_target_delays_neither_another_target_nor_the_api(tmp_path: Path) -> None:
    """100 commands wait for a target that never answers; 30 for another one go through meanwhile."""
    slow_count, quick_count = 100, 30
    with trio.fail_after(SECONDS_MAX):
        async with working() as slow, working() as quick, trio.open_nursery() as nursery:
            slow.behave = hang
            async with pushing(tmp_path, ("slow", slow), ("quick", quick)) as service:
                Runtime(service, quick, nursery)
                waiting = [service.client() for _ in range(slow_count)]
                for one in waiting:
                    await one.send("POST", "/v1/commands", create_body("slow"))
                await slow.until(8)
                async with service.client() as client:
                    for _ in range(quick_count):
                        await one_quick(client)
                # One batch of 8, and at most one more push for each 10 s: nowhere near all that wait.
                assert len(slow.received) < slow_count / 3
                assert slow.at_once_max <= 8
                assert len(quick.received) == quick_count
                for one in waiting:
                    one.close()
                await service.kill()
            nursery.cancel_scope.cancel()


async def one_quick(client: Client) -> None:
    created = (await client.call("POST", "/v1/commands", create_body("quick"))).json
    assert created["state"] in ("DISPATCHED", "SUCCEEDED")
    status = await client.call("GET", f"/v1/commands/{created['commandId']}?waitSeconds=30")
    assert status.json["state"] == "SUCCEEDED"


@pytest.mark.slow
async def test_the_worker_of_the_how_to_works(tmp_path: Path) -> None:
    found = WORKER.search((ROOT / "docs/howto/push-targets.md").read_text("utf-8"))
    assert found, "the how-to has no worker between its markers"
    (tmp_path / "worker.py").write_text(found[1])
    with trio.fail_after(SECONDS_MAX):
        async with pushing(tmp_path) as service:
            process = await trio.lowlevel.open_process(
                [sys.executable, "worker.py"],
                cwd=tmp_path,
                env={**os.environ, "WORKER_PORT": "0", "WORKER_TOKEN": "a-token"},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            try:
                assert process.stdout is not None
                ready = await process.stdout.receive_some()
                await use_worker(service, f"http://127.0.0.1:{int(ready.split()[-1])}/commands")
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
                    if process.stdout is not None:
                        await process.stdout.aclose()


async def use_worker(service: ServiceProcess, url: str) -> None:
    """It adds; it answers what it cannot do; it takes nobody else's commands."""
    targets = [
        {"resourceId": name, "resourceType": "worker", "push": {"url": url, "token": token}}
        for name, token in (("w", "a-token"), ("wrong", "another"))
    ]
    params = {"mode": "inline", "inlineBase64": base64.b64encode(b"[1, 2, 3]").decode()}
    async with service.client() as client:
        await client.call("PUT", "/v1/deployments/e2e", {"model": "push", "targets": targets})
        ends = []
        for target, command in (("w", "add"), ("w", "multiply"), ("wrong", "add")):
            body = create_body(target, command=command, params=params)
            command_id = (await client.call("POST", "/v1/commands", body)).json["commandId"]
            ends.append((await client.call("GET", f"/v1/commands/{command_id}?waitSeconds=30")).json["response"])
    assert base64.b64decode(ends[0]["response"]["inlineBase64"]) == b"6"
    assert [end["code"] for end in ends[1:]] == ["HANDLER_ERROR", "DELIVERY_FAILED"]
