"""Behind one address with several nodes, over HTTP: a client is not refused for what another node did a moment ago."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio

from arc_es.bootstrap import assemble, build_app
from arc_es.config import Config
from arc_es.keyring import KeyRing
from arc_es.storage.memory import MemoryBodyStore
from tests.actors.test_lagging_node import Behind, HearsTheFirst, letting_go
from tests.http.driver import ADMIN, Client, Clock, Served, a_command, inline, success

LARGE = bytes(range(256)) * 600  # 153 600 bytes


@asynccontextmanager
async def two_nodes(journal: Behind) -> AsyncGenerator[tuple[Served, Served], None]:
    clock, store, keys = Clock(), MemoryBodyStore(), KeyRing(b"example-signing-key")
    config = Config(admin_token=ADMIN)
    served: list[Served] = []
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            node = assemble(journal, config, clock=clock, keys=keys, store=store)
            await nursery.start(node.run)
            app = build_app(node.service, config, keys)
            served.append(Served(node, app, journal, clock, Client(app)))
        yield served[0], served[1]
        nursery.cancel_scope.cancel()


def path_of(request: Any) -> str:
    """Path and query of a PresignedRequest with an absolute URL."""
    url = urlsplit(request["backend"]["url"])
    return f"{url.path}?{url.query}"


@pytest.mark.parametrize("kind", [Behind, HearsTheFirst])
async def test_params_are_downloaded_from_any_node(kind: type[Behind]) -> None:
    journal = kind()
    async with two_nodes(journal) as (first, second):
        await first.create(params=inline(LARGE))
        (leased,) = await first.lease(target=None)
        url = path_of(leased["envelope"]["params"]["storageGetRequest"])
        async with letting_go(journal):
            answer = await second.client.presenting(None).get(url)
        assert (answer.status, answer.body) == (200, LARGE)


@pytest.mark.parametrize("kind", [Behind, HearsTheFirst])
async def test_a_response_is_downloaded_from_any_node(kind: type[Behind]) -> None:
    journal = kind()
    async with two_nodes(journal) as (first, second):
        command_id = await first.create()
        await first.lease()
        assert (await first.respond(command_id, success(LARGE))).status == 200
        url = path_of((await first.status(command_id))["response"]["response"]["storageGetRequest"])
        async with letting_go(journal):
            answer = await second.client.presenting(None).get(url)
        assert (answer.status, answer.body) == (200, LARGE)


async def test_what_another_node_fixed_is_served_and_not_a_later_upload() -> None:
    journal = HearsTheFirst()
    async with two_nodes(journal) as (first, second):
        created = (await first.client.post("/v1/commands", a_command(params={"mode": "storage"}))).ok()
        command_id, request = created["commandId"], created["storageUpload"]["putRequest"]
        assert (await first.client.put(path_of(request), raw=LARGE)).status == 200
        (await first.client.post(f"/v1/commands/{command_id}/upload-complete", {"size": len(LARGE)})).ok()
        assert (await second.client.put(path_of(request), raw=b"later")).status == 200  # it does not know better
        params = (await first.client.get(f"/v1/commands/{command_id}/payload")).ok()["params"]
        async with letting_go(journal):
            answer = await second.client.presenting(None).get(path_of(params["storageGetRequest"]))
        assert (answer.status, answer.body) == (200, LARGE)


async def test_the_payload_of_a_command_of_another_node_is_found() -> None:
    journal = Behind()
    async with two_nodes(journal) as (first, second):
        command_id = await first.create()
        async with letting_go(journal):
            payload = (await second.client.get(f"/v1/commands/{command_id}/payload")).ok()
        assert payload["params"] == inline(b"{}")


@pytest.mark.parametrize("kind", [Behind, HearsTheFirst])
async def test_the_signed_url_of_a_long_lease_of_another_node_is_good(kind: type[Behind]) -> None:
    """A receiver that gets a 401 here gives up, and its work is lost."""
    journal = kind()
    async with two_nodes(journal) as (first, second):
        await first.create()
        (leased,) = await first.lease(leaseSeconds=43_200)
        path = "/v1/commands/" + leased["envelope"]["responseHandling"]["submitResponseUrl"]
        async with letting_go(journal):
            answer = await second.client.presenting(None).put(path, success())
        assert answer.status == 200
        forged = path.replace("response_token=", "response_token=0")[:-1]
        (await second.client.presenting(None).put(forged, success())).refused(401, "UNAUTHORIZED")
