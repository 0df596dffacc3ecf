"""Params and response of commands, and of ids that have none (`arc.v1` 2.7, 2.8)."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from arc_es.domain.recorded import PayloadKey
from arc_es.journal.memory import Fault
from tests.http.driver import Client, Served, a_command, failure, inline, serving, success

SMALL, LARGE, LARGEST = b"{}", b"x" * 4_097, b"y" * 150_000
LONG_ERROR = failure(message="m" * 5_000, details="d" * 200_000)
DATA = {"params": inline(SMALL), "response": success()}


async def put(client: Client, data: Any, command_id: str = "demo", prefix: str = "/v1") -> None:
    answer = await client.put(f"{prefix}/commands/{command_id}/payload", data)
    assert (answer.status, answer.body) == (200, b"")


async def read(client: Client, command_id: str = "demo", prefix: str = "/v1") -> Any:
    found = (await client.get(f"{prefix}/commands/{command_id}/payload")).ok()
    assert found.pop("commandId") == command_id
    return found


# --- of commands


async def test_the_payload_of_a_command(served: Served) -> None:
    command_id = await served.create(params=inline(LARGE))
    assert await read(served.client, command_id) == {"params": inline(LARGE)}
    await served.lease()
    assert await read(served.client, command_id, prefix="") == {"params": inline(LARGE)}
    await served.respond(command_id, success(LARGE))
    assert await read(served.client, command_id) == {"params": inline(LARGE), "response": success(LARGE)}


async def test_the_payload_of_a_command_that_failed(served: Served) -> None:
    command_id = await served.create()
    await served.lease()
    await served.respond(command_id, failure(details="pool exhausted"))
    assert (await read(served.client, command_id))["response"] == failure(details="pool exhausted")


async def test_nothing_is_written_for_a_command(served: Served) -> None:
    command_id = await served.create()
    end = await served.journal.end()
    storage = {"params": {"mode": "storage", "size": 5}}
    for data in (DATA, {}, storage):
        answer = await served.client.put(f"/v1/commands/{command_id}/payload", data)
        answer.refused(400, "INVALID_STATE_TRANSITION")
    assert await served.journal.end() == end
    assert await read(served.client, command_id) == {"params": inline(b"{}")}


# --- of ids that have no command


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_what_was_stored_is_read_back(served: Served, prefix: str) -> None:
    for data in ({"params": inline(b"")}, {"params": inline(SMALL), "response": failure()}, DATA):
        await put(served.client, data, prefix=prefix)
        assert await read(served.client, prefix=prefix) == data


@pytest.mark.parametrize(
    ("params", "response"),
    [
        *product(
            [None, inline(SMALL), inline(LARGE), inline(LARGEST)],
            [None, success(b""), success(LARGE), success(LARGEST), failure(details="pool"), LONG_ERROR],
        )
    ],
)
async def test_bodies_of_all_sizes_survive_a_restart(params: Any, response: Any) -> None:
    data = {name: value for name, value in (("params", params), ("response", response)) if value is not None}
    expected = dict(data)
    if response is LONG_ERROR:
        expected["response"] = LONG_ERROR | {"details": "d" * 150_000}
    async with serving() as served:
        await put(served.client, data)
        if data:
            assert await read(served.client) == expected
    async with serving(served.journal) as restarted:
        if data:
            assert await read(restarted.client) == expected
        end = await served.journal.end()
        await put(restarted.client, data)
        assert await served.journal.end() == end, "a repeated request stores nothing"


async def test_a_second_put_replaces_the_fields_it_gives(served: Served) -> None:
    await put(served.client, {"params": inline(LARGE), "response": success(LARGEST)})
    await put(served.client, {"params": inline(SMALL), "response": None})
    assert await read(served.client) == {"params": inline(SMALL), "response": success(LARGEST)}
    await put(served.client, {"response": failure()})
    assert await read(served.client) == {"params": inline(SMALL), "response": failure()}
    await put(served.client, {"params": inline(LARGE), "response": success(LARGEST)})
    assert await read(served.client) == {"params": inline(LARGE), "response": success(LARGEST)}


async def test_nothing_given_is_accepted_and_stores_nothing(served: Served) -> None:
    for data in ({}, {"params": None, "response": None}, {"somethingNew": 1}):
        await put(served.client, data)
    assert await served.journal.end() == 0
    (await served.client.get("/v1/commands/demo/payload")).refused(404, "COMMAND_NOT_FOUND")


async def test_each_part_is_an_event_of_a_history_of_its_own(served: Served) -> None:
    await put(served.client, {"params": inline(LARGE), "response": success(LARGE)})
    history = await served.journal.history(PayloadKey("demo"))
    assert len(history) == 2, "two bodies beside events are two decisions"
    assert await served.journal.read([history[0].position - 1, history[1].position - 1]) == [LARGE, LARGE]
    assert b'"prev"' in history[1].payload


async def test_a_half_stored_payload_is_repaired_by_repeating(served: Served) -> None:
    data = {"params": inline(LARGE), "response": success(LARGEST)}
    await put(served.client, {"params": inline(LARGE)})
    served.journal.fault = Fault.FULL
    (await served.client.put("/v1/commands/demo/payload", data)).refused(507, "JOURNAL_FULL")
    assert await read(served.client) == {"params": inline(LARGE)}
    served.journal.fault = None
    await put(served.client, data)
    assert await read(served.client) == data
    assert len(await served.journal.history(PayloadKey("demo"))) == 2


async def test_a_stored_payload_is_no_command(served: Served) -> None:
    await put(served.client, DATA)
    for path in ("demo", "demo/events"):
        (await served.client.get(f"/v1/commands/{path}")).refused(404, "COMMAND_NOT_FOUND")
    (await served.respond("demo")).refused(404, "COMMAND_NOT_FOUND")
    assert await served.lease() == []
    assert (await served.client.get("/v1/queues")).ok()["queues"] == []


async def test_a_request_for_storage_of_the_caller_is_not_kept(served: Served) -> None:
    request = {"backend": {"type": "http", "url": "http://192.0.2.1/x", "method": "GET", "headers": {}}}
    await put(served.client, {"params": inline(SMALL) | {"storageGetRequest": request, "storagePutUsed": True}})
    assert await read(served.client) == {"params": inline(SMALL)}
    assert b"192.0.2.1" not in b"".join(message.payload for message in await served.journal.history(PayloadKey("demo")))


# --- who may


@pytest.mark.parametrize("token", [None, "anything"])
async def test_everybody_may_in_an_open_service(open_served: Served, token: str | None) -> None:
    client = open_served.client.presenting(token)
    await put(client, DATA)
    assert await read(client) == DATA


async def test_other_scopes_may_not_and_do_not_see_it(served: Served) -> None:
    command_id = await served.create()
    await put(served.client, DATA)
    minted = await served.client.post("/v1/tokens", {"scope": "receiver", "deployments": ["dep"]})
    assert minted.status == 201
    end = await served.journal.end()
    client = served.client.presenting(minted.json["token"])
    for name in ("demo", command_id, "a b"):
        answer = await client.put(f"/v1/commands/{name.replace(' ', '%20')}/payload", raw=b"no JSON")
        answer.refused(403, "FORBIDDEN")
    (await client.get("/v1/commands/demo/payload")).refused(404, "COMMAND_NOT_FOUND")
    assert await read(client, command_id) == {"params": inline(b"{}")}
    assert await served.journal.end() == end


# --- what is refused


@pytest.mark.parametrize("name", ["a%20b", "a.b", "a:b", "%C3%A9", "a" * 129, "a%0A", "*"])
async def test_an_id_that_no_command_could_have_is_400(served: Served, name: str) -> None:
    (await served.client.put(f"/v1/commands/{name}/payload", DATA)).refused(400, "INVALID_COMMAND")
    (await served.client.get(f"/v1/commands/{name}/payload")).refused(404, "COMMAND_NOT_FOUND")
    assert await served.journal.end() == 0


@pytest.mark.parametrize("name", ["a", "-", "_", "A-Z_09", "a" * 128, "dep"])
async def test_any_id_that_a_command_could_have_is_taken(served: Served, name: str) -> None:
    await put(served.client, DATA, name)
    assert await read(served.client, name) == DATA


@pytest.mark.parametrize("text", ["YQ", "YR==", "YWJj\n", "-_-_"])
async def test_bad_base64_is_400_and_nothing_is_stored(served: Served, text: str) -> None:
    bad = {"mode": "inline", "inlineBase64": text}
    for data in ({"params": bad}, {"params": inline(LARGE), "response": {"status": "success", "response": bad}}):
        (await served.client.put("/v1/commands/demo/payload", data)).refused(400, "INVALID_REQUEST")
    assert await served.journal.end() == 0


@pytest.mark.parametrize(
    "data",
    [
        [],
        {"params": []},
        {"params": {}},
        {"params": {"mode": "carrier"}},
        {"response": "fine"},
        {"response": {"status": "maybe"}},
        {"response": failure(details={"a": 1})},
    ],
)
async def test_another_shape_is_422(served: Served, data: Any) -> None:
    (await served.client.call("PUT", "/v1/commands/demo/payload", data)).refused(422, "INVALID_REQUEST")
    assert await served.journal.end() == 0


async def test_a_command_that_comes_later_hides_what_was_stored(served: Served) -> None:
    """Ids made from idempotency keys can be foretold; the command wins."""
    async with serving() as elsewhere:
        command_id = await elsewhere.create(idempotencyKey="order:42")
    await put(served.client, DATA, command_id)
    assert await served.create(idempotencyKey="order:42", params=inline(LARGE)) == command_id
    assert await read(served.client, command_id) == {"params": inline(LARGE)}
    (await served.client.put(f"/v1/commands/{command_id}/payload", DATA)).refused(400, "INVALID_STATE_TRANSITION")
    (await served.client.post("/v1/commands", a_command(idempotencyKey="order:42"))).refused(409, "CONFLICT")
