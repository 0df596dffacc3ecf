"""Bodies that travel by URLs of their own: uploads, downloads, what is inline (`arc.v1` 2.3, 2.10, 4.3)."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urlsplit

import pytest

from arc_es.domain.limits import SECOND
from arc_es.domain.state import TERMINAL
from arc_es.journal.memory import MemoryJournal
from arc_es.ports import Slot
from arc_es.storage.memory import BodyFault, MemoryBodyStore
from tests.http.driver import T0, Answer, Served, a_command, a_lease, failure, inline, serving, success

LARGE = bytes(range(256)) * 600  # 153 600 bytes
LIMIT = 200_000


@pytest.fixture
def store() -> MemoryBodyStore:
    return MemoryBodyStore()


@pytest.fixture
async def served(store: MemoryBodyStore) -> AsyncGenerator[Served, None]:
    async with serving(store=store, storage_bytes_max=LIMIT) as found:
        yield found


def storage(size: int | None = None, **more: Any) -> dict[str, Any]:
    return {"mode": "storage", **({} if size is None else {"size": size}), **more}


def stored(size: int, **more: Any) -> dict[str, Any]:
    return {"status": "success", "response": storage(size, storagePutUsed=True, **more)}


async def follow(served: Served, request: Any, raw: bytes = b"", base: str = "/v1/commands/leases") -> Answer:
    """Do what a PresignedRequest says, as a client does: that method, those headers, no bearer."""
    backend = request["backend"]
    assert (backend["type"], backend["headers"]) == ("http", {})
    assert request["operation"] == backend["method"].lower()
    url = urlsplit(backend["url"])
    path = url.path
    if not url.scheme:
        assert path.startswith("../storage/")
        path = base.rsplit("/", 2)[0] + path.removeprefix("..")
    client = served.client.presenting(None)
    return await client.call(backend["method"], f"{path}?{url.query}", raw=raw)


async def waiting_for_upload(served: Served, **more: Any) -> Any:
    return (await served.client.post("/v1/commands", a_command(params=storage(), **more))).ok()


async def complete(served: Served, command_id: str, size: int) -> Answer:
    return await served.client.post(f"/v1/commands/{command_id}/upload-complete", {"size": size})


async def uploaded(served: Served, raw: bytes, **more: Any) -> str:
    """A command whose params came through storage."""
    created = await waiting_for_upload(served, **more)
    assert (await follow(served, created["storageUpload"]["putRequest"], raw)).status == 200
    assert (await complete(served, created["commandId"], len(raw))).ok()["state"] == "PENDING"
    return str(created["commandId"])


async def downloaded(served: Served, body: Any) -> bytes:
    """The bytes of a storage BodySpec."""
    assert set(body) == {"mode", "size", "storageGetRequest", "storagePutUsed"}
    assert (body["mode"], body["storagePutUsed"]) == ("storage", True)
    answer = await follow(served, body["storageGetRequest"])
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert int(answer.headers["content-length"]) == len(answer.body) == body["size"]
    return answer.body


async def ref_of(served: Served, command_id: str) -> str:
    row = served.node.service.peek(command_id)
    assert row is not None
    found = await served.node.service.params(row)
    return found.ref  # type: ignore[union-attr]  # in the store


async def all_names(store: MemoryBodyStore) -> set[str]:
    return {stored.name async for stored in store.names()}


# --- params


@pytest.mark.parametrize("size", [None, 0, 5, 10**9])
async def test_storage_params_wait_for_their_upload(served: Served, size: int | None) -> None:
    created = (await served.client.post("/v1/commands", a_command(params=storage(size)))).ok()
    command_id = created["commandId"]
    assert (created["state"], created["next"], created["inlineAllowedUpTo"]) == ("PENDING_UPLOAD", "upload", 150_000)
    upload = created["storageUpload"]
    request = upload["putRequest"]
    assert set(upload) == {"putRequest", "expiresAt"}
    assert request["path"] == f"arc/commands/{command_id}/params"
    assert request["backend"]["url"].startswith(f"http://arc.example/v1/storage/{request['path']}?expires=")
    assert upload["expiresAt"] == request["expiration"] == "2026-03-01T11:00:00Z"
    assert f"expires={T0 // SECOND + 3600}&" in request["backend"]["url"]
    assert await served.lease() == []
    found = (await served.client.get(f"/v1/commands/{command_id}/payload")).ok()
    assert found["params"] == {"mode": "storage", "size": size}
    assert (await served.status(command_id))["state"] == "PENDING_UPLOAD"


@pytest.mark.parametrize("size", [0, 1, 4_096, 4_097, 150_000])
async def test_small_uploads_are_inline_everywhere(served: Served, size: int) -> None:
    raw = LARGE[:size]
    command_id = await uploaded(served, raw)
    (lease,) = await served.lease()
    assert lease["envelope"]["params"] == inline(raw)
    assert (await served.client.get(f"/v1/commands/{command_id}/payload")).ok()["params"] == inline(raw)


@pytest.mark.parametrize(("asked", "url"), [({}, "../storage/"), ({"target": None}, "http://arc.example/v1/storage/")])
async def test_large_uploads_are_downloaded(served: Served, asked: Any, url: str) -> None:
    command_id = await uploaded(served, LARGE)
    (lease,) = await served.lease(leaseSeconds=7_200, **asked)
    body = lease["envelope"]["params"]
    assert body["storageGetRequest"]["backend"]["url"].startswith(url)
    assert body["storageGetRequest"]["expiration"] == "2026-03-01T12:05:00Z"  # the lease and 300 s
    assert await downloaded(served, body) == LARGE
    payload = (await served.client.get(f"/v1/commands/{command_id}/payload")).ok()["params"]
    assert payload["storageGetRequest"]["expiration"] == "2026-03-01T11:00:00Z"
    assert await downloaded(served, payload) == LARGE


async def test_the_event_says_size_and_digest(served: Served) -> None:
    command_id = await uploaded(served, LARGE)
    event = (await served.events(command_id))[-1]
    assert event["type"] == "UploadCompleted"
    params = event["data"]["params"]
    assert (params["size"], params["sha256"]) == (len(LARGE), hashlib.sha256(LARGE).hexdigest())


async def test_an_upload_that_is_not_there_completes_nothing(served: Served) -> None:
    created = await waiting_for_upload(served)
    command_id = created["commandId"]
    (await complete(served, command_id, 3)).refused(400, "INVALID_COMMAND")
    await follow(served, created["storageUpload"]["putRequest"], b"four")
    (await complete(served, command_id, 3)).refused(400, "INVALID_COMMAND")
    assert (await served.status(command_id))["state"] == "PENDING_UPLOAD"
    assert (await complete(served, command_id, 4)).ok() == {"commandId": command_id, "state": "PENDING"}
    (await complete(served, command_id, 4)).refused(400, "INVALID_STATE_TRANSITION")
    (await complete(served, "cmd_unknown", 4)).refused(404, "COMMAND_NOT_FOUND")


@pytest.mark.parametrize("body", [{}, {"size": None}, {"size": -1}, {"size": 1.5}, {"size": "4"}, {"size": True}])
async def test_a_size_is_a_number(served: Served, body: Any) -> None:
    command_id = (await waiting_for_upload(served))["commandId"]
    answer = await served.client.post(f"/v1/commands/{command_id}/upload-complete", body)
    answer.refused(422, "INVALID_REQUEST")


async def test_the_last_complete_upload_counts(served: Served) -> None:
    created = await waiting_for_upload(served)
    request = created["storageUpload"]["putRequest"]
    for raw in (b"first", b"the second one", b"last"):
        assert (await follow(served, request, raw)).status == 200
    assert (await follow(served, request, bytes(LIMIT + 1))).status == 413
    (await complete(served, created["commandId"], 4)).ok()
    (lease,) = await served.lease()
    assert lease["envelope"]["params"] == inline(b"last")


async def test_params_never_change_after_the_upload(served: Served) -> None:
    created = await waiting_for_upload(served)
    request = created["storageUpload"]["putRequest"]
    await follow(served, request, LARGE)
    await complete(served, created["commandId"], len(LARGE))
    (await follow(served, request, b"other")).refused(409, "CONFLICT")
    (lease,) = await served.lease()
    assert await downloaded(served, lease["envelope"]["params"]) == LARGE


async def test_inline_params_cannot_be_uploaded_over(served: Served) -> None:
    command_id = await served.create()
    client = served.client.presenting(None)
    for name, status, code in ((command_id, 409, "CONFLICT"), ("cmd_unknown", 404, "COMMAND_NOT_FOUND")):
        answer = await client.call("PUT", signed(served, "PUT", Slot(name, "params")), raw=b"x")
        answer.refused(status, code)


async def test_an_upload_window_ends(served: Served) -> None:
    created = await waiting_for_upload(served)
    served.clock.advance(86_400)
    assert (await served.status(created["commandId"]))["state"] == "EXPIRED"
    (await complete(served, created["commandId"], 0)).refused(400, "INVALID_STATE_TRANSITION")


async def test_a_deadline_ends_the_wait_for_an_upload(served: Served) -> None:
    created = await waiting_for_upload(served, deadline="2026-03-01T10:00:10Z")
    await follow(served, created["storageUpload"]["putRequest"], b"{}")
    served.clock.advance(10.001)
    (await complete(served, created["commandId"], 2)).refused(400, "INVALID_STATE_TRANSITION")
    assert (await served.status(created["commandId"]))["state"] == "EXPIRED"


async def test_a_replay_gives_a_fresh_upload_request(served: Served) -> None:
    first = await waiting_for_upload(served, idempotencyKey="k")
    served.clock.advance(100)
    again = await waiting_for_upload(served, idempotencyKey="k")
    assert (again["commandId"], again["state"], again["next"]) == (first["commandId"], "PENDING_UPLOAD", "upload")
    assert again["storageUpload"]["expiresAt"] == "2026-03-01T11:01:40Z"
    other = await served.client.post("/v1/commands", a_command(params=storage(7), idempotencyKey="k"))
    other.refused(409, "CONFLICT")
    (await served.client.post("/v1/commands", a_command(idempotencyKey="k"))).refused(409, "CONFLICT")
    await follow(served, again["storageUpload"]["putRequest"], b"{}")
    await complete(served, first["commandId"], 2)
    done = await waiting_for_upload(served, idempotencyKey="k")
    assert (done["state"], done["next"], "storageUpload" in done) == ("PENDING", "poll", False)


@pytest.mark.parametrize(("size", "mode"), [(150_000, "inline"), (150_001, "storage"), (1_400_000, "storage")])
async def test_inline_params_of_any_size_are_pending_at_once(served: Served, size: int, mode: str) -> None:
    raw = (LARGE * 10)[:size]
    created = (await served.client.post("/v1/commands", a_command(params=inline(raw), idempotencyKey="k"))).ok()
    assert (created["state"], created["next"]) == ("PENDING", "poll")
    again = (await served.client.post("/v1/commands", a_command(params=inline(raw), idempotencyKey="k"))).ok()
    assert again["commandId"] == created["commandId"]
    (lease,) = await served.lease()
    body = lease["envelope"]["params"]
    assert body["mode"] == mode
    assert body == inline(raw) if mode == "inline" else await downloaded(served, body) == raw


async def test_params_that_are_gone_fail_their_command_only(served: Served, store: MemoryBodyStore) -> None:
    lost = await uploaded(served, LARGE)
    fine = await uploaded(served, LARGE + b"!")
    small = await served.create()
    store.lose(await ref_of(served, lost))
    assert [lease["commandId"] for lease in await served.lease(maxLeases=10)] == [fine, small]
    status = await served.status(lost)
    assert (status["state"], status["response"]["code"]) == ("FAILED", "STORAGE_OPERATION_FAILED")
    assert status["attempt"] == 1


async def test_params_out_of_reach_wait_without_losing_an_attempt(served: Served, store: MemoryBodyStore) -> None:
    large = await uploaded(served, LARGE)
    small = await served.create()
    store.fault = BodyFault.UNREACHABLE
    assert [lease["commandId"] for lease in await served.lease(maxLeases=10)] == [small]
    assert await served.lease() == []
    store.fault = None
    (lease,) = await served.lease()
    assert (lease["commandId"], lease["attempt"]) == (large, 1)


async def test_without_a_store_large_params_are_refused_and_nothing_is_created(
    served: Served, store: MemoryBodyStore
) -> None:
    store.fault = BodyFault.UNREACHABLE
    before = served.node.service.applied
    answer = await served.client.post("/v1/commands", a_command(params=inline(LARGE)))
    answer.refused(500, "STORAGE_OPERATION_FAILED")
    assert served.node.service.applied == before


# --- responses


async def leased(served: Served) -> tuple[str, Any]:
    """A command under a lease, and its envelope."""
    command_id = await served.create()
    (lease,) = await served.lease()
    return command_id, lease["envelope"]


@pytest.mark.parametrize(("size", "mode"), [(150_000, "inline"), (150_001, "storage"), (1_400_000, "storage")])
async def test_inline_responses_of_any_size_are_taken(served: Served, size: int, mode: str) -> None:
    raw = (LARGE * 10)[:size]
    command_id, _ = await leased(served)
    assert (await served.respond(command_id, success(raw))).status == 200
    response = (await served.status(command_id))["response"]
    assert response["status"] == "success"
    assert response["response"]["mode"] == mode
    if mode == "inline":
        assert response["response"] == inline(raw)
    else:
        assert await downloaded(served, response["response"]) == raw
        assert response["response"]["storageGetRequest"]["backend"]["url"].startswith("http://arc.example/v1/storage/")


@pytest.mark.parametrize("claimed", [0, 3, 10**9])
@pytest.mark.parametrize("size", [0, 150_000, 150_001])
async def test_uploaded_responses_have_their_true_size(served: Served, size: int, claimed: int) -> None:
    raw = LARGE[:size]
    command_id, envelope = await leased(served)
    request = envelope["responseHandling"]["storageUploadRequest"]
    assert (await follow(served, request, raw)).status == 200
    assert (await served.respond(command_id, stored(claimed))).status == 200
    response = (await served.status(command_id))["response"]["response"]
    if size <= 150_000:
        assert response == inline(raw)
    else:
        assert await downloaded(served, response) == raw


async def test_a_storage_response_without_an_object_is_refused(served: Served) -> None:
    command_id, envelope = await leased(served)
    (await served.respond(command_id, stored(5))).refused(400, "INVALID_COMMAND")
    assert (await served.status(command_id))["state"] == "DISPATCHED"
    await follow(served, envelope["responseHandling"]["storageUploadRequest"], LARGE)
    assert (await served.respond(command_id, {"status": "success", "response": storage()})).status == 200
    assert (await served.status(command_id))["state"] == "SUCCEEDED"


async def test_urls_that_a_client_sends_are_never_passed_on(served: Served) -> None:
    command_id, envelope = await leased(served)
    request = envelope["responseHandling"]["storageUploadRequest"]
    await follow(served, request, LARGE)
    bad: dict[str, Any] = {"backend": {"type": "http", "url": "https://evil.example/x", "method": "GET", "headers": {}}}
    bad |= {"expiration": "2030-01-01T00:00:00Z", "operation": "get", "path": "x"}
    assert (await served.respond(command_id, stored(1, storageGetRequest=bad))).status == 200
    assert "evil" not in str(await served.status(command_id))


async def test_an_undelivered_command_takes_no_storage_response(served: Served) -> None:
    command_id = await served.create()
    (await served.respond(command_id, stored(5))).refused(400, "INVALID_STATE_TRANSITION")
    waiting = (await waiting_for_upload(served))["commandId"]
    (await served.respond(waiting, stored(5))).refused(400, "INVALID_STATE_TRANSITION")


async def test_the_accepted_response_never_changes(served: Served) -> None:
    command_id, envelope = await leased(served)
    request = envelope["responseHandling"]["storageUploadRequest"]
    await follow(served, request, LARGE)
    await served.respond(command_id, stored(len(LARGE)))
    assert (await follow(served, request, LARGE + b"other")).status == 200  # dropped
    assert (await served.respond(command_id, stored(9))).status == 200
    response = (await served.status(command_id))["response"]["response"]
    assert await downloaded(served, response) == LARGE
    assert (await served.types(command_id)).count("CommandSucceeded") == 1


async def test_an_upload_that_never_counts_is_refused_for_that_and_not_for_want_of_room() -> None:
    journal = MemoryJournal(bytes_max=1_000_000, headroom_bytes=0)
    async with serving(journal) as served:
        waiting = (await waiting_for_upload(served))["storageUpload"]["putRequest"]
        done = await waiting_for_upload(served)
        assert (await follow(served, done["storageUpload"]["putRequest"], b"{}")).status == 200
        assert (await complete(served, done["commandId"], 2)).ok()["state"] == "PENDING"
        journal.bytes_max = 0
        (await follow(served, done["storageUpload"]["putRequest"], b"{}")).refused(409, "CONFLICT")
        (await follow(served, waiting, b"{}")).refused(507, "JOURNAL_FULL")


async def test_the_same_storage_response_again_is_no_late_response(served: Served) -> None:
    command_id, envelope = await leased(served)
    await follow(served, envelope["responseHandling"]["storageUploadRequest"], LARGE)
    for _ in range(3):
        assert (await served.respond(command_id, stored(len(LARGE)))).status == 200
    assert "LateResponseRecorded" not in await served.types(command_id)


async def test_late_large_responses_are_acknowledged_and_recorded(served: Served, store: MemoryBodyStore) -> None:
    command_id, _ = await leased(served)
    await served.respond(command_id, failure())
    assert (await served.respond(command_id, success(LARGE))).status == 200
    store.fault = BodyFault.UNREACHABLE
    assert (await served.respond(command_id, stored(7))).status == 200
    late = [event["data"] for event in await served.events(command_id) if event["type"] == "LateResponseRecorded"]
    assert [entry["size"] for entry in late] == [len(LARGE), 7]
    assert (await served.status(command_id))["state"] == "FAILED"


async def test_params_and_response_do_not_overwrite_one_another(served: Served) -> None:
    command_id = await uploaded(served, LARGE)
    (lease,) = await served.lease()
    await follow(served, lease["envelope"]["responseHandling"]["storageUploadRequest"], LARGE[::-1])
    await served.respond(command_id, stored(len(LARGE)))
    payload = (await served.client.get(f"/v1/commands/{command_id}/payload")).ok()
    assert await downloaded(served, payload["params"]) == LARGE
    assert await downloaded(served, payload["response"]["response"]) == LARGE[::-1]


async def test_download_urls_are_minted_at_every_read(served: Served) -> None:
    command_id, _ = await leased(served)
    await served.respond(command_id, success(LARGE))
    first = (await served.status(command_id))["response"]["response"]
    served.clock.advance(3_601)
    (await follow(served, first["storageGetRequest"])).refused(403, "FORBIDDEN")
    assert await downloaded(served, (await served.status(command_id))["response"]["response"]) == LARGE


# --- the endpoints by themselves


def signed(served: Served, method: Any, slot: Slot, seconds: int = 60) -> str:
    expires = served.clock.now() // SECOND + seconds
    signature = served.app.api.signer.storage_signature(method, slot.path, expires)
    return f"/storage/{slot.path}?expires={expires}&signature={signature}"


async def test_a_missing_object_is_404(served: Served) -> None:
    client = served.client.presenting(None)
    command_id = await served.create()
    for name in (command_id, "cmd_unknown"):
        (await client.get(signed(served, "GET", Slot(name, "response")))).refused(404, "OBJECT_NOT_FOUND")


async def test_what_is_inline_can_be_downloaded_too(served: Served) -> None:
    command_id, _ = await leased(served)
    await served.respond(command_id, success(b"seventeen"))
    client = served.client.presenting(None)
    assert (await client.get(signed(served, "GET", Slot(command_id, "params")))).body == b"{}"
    assert (await client.get(signed(served, "GET", Slot(command_id, "response")))).body == b"seventeen"


async def test_an_upload_is_downloaded_before_it_is_accepted(served: Served) -> None:
    command_id, envelope = await leased(served)
    for raw in (b"one", b"two!"):
        await follow(served, envelope["responseHandling"]["storageUploadRequest"], raw)
        found = await served.client.presenting(None).get(signed(served, "GET", Slot(command_id, "response")))
        assert found.body == raw


async def test_a_bearer_is_not_looked_at(served: Served) -> None:
    command_id = await served.create()
    path = signed(served, "GET", Slot(command_id, "params"))
    assert (await served.client.presenting("wrong").get(path)).status == 200
    bare = path.partition("?")[0]
    (await served.client.get(bare)).refused(403, "FORBIDDEN")
    (await served.client.get(f"{bare}?expires=x&signature=ab")).refused(403, "FORBIDDEN")


async def test_a_response_of_an_error_or_an_expired_command_is_no_object(served: Served) -> None:
    command_id, envelope = await leased(served)
    await follow(served, envelope["responseHandling"]["storageUploadRequest"], LARGE)
    await served.respond(command_id, failure())
    path = signed(served, "GET", Slot(command_id, "response"))
    (await served.client.presenting(None).get(path)).refused(404, "OBJECT_NOT_FOUND")


# --- ids without a command


async def test_stored_payloads_may_be_large_or_only_announced(served: Served) -> None:
    path = "/v1/commands/demo-1/payload"
    wanted = {"params": inline(LARGE), "response": success(LARGE[::-1])}
    assert (await served.client.put(path, wanted)).status == 200
    found = (await served.client.get(path)).ok()
    assert await downloaded(served, found["params"]) == LARGE
    assert await downloaded(served, found["response"]["response"]) == LARGE[::-1]
    assert (await served.client.put(path, {"params": storage(), "response": stored(12)})).status == 200
    found = (await served.client.get(path)).ok()
    assert found["params"] == {"mode": "storage", "size": None}
    assert found["response"]["response"] == {"mode": "storage", "size": 12}
    assert (await served.client.put(path, {"response": failure(details="x" * 9_000)})).status == 200
    found = (await served.client.get(path)).ok()
    assert found["response"]["details"] == "x" * 9_000


async def test_after_a_restart_everything_is_still_there(store: MemoryBodyStore) -> None:
    async with serving(store=store) as first:
        command_id = await uploaded(first, LARGE)
        journal = first.journal
    async with serving(journal=journal, store=store) as second:
        (lease,) = await second.lease()
        assert lease["commandId"] == command_id
        assert await downloaded(second, lease["envelope"]["params"]) == LARGE
        row = second.node.service.peek(command_id)
        assert row is not None
        assert not isinstance(row.state, TERMINAL)
        assert (await second.client.post("/v1/commands/leases", a_lease())).ok()["leases"] == []


async def test_a_replay_stores_nothing(served: Served, store: MemoryBodyStore) -> None:
    wanted = a_command(params=inline(LARGE), idempotencyKey="k")
    first = (await served.client.post("/v1/commands", wanted)).ok()
    names = await all_names(store)
    store.fault = BodyFault.FULL
    assert (await served.client.post("/v1/commands", wanted)).ok()["commandId"] == first["commandId"]
    assert await all_names(store) == names
    other = a_command(params=inline(LARGE + b"!"), idempotencyKey="k")
    (await served.client.post("/v1/commands", other)).refused(409, "CONFLICT")
