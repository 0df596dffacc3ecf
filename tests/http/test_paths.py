"""Paths and methods (`arc.v1` 1.1, 1.6)."""

from __future__ import annotations

import pytest

from tests.http.driver import Client, Served, a_command, a_lease


@pytest.mark.parametrize(
    "path", ["/commands", "/v1/commands", "//v1///commands", "/v1/commands/", "/v1//commands//", "/v1/commands?token=x"]
)
async def test_every_form_of_a_path_is_routed_without_redirect(client: Client, path: str) -> None:
    (await client.post(path, a_command())).ok()


@pytest.mark.parametrize("path", ["/v1//commands/leases", "/commands/leases/", "/v1/commands/leases?token=x&y"])
async def test_the_lease_path_is_cleaned_too(client: Client, path: str) -> None:
    assert (await client.post(path, a_lease())).ok() == {"leases": []}


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/nothing", "/v1/commands/a/b/c", "/v2/commands", "/v1/v1/commands", "/storage/x"]
)
async def test_an_unknown_path_is_404_json(client: Client, path: str) -> None:
    (await client.get(path)).refused(404, "ROUTE_NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/commands/leases", {"POST"}),
        ("PUT", "/v1/commands/leases", {"POST"}),
        ("GET", "/v1//commands//leases/", {"POST"}),
        ("GET", "/v1/commands/bootstrap", {"POST"}),
        ("DELETE", "/v1/commands", {"GET", "POST"}),
        ("DELETE", "/v1/commands/cmd_1", {"GET"}),
        ("POST", "/v1/commands/cmd_1/response", {"PUT"}),
        ("GET", "/v1/commands/leases/lease_1/release", {"POST"}),
        ("POST", "/v1/commands/cmd_1/payload", {"GET", "PUT"}),
        ("POST", "/health", {"GET"}),
        ("OPTIONS", "/v1/commands", {"GET", "POST"}),
        ("OPTIONS", "/v1/commands/leases/lease_1/release", {"POST"}),
        ("DELETE", "/v1/storage/arc/commands/cmd_1/params", {"GET", "PUT"}),
    ],
)
async def test_a_wrong_method_is_405_with_allow(client: Client, method: str, path: str, allowed: set[str]) -> None:
    answer = await client.call(method, path)
    answer.refused(405, "METHOD_NOT_ALLOWED")
    assert allowed == set(answer.headers["allow"].split(", ")) - {"HEAD"}


async def test_segments_are_percent_decoded_once(served: Served) -> None:
    await served.create()
    (lease,) = await served.lease()
    encoded = lease["leaseId"].replace("_", "%5F").replace("-", "%2D")
    assert (await served.release(encoded)).status == 200
    (await served.client.get("/v1/commands/cmd%255F1")).refused(404, "COMMAND_NOT_FOUND")


async def test_an_own_bug_is_a_generic_error_without_details(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("secret inside")

    command_id = await served.create()
    served.node.service.status = broken  # type: ignore[method-assign,assignment]
    caplog.set_level("CRITICAL", logger="arc_es.http")
    answer = await served.client.get(f"/v1/commands/{command_id}")
    assert answer.refused(500, "GENERIC_ERROR") == {
        "code": "GENERIC_ERROR",
        "message": "Internal server error",
        "retryable": True,
    }
