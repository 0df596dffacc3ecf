"""How requests are read: content types, JSON, integers, times, base64, sizes (`arc.v1` 1.2, 1.3, 1.4)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.http.driver import Client, Served, a_command, a_lease, a_target, failure, inline, success

HUGE = [2**31, 2**63, 2**64, 10**30, 10**300]


@pytest.mark.parametrize(
    "kind",
    ["application/json", "application/json; charset=utf-8", "application/vnd.arc+json", "APPLICATION/JSON;x=y"],
)
async def test_json_content_types(client: Client, kind: str) -> None:
    raw = json.dumps(a_command()).encode()
    (await client.post("/v1/commands", raw=raw, headers={"Content-Type": kind})).ok()


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "text/json", "application/xml", "application/x-www-form-urlencoded"]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/commands"),
        ("POST", "/v1/commands/leases"),
        ("PUT", "/v1/commands/cmd_1/response"),
        ("POST", "/v1/commands/cmd_1/upload-complete"),
        ("POST", "/v1/commands/bootstrap"),
        ("PUT", "/v1/deployments/dep"),
    ],
)
async def test_other_content_types_are_415(client: Client, method: str, path: str, kind: str) -> None:
    answer = await client.call(method, path, raw=b"{}", headers={"Content-Type": kind})
    answer.refused(415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"a":1}x',
        b"\xff\xfe",
        b'{"a":NaN}',
        b'{"command":"\\ud800"}',
        b"{'a':1}",
        b"\xef\xbb\xbf{}",
    ],
)
async def test_a_body_that_is_no_json_is_400(client: Client, raw: bytes) -> None:
    for method, path in (("POST", "/v1/commands"), ("POST", "/v1/commands/leases"), ("PUT", "/v1/deployments/dep")):
        answer = await client.call(method, path, raw=raw, headers={"Content-Type": "application/json"})
        answer.refused(400, "INVALID_REQUEST")


@pytest.mark.parametrize("data", [[], "text", 7, True, [{}]])
async def test_a_body_of_another_shape_is_422(client: Client, data: Any) -> None:
    for method, path in (("POST", "/v1/commands"), ("POST", "/v1/commands/leases"), ("POST", "/v1/commands/bootstrap")):
        (await client.call(method, path, data)).refused(422, "INVALID_REQUEST")


async def test_null_is_absent_and_unknown_fields_are_ignored(served: Served) -> None:
    data: dict[str, Any] = a_command() | dict.fromkeys(
        ("deadline", "idempotencyKey", "notBefore", "priority", "labels", "maxAttempts")
    )
    (await served.client.post("/v1/commands", data | {"somethingNew": {"a": [1]}})).ok()
    asked: dict[str, Any] = (
        a_lease() | dict.fromkeys(("maxLeases", "leaseSeconds", "waitSeconds", "agent")) | {"somethingNew": 1}
    )
    (lease,) = (await served.client.post("/v1/commands/leases", asked)).ok()["leases"]
    assert lease["leaseExpiresAt"] == "2026-03-01T10:01:00Z"
    answered = await served.respond(lease["commandId"], failure(details=None, somethingNew=1))
    assert answered.status == 200
    assert (await served.status(lease["commandId"]))["response"] == failure()


@pytest.mark.parametrize("field", ["deploymentId", "command", "params"])
@pytest.mark.parametrize("value", [None, 5, [], True])
async def test_a_required_field_missing_or_of_the_wrong_type_is_422(client: Client, field: str, value: Any) -> None:
    data = a_command(**{field: None}) if value is None else a_command(**{field: value})
    (await client.post("/v1/commands", data)).refused(422, "INVALID_REQUEST")


@pytest.mark.parametrize("field", ["deadline", "idempotencyKey", "targetResourceId"])
@pytest.mark.parametrize("value", [5, {}, False])
async def test_an_optional_field_of_the_wrong_type_is_422(client: Client, field: str, value: Any) -> None:
    (await client.post("/v1/commands", a_command(**{field: value}))).refused(422, "INVALID_REQUEST")


@pytest.mark.parametrize(
    "params", [{}, {"mode": "carrier"}, {"mode": "inline"}, {"mode": "inline", "inlineBase64": 5}, []]
)
async def test_params_of_the_wrong_shape_are_422(client: Client, params: Any) -> None:
    (await client.post("/v1/commands", a_command(params=params))).refused(422, "INVALID_REQUEST")


@pytest.mark.parametrize("value", [1.5, 0.1, 1e-3, -1, -(10**30), -1.5, "1", True, False, [], {}])
@pytest.mark.parametrize("field", ["maxLeases", "leaseSeconds", "waitSeconds"])
async def test_integers_that_are_none_are_422(client: Client, field: str, value: Any) -> None:
    (await client.post("/v1/commands/leases", a_lease(**{field: value}))).refused(422, "INVALID_REQUEST")


@pytest.mark.parametrize("value", HUGE)
async def test_huge_integers_are_clamped(served: Served, value: int) -> None:
    await served.create(maxAttempts=value)
    (lease,) = await served.lease(maxLeases=value, leaseSeconds=value, waitSeconds=value)
    assert lease["leaseExpiresAt"] == "2026-03-01T22:00:00Z"


async def test_storage_sizes_are_integers(client: Client) -> None:
    for size in (-1, 1.5, "1", True):
        data = a_command(params={"mode": "storage", "size": size})
        (await client.post("/v1/commands", data)).refused(422, "INVALID_REQUEST")


@pytest.mark.parametrize(
    "target", [[], "indexer", {"resourceId": "a"}, {"resourceType": "worker"}, a_target("a", "robot")]
)
async def test_targets_of_the_wrong_shape_are_422(client: Client, target: Any) -> None:
    (await client.post("/v1/commands/leases", a_lease(target=target))).refused(422, "INVALID_REQUEST")


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"status": "maybe"},
        {"status": "success"},
        {"status": "success", "response": {"mode": "inline"}},
        {"status": "error", "code": "A"},
        {"status": "error", "message": "A"},
        {"status": "error", "code": 1, "message": "A"},
        {"status": "error", "code": "A", "message": "A", "details": {"a": 1}},
        [],
    ],
)
async def test_responses_of_the_wrong_shape_are_422_and_change_nothing(served: Served, response: Any) -> None:
    command_id = await served.create()
    await served.lease()
    end = await served.journal.end()
    answer = await served.client.call("PUT", f"/v1/commands/{command_id}/response", response)
    answer.refused(422, "INVALID_REQUEST")
    assert await served.journal.end() == end


@pytest.mark.parametrize("depth", [2_000, 100_000])
async def test_deep_nesting_is_400(client: Client, depth: int) -> None:
    for raw in (b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth):
        for method, path in (
            ("POST", "/v1/commands"),
            ("PUT", "/v1/deployments/dep"),
            ("PUT", "/v1/commands/x/payload"),
        ):
            answer = await client.call(method, path, raw=raw, headers={"Content-Type": "application/json"})
            answer.refused(400, "INVALID_REQUEST")


async def test_nesting_that_can_be_read_is_ignored_where_it_is_unknown(client: Client) -> None:
    deep = json.dumps(a_command())[:-1].encode() + b',"x":' + b"[" * 1_000 + b"]" * 1_000 + b"}"
    (await client.post("/v1/commands", raw=deep, headers={"Content-Type": "application/json"})).ok()


async def test_of_two_fields_with_one_name_the_last_counts(served: Served) -> None:
    raw = json.dumps(a_command())[:-1].encode() + b',"command":"a:b","command":"second"}'
    (await served.client.post("/v1/commands", raw=raw, headers={"Content-Type": "application/json"})).ok()
    (lease,) = await served.lease()
    assert lease["envelope"]["command"] == "second"


@pytest.mark.parametrize("name", ["\0", "a\0b", "\u202e", "\ufffe", "💥" * 256, " ", "/../", "%00", "ﬀ"])
async def test_names_may_hold_any_character(served: Served, name: str) -> None:
    more = {"command": name, "idempotencyKey": name, "deploymentId": name}
    (await served.client.post("/v1/commands", a_command(**more))).ok()
    (lease,) = await served.lease(deploymentId=name)
    assert (lease["envelope"]["command"], lease["envelope"]["deploymentId"]) == (name, name)


@pytest.mark.parametrize(
    "segment",
    ["x" * 100_000, "%00", "%ff%fe", "%", "%zz", "..", "%2e%2e", "a:b", "%F0%9F%92%A5", "a;b", "a b", "*", "("],
)
async def test_ids_of_any_bytes_are_unknown_and_nothing_worse(client: Client, segment: str) -> None:
    for path, code in (
        (f"/v1/commands/{segment}", "COMMAND_NOT_FOUND"),
        (f"/v1/commands/{segment}/events", "COMMAND_NOT_FOUND"),
        (f"/v1/deployments/{segment}", "DEPLOYMENT_NOT_FOUND"),
    ):
        (await client.get(path)).refused(404, code)


@pytest.mark.parametrize(
    "query",
    [
        "&" * 10_000,
        "a=b&" * 10_000,
        "%",
        "%ff=%ff",
        "=",
        "x=" + "y" * 10_000,
    ],
)
async def test_odd_queries_are_ignored(served: Served, query: str) -> None:
    command_id = await served.create()
    (await served.client.get(f"/v1/commands/{command_id}?{query}")).ok()


@pytest.mark.parametrize("value", ["9" * 5_000, "-1", "1.5", "%ff", "1e3", "0x1", "\u0661", "%00", "1_0"])
async def test_numbers_in_queries_are_never_a_5xx(served: Served, value: str) -> None:
    command_id = await served.create()
    answer = await served.client.get(f"/v1/commands/{command_id}?waitSeconds={value}")
    assert answer.status in (200, 400, 422)
    query = f"response_token={'0' * 64}&expires={value}"
    submitted = await served.client.presenting(None).call(
        "PUT", f"/v1/commands/{command_id}/response?{query}", success()
    )
    assert submitted.status in (400, 401)
    path = f"/v1/storage/arc/commands/{command_id}/params?expires={value}&signature={'0' * 64}"
    (await served.client.get(path)).refused(403, "FORBIDDEN")


async def test_no_error_echoes_more_than_a_little(client: Client) -> None:
    long = "x" * 500_000
    for data in (
        a_command(deadline=long),
        a_command(command=long),
        a_command(params={"mode": long}),
        a_command(params={"mode": "inline", "inlineBase64": long + "="}),
        a_command(targetResourceId=long),
        a_command(labels={long: "x"}),
        a_command(**{long: 1, "command": None}),
    ):
        answer = await client.post("/v1/commands", data)
        assert answer.status in (400, 422)
        assert len(answer.body) < 5_000


# --- times


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("2026-03-01T10:05:00Z", "2026-03-01T10:05:00Z"),
        ("2026-03-01T10:05:00.123Z", "2026-03-01T10:05:00.123000Z"),
        ("2026-03-01T12:05:00+02:00", "2026-03-01T10:05:00Z"),
        ("2026-03-01T10:05:00+00:00", "2026-03-01T10:05:00Z"),
        ("2026-03-01T05:35:00.000001-04:30", "2026-03-01T10:05:00.000001Z"),
        ("2026-03-01T10:05:00.123456789Z", "2026-03-01T10:05:00.123456Z"),
        ("2026-03-01T10:05:00.000000999Z", "2026-03-01T10:05:00Z"),
        ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
async def test_times_are_read_with_any_offset_and_written_in_one_form(served: Served, given: str, shown: str) -> None:
    await served.create(deadline=given)
    (lease,) = await served.lease()
    assert lease["envelope"]["deadline"] == shown


@pytest.mark.parametrize(
    "given",
    [
        "2026-03-01T10:05:00",
        "2026-03-01",
        "2026-03-01T10:05Z",
        "2026-02-30T10:05:00Z",
        "2026-03-01T25:05:00Z",
        "2026-03-01T10:05:00+24:00",
        "2026-03-01T10:05:00+00:60",
        "2026-03-01T10:05:00.1234567890Z",
        "2026-03-01T10:05:00.Z",
        "0000-03-01T10:05:00Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "\u0662\u0660\u0662\u0666-03-01T10:05:00Z",
        "tomorrow",
        "",
        "1772359500",
    ],
)
async def test_times_that_cannot_be_read_are_422(client: Client, given: str) -> None:
    (await client.post("/v1/commands", a_command(deadline=given))).refused(422, "INVALID_REQUEST")


@pytest.mark.parametrize("given", ["0001-01-01T00:00:00Z", "0999-12-31T23:59:59Z", "1969-12-31T23:59:59.500000Z"])
async def test_times_long_ago_are_only_past(client: Client, given: str) -> None:
    refused = (await client.post("/v1/commands", a_command(deadline=given))).refused(400, "INVALID_COMMAND")
    assert refused["details"] == given
    (await client.post("/v1/commands", a_command(notBefore=given))).ok()


# --- base64


@pytest.mark.parametrize(
    "raw", [b"", b"\0", b"\xff\xfe\xfd", bytes(range(256)), b"x" * 4096, b"x" * 4097, b"x" * 150_000]
)
async def test_bytes_come_out_as_they_went_in(served: Served, raw: bytes) -> None:
    command_id = await served.create(params=inline(raw))
    (lease,) = await served.lease()
    assert lease["envelope"]["params"] == inline(raw)
    assert (await served.respond(command_id, success(raw))).status == 200
    assert (await served.status(command_id))["response"] == success(raw)


@pytest.mark.parametrize(
    "text", ["a", "ab", "YQ", "YQ=", "YR==", "YWJj\n", "YW Jj", "-_-_", "YQ==YQ==", "====", "é===", "YWI"]
)
async def test_bad_base64_is_400_and_nothing_is_stored(served: Served, text: str) -> None:
    command_id = await served.create()
    await served.lease()
    end = await served.journal.end()
    bad = {"mode": "inline", "inlineBase64": text}
    (await served.client.post("/v1/commands", a_command(params=bad))).refused(400, "INVALID_REQUEST")
    (await served.respond(command_id, {"status": "success", "response": bad})).refused(400, "INVALID_REQUEST")
    assert await served.journal.end() == end


# --- sizes


async def test_a_body_above_two_mebibytes_is_413(served: Served) -> None:
    raw = b'{"a":"' + b"x" * (2 * 1024 * 1024 - 8) + b'"}'
    assert len(raw) == 2_097_152
    json_type = {"Content-Type": "application/json"}
    (await served.client.post("/v1/commands", raw=raw, headers=json_type)).refused(422, "INVALID_REQUEST")
    (await served.client.post("/v1/commands", raw=raw + b" ", headers=json_type)).refused(413, "PAYLOAD_TOO_LARGE")
    lying = {"Content-Length": "5", **json_type}
    (await served.client.post("/v1/commands", raw=raw + b" ", headers=lying)).refused(413, "PAYLOAD_TOO_LARGE")
    nobody = served.client.presenting(None)
    (await nobody.post("/v1/commands", raw=raw + b" ", headers=json_type)).refused(401, "UNAUTHORIZED")
