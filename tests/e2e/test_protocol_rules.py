"""The tables of `arc.v1` over a real socket: errors, methods, forms of a path, signatures made by somebody else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.e2e.old_clients.http import resolve
from tests.e2e.old_clients.world import ADMIN, World
from tests.e2e.process import ROOT

SECONDS_MAX = 30
KEY = hashlib.sha256(f"{ADMIN}:commands-response-signing".encode()).digest()
INLINE = {"mode": "inline", "inlineBase64": "e30="}
SUCCESS = {"status": "success", "response": INLINE}
UNKNOWN = "cmd_00000000-0000-4000-8000-000000000000"
INDEXER = {"resourceId": "indexer", "resourceType": "daemon"}


def create(world: World, **more: Any) -> dict[str, Any]:
    return {"deploymentId": world.deployment, "command": "do", "params": INLINE, "targetResourceId": "indexer", **more}


async def created(world: World, **more: Any) -> str:
    answer = await world.http.call("POST", f"{world.url}/v1/commands", create(world, **more), bearer=world.sender)
    command_id: str = answer.ok()["commandId"]
    return command_id


async def leased(world: World, target: Any = INDEXER, path: str = "/v1/commands/leases", **more: Any) -> Any:
    wanted = {"deploymentId": world.deployment, "target": target, **more}
    return (await world.http.call("POST", world.url + path, wanted, bearer=world.receiver)).ok()["leases"]


# --- 1.6


async def test_every_error_of_the_table_that_a_client_can_provoke(world: World) -> None:
    pending, waiting = await created(world), await created(world, params={"mode": "storage"})
    await created(world, idempotencyKey="k")
    status, respond = f"/commands/{UNKNOWN}", f"/commands/{pending}/response"
    payload, done = "/payload", f"/commands/{waiting}/upload-complete"
    good = {"mode": "storage", "size": 1}
    wrong_body: list[tuple[Any, int, str]] = [
        ({}, 422, "INVALID_REQUEST"),
        ([], 422, "INVALID_REQUEST"),
        (create(world, deadline="2026-03-01T10:05:00"), 422, "INVALID_REQUEST"),
        (create(world, params={"mode": "post"}), 422, "INVALID_REQUEST"),
        (create(world, params={"mode": "storage", "size": 1.5}), 422, "INVALID_REQUEST"),
        (create(world, params={"mode": "storage", "size": -1}), 422, "INVALID_REQUEST"),
        (create(world, params={"mode": "storage", "size": True}), 422, "INVALID_REQUEST"),
        (create(world, params={"mode": "inline", "inlineBase64": "e30"}), 400, "INVALID_REQUEST"),
        (create(world, params={"mode": "inline", "inlineBase64": "e3=="}), 400, "INVALID_REQUEST"),
        (create(world, command=""), 400, "INVALID_COMMAND"),
        (create(world, command="a:b"), 400, "INVALID_COMMAND"),
        (create(world, command="x" * 1025), 400, "INVALID_COMMAND"),
        (create(world, idempotencyKey="ü" * 513), 400, "INVALID_COMMAND"),
        (create(world, deadline="2020-01-01T00:00:00+00:00"), 400, "INVALID_COMMAND"),
        (create(world, targetResourceId="a:b"), 400, "COMMAND_TARGET_ID_INVALID"),
        (create(world, targetResourceId="x" * 1025), 400, "COMMAND_TARGET_ID_INVALID"),
        (create(world, targetResourceId=""), 404, "COMMAND_TARGET_NOT_FOUND"),
        (create(world, targetResourceId="operator"), 403, "FORBIDDEN"),
        (create(world, idempotencyKey="k", params={"mode": "inline", "inlineBase64": ""}), 409, "CONFLICT"),
        (create(world, params={"mode": "inline", "inlineBase64": "A" * 2_097_152}), 413, "PAYLOAD_TOO_LARGE"),
    ]
    for body, code, name in wrong_body:
        (await world.http.call("POST", f"{world.url}/v1/commands", body, bearer=world.sender)).refused(code, name)
    rows: list[tuple[str, str, Any, int, str]] = [
        ("GET", status, None, 404, "COMMAND_NOT_FOUND"),
        ("GET", status + payload, None, 404, "COMMAND_NOT_FOUND"),
        ("POST", f"{status}/upload-complete", {"size": 1}, 404, "COMMAND_NOT_FOUND"),
        ("PUT", f"{status}/response", SUCCESS, 404, "COMMAND_NOT_FOUND"),
        ("POST", done, {"size": 1}, 400, "INVALID_COMMAND"),
        ("POST", f"/commands/{pending}/upload-complete", {"size": 2}, 400, "INVALID_STATE_TRANSITION"),
        ("PUT", respond, SUCCESS, 400, "INVALID_STATE_TRANSITION"),
        ("PUT", f"/commands/{waiting}/response", SUCCESS, 400, "INVALID_STATE_TRANSITION"),
        ("PUT", f"/commands/{pending}/payload", {"params": INLINE}, 400, "INVALID_STATE_TRANSITION"),
        ("PUT", "/commands/a.b/payload", {"params": INLINE}, 400, "INVALID_COMMAND"),
        ("PUT", respond, {"status": "error", "code": "x", "message": "y", "details": {}}, 422, "INVALID_REQUEST"),
        ("PUT", respond, {"status": "success", "response": good}, 400, "INVALID_STATE_TRANSITION"),
        ("POST", "/commands/leases/lease_x/release", None, 404, "LEASE_NOT_FOUND"),
        ("GET", "/storage/arc/commands/cmd_1/params", None, 403, "FORBIDDEN"),
        ("GET", "/nothing", None, 404, "ROUTE_NOT_FOUND"),
        ("POST", "/commands/leases", {"deploymentId": "x", "maxLeases": -1}, 422, "INVALID_REQUEST"),
        ("POST", "/commands/leases", {"deploymentId": "x", "target": {"resourceId": "x"}}, 422, "INVALID_REQUEST"),
    ]
    for method, path, body, code, name in rows:
        (await world.http.call(method, f"{world.url}/v1{path}", body, bearer=ADMIN)).refused(code, name)
    url = f"{world.url}/commands"
    for raw, kind, code, name in (
        (b"{", "application/json", 400, "INVALID_REQUEST"),
        (b"", "application/json; charset=utf-8", 400, "INVALID_REQUEST"),
        (b"{}", "text/plain", 415, "UNSUPPORTED_MEDIA_TYPE"),
        (b"{}", "", 415, "UNSUPPORTED_MEDIA_TYPE"),
        (b"{}", "application/vnd.api+json", 422, "INVALID_REQUEST"),
    ):
        answer = await world.http.call("POST", url, raw=raw, bearer=ADMIN, Content_Type=kind)
        answer.refused(code, name)
    (await world.http.call("POST", url, {})).refused(401, "UNAUTHORIZED")


async def test_strict_targets(world: World) -> None:
    url = f"{world.url}/v1/commands"
    await world.declare()
    for given, code, name in (
        (None, 422, "NO_COMMAND_TARGETS"),
        ("x", 404, "COMMAND_TARGET_NOT_FOUND"),
    ):
        body = create(world, targetResourceId=given)
        (await world.http.call("POST", url, body, bearer=world.sender)).refused(code, name)
    await world.declare(INDEXER)
    assert (await world.status(await created(world, targetResourceId=None)))["target"] == INDEXER
    await world.declare(INDEXER, {"resourceId": "other", "resourceType": "container"})
    body = create(world, targetResourceId=None)
    (await world.http.call("POST", url, body, bearer=world.sender)).refused(409, "COMMAND_TARGET_AMBIGUOUS")


# --- 1.1, 1.2


async def test_methods_that_a_path_does_not_have(world: World) -> None:
    for method, path, allowed in (
        ("GET", "/commands/leases", {"POST"}),
        ("DELETE", "/v1/commands", {"GET", "HEAD", "POST"}),
        ("OPTIONS", "/v1//commands/", {"GET", "HEAD", "POST"}),
        ("PUT", "/v1/commands/cmd_1", {"GET", "HEAD"}),
        ("TRACE", "/v1/storage/arc/commands/cmd_1/params", {"GET", "HEAD", "PUT"}),
    ):
        answer = await world.http.call(method, world.url + path, bearer=ADMIN)
        answer.refused(405, "METHOD_NOT_ALLOWED")
        assert set(answer.headers["allow"].split(", ")) | {"HEAD"} == allowed | {"HEAD"}


async def test_head_is_get_without_its_body(world: World) -> None:
    command_id = await created(world)
    for path in ("/health", "/readyz", f"/v1/commands/{command_id}"):
        head = await world.http.call("HEAD", world.url + path, bearer=ADMIN)
        get = await world.http.call("GET", world.url + path, bearer=ADMIN)
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(get.body)))


async def test_every_path_has_its_forms_and_a_date(world: World) -> None:
    command_id = await created(world)
    for form in (
        f"/commands/{command_id}",
        f"/v1/commands/{command_id}/",
        f"//v1///commands//{command_id}?token=x&whatever",
        "/health",
        "/v1/healthz",
        "/v1/readyz/",
    ):
        answer = await world.http.call("GET", world.url + form, bearer=world.sender)
        assert answer.status == 200, form
        assert abs(parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()) < SECONDS_MAX


async def test_a_release_takes_any_body_and_an_encoded_id_and_answers_with_nothing(world: World) -> None:
    for attempt, (raw, kind) in enumerate([(b"", ""), (b"{", "application/json"), (b"\x00", "text/x-odd")], 1):
        if attempt == 1:
            command_id = await created(world)
        (lease,) = await leased(world)
        assert (lease["commandId"], lease["attempt"]) == (command_id, attempt)
        shown = "".join(f"%{ord(char):02x}" for char in lease["leaseId"])
        url = f"{world.url}/commands/leases/{shown}/release"
        answer = await world.http.call("POST", url, raw=raw, bearer=world.receiver, Content_Type=kind)
        assert (answer.status, answer.body) == (200, b"")
        again = await world.http.call("POST", url, raw=raw, bearer=world.receiver)
        again.refused(404, "LEASE_NOT_FOUND")


async def test_numbers_of_a_lease_are_clamped(world: World) -> None:
    await created(world)
    for count, seconds, leases in ((0, 60, 0), (10**30, 10**30, 1)):
        asked = {"deploymentId": world.deployment, "target": INDEXER, "maxLeases": count, "leaseSeconds": seconds}
        raw = json.dumps(asked).encode()
        url = f"{world.url}/v1/commands/leases"
        answer = await world.http.call("POST", url, raw=raw, bearer=world.receiver, Content_Type="application/json")
        assert len(answer.ok()["leases"]) == leases


# --- 2.6, 2.10


def signed(message: str) -> str:
    """By section 2.6 and 2.10 alone, not by the code that the service uses."""
    return hmac.new(KEY, message.encode("ascii"), hashlib.sha256).hexdigest()


def test_the_key_and_the_vectors_are_those_of_the_document() -> None:
    assert KEY.hex() == "900d5ec63ab4e683021b2cfb26e983abaa4797301031a5eb398445273e7c94f1"
    vector = hmac.new(b"example-signing-key", b"commands.v1:cmd_0f8c1d2e:1800000000", hashlib.sha256)
    assert vector.hexdigest() == "5f8739a7ee2fb074f470a56f315606465196b8fbb2b721fd86e8ade1ac4af4e6"


async def test_urls_are_signed_as_the_document_says(world: World) -> None:
    """Own signatures are accepted, and what the service mints is what we would have minted."""
    command_id = await created(world)
    (lease,) = await leased(world, leaseSeconds=7000)
    handling = lease["envelope"]["responseHandling"]
    posted = f"{world.url}/v1/commands/leases"
    submit = urlsplit(resolve(posted, handling["submitResponseUrl"]))
    query = {name: value[0] for name, value in parse_qs(submit.query).items()}
    assert query["response_token"] == signed(f"commands.v1:{command_id}:{query['expires']}")
    assert abs(int(query["expires"]) - time.time() - 7300) < SECONDS_MAX
    upload = handling["storageUploadRequest"]
    path = f"arc/commands/{command_id}/response"
    found = urlsplit(resolve(posted, upload["backend"]["url"]))
    storage = {name: value[0] for name, value in parse_qs(found.query).items()}
    assert (found.path, upload["path"], upload["operation"]) == (f"/v1/storage/{path}", path, "put")
    assert storage["signature"] == signed(f"storage.v1:PUT:{path}:{storage['expires']}")
    expires = int(time.time()) + 600
    get = signed(f"storage.v1:GET:{path}:{expires}").upper()
    (await world.http.call("GET", f"{world.url}/storage/{path}?expires={expires}&signature={get}")).refused(
        404, "OBJECT_NOT_FOUND"
    )
    (await world.http.call("PUT", f"{world.url}/storage/{path}?expires={expires}&signature={get}")).refused(
        403, "FORBIDDEN"
    )
    (await world.http.call("GET", f"{world.url}/storage/{path}?expires=x&signature={get}")).refused(403, "FORBIDDEN")
    token = signed(f"commands.v1:{command_id}:{expires}").upper()
    respond = f"{world.url}/commands/{command_id}/response"
    for odd, code in (
        ("", 401),
        (f"?response_token={token}", 401),
        (f"?response_token={token}&expires=1.5", 400),
        (f"?response_token={token[:-2]}&expires={expires}", 401),
        (f"?response_token={token}&expires={expires + 1}", 401),
    ):
        assert (await world.http.call("PUT", respond + odd, SUCCESS)).status == code
    good = f"?response_token={token}&expires={expires}"
    # a known token decides, even beside a good signature; an unknown one does not
    (await world.http.call("PUT", respond + good, SUCCESS, bearer=world.sender)).refused(403, "FORBIDDEN")
    answer = await world.http.call("PUT", respond + good, SUCCESS, bearer="unknown")
    assert (answer.status, answer.body) == (200, b"")
    assert (await world.http.call("PUT", respond + good, SUCCESS)).status == 200  # already done
    assert (await world.status(command_id))["response"] == SUCCESS


async def test_uploads_of_responses(world: World) -> None:
    """Storage response without object: 400; with one: its true length; at 150000 bytes inline, above it not."""
    for size in (150_000, 150_001):
        command_id, data = await created(world), bytes(size)
        (lease,) = await leased(world)
        handling, posted = lease["envelope"]["responseHandling"], f"{world.url}/v1/commands/leases"
        submit = resolve(posted, handling["submitResponseUrl"])
        answer = {"status": "success", "response": {"mode": "storage", "size": 7}}
        (await world.http.call("PUT", submit, answer)).refused(400, "INVALID_COMMAND")
        upload = resolve(posted, handling["storageUploadRequest"]["backend"]["url"])
        assert (await world.http.call("PUT", upload, raw=b"first")).status == 200
        odd = await world.http.call("PUT", upload, raw=data, Content_Type="text/x-odd", Authorization="Bearer wrong")
        assert (odd.status, odd.body) == (200, b"")
        assert (await world.http.call("PUT", submit, answer)).status == 200
        assert (await world.http.call("PUT", upload, raw=b"too late")).status == 200
        shown = (await world.status(command_id))["response"]["response"]
        if size == 150_000:
            assert base64.b64decode(shown["inlineBase64"]) == data
            continue
        assert (shown["mode"], shown["size"], shown["storagePutUsed"]) == ("storage", size, True)
        got = await world.http.call("GET", shown["storageGetRequest"]["backend"]["url"])
        assert (got.body, got.headers["content-type"]) == (data, "application/octet-stream")
        assert got.headers["content-length"] == str(size)


async def test_what_a_client_says_about_storage_is_ignored(world: World) -> None:
    """A URL of its own, in whatever shape, is neither judged nor passed on; a body is asked for with HEAD, too."""
    own: dict[str, Any] = {"mode": "storage", "size": None, "storageGetRequest": 5, "storagePutUsed": "x", "more": []}
    wanted = create(world, params=own, deadline="2999-01-01t00:00:00.123456789z", idempotencyKey=None)
    made = (await world.http.call("POST", f"{world.url}/v1/commands", wanted, bearer=world.sender)).ok()
    payload = f"{world.url}/v1/commands/{made['commandId']}/payload"
    shown = (await world.http.call("GET", payload, bearer=world.sender)).ok()
    assert shown == {"commandId": made["commandId"], "params": {"mode": "storage", "size": None}}
    put = made["storageUpload"]["putRequest"]["backend"]["url"]
    assert made["storageUpload"]["expiresAt"] == made["storageUpload"]["putRequest"]["expiration"]
    assert (await world.http.call("PUT", put, raw=bytes(150_001))).status == 200
    done = f"{world.url}/v1/commands/{made['commandId']}/upload-complete"
    (await world.http.call("POST", done, {"size": 150_001}, bearer=world.sender)).ok()
    params = (await world.http.call("GET", payload, bearer=world.sender)).ok()["params"]
    assert (params["size"], params["storagePutUsed"]) == (150_001, True)
    head = await world.http.call("HEAD", params["storageGetRequest"]["backend"]["url"])
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "150001")
    (lease,) = await leased(world)
    assert lease["envelope"]["deadline"] == "2999-01-01T00:00:00.123456Z"
    error = {"status": "error", "code": "", "message": "", "details": None, "more": 1}
    submit = resolve(f"{world.url}/v1/commands/leases", lease["envelope"]["responseHandling"]["submitResponseUrl"])
    assert (await world.http.call("PUT", submit, error)).status == 200
    assert (await world.status(made["commandId"]))["response"] == {"status": "error", "code": "", "message": ""}


# --- 4.6, 4.7


async def test_open_targets(world: World) -> None:
    assert (await world.status(await created(world, targetResourceId=None)))["target"] == {
        "resourceId": "default",
        "resourceType": "worker",
    }
    command_id = await created(world, targetResourceId="indexer")
    assert (await world.status(command_id))["target"] == {"resourceId": "indexer", "resourceType": "worker"}
    assert len(await leased(world)) == 1
    assert (await world.status(command_id))["target"] == INDEXER
    assert await leased(world, {"resourceId": "indexer", "resourceType": "worker"}) == []
    assert (await world.status(await created(world, targetResourceId=None)))["target"] == INDEXER


@pytest.mark.parametrize(
    ("path", "target", "form"),
    [
        ("/v1/commands/leases", INDEXER, "relative"),
        ("/commands/leases", INDEXER, "relative"),
        ("//v1//commands/leases?token=x", INDEXER, "relative"),
        ("/v1/commands/leases/", INDEXER, "absolute"),
        ("/v1/commands/leases", None, "absolute"),
        ("/v1//commands/leases", None, "absolute"),
    ],
)
async def test_the_form_of_urls(world: World, path: str, target: Any, form: str) -> None:
    large = {"mode": "inline", "inlineBase64": base64.b64encode(bytes(150_001)).decode()}
    command_id = await created(world, params=large)
    (lease,) = await leased(world, target, path)
    envelope = lease["envelope"]
    handling = envelope["responseHandling"]
    urls = [
        handling["submitResponseUrl"],
        handling["storageUploadRequest"]["backend"]["url"],
        envelope["params"]["storageGetRequest"]["backend"]["url"],
    ]
    base = f"{world.url}/v1"
    commands, storage = ("", "../storage/") if form == "relative" else (f"{base}/commands/", f"{base}/storage/")
    assert urls[0].startswith(f"{commands}{command_id}/response?response_token=")
    assert [url.partition("?")[0] for url in urls[1:]] == [
        f"{storage}arc/commands/{command_id}/{kind}" for kind in ("response", "params")
    ]
    posted = world.url + path
    assert (await world.http.call("GET", resolve(posted, urls[2]))).body == bytes(150_001)
    assert (await world.http.call("PUT", resolve(posted, urls[0]), SUCCESS)).status == 200


# --- docs/reference/conformance.md


def test_the_conformance_table_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "reference" / "conformance.md").read_text("utf-8")
    missing = []
    for found in re.findall(r"`(\w+/test_\w+)(?:::(test_\w+))?`", text):
        path = Path(ROOT / "tests" / f"{found[0]}.py")
        if not path.exists() or (found[1] and f"def {found[1]}(" not in path.read_text("utf-8")):
            missing.append(found)
    assert missing == []
