"""Who may do what, and in which order that is checked (`arc.v1` 1.7)."""

from __future__ import annotations

import base64

import pytest

from tests.http.driver import ADMIN, Client, Served, a_command, a_lease, a_target

ENDPOINTS = [
    ("POST", "/v1/commands"),
    ("GET", "/v1/commands/cmd_1"),
    ("POST", "/v1/commands/cmd_1/upload-complete"),
    ("POST", "/v1/commands/leases"),
    ("POST", "/v1/commands/leases/lease_1/release"),
    ("PUT", "/v1/commands/cmd_1/response"),
    ("GET", "/v1/commands/cmd_1/payload"),
    ("PUT", "/v1/commands/cmd_1/payload"),
    ("POST", "/v1/commands/bootstrap"),
    ("GET", "/v1/commands/cmd_1/events"),
    ("GET", "/v1/queues"),
    ("GET", "/v1/deployments"),
    ("PUT", "/v1/deployments/dep"),
    ("GET", "/v1/deployments/dep"),
    ("POST", "/v1/tokens"),
    ("GET", "/v1/tokens"),
    ("DELETE", "/v1/tokens/0123"),
]


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
@pytest.mark.parametrize("header", ["", "Bearer wrong", "Bearer ", "Digest x", f"Token {ADMIN}", ADMIN])
async def test_without_a_known_token_everything_is_401(client: Client, method: str, path: str, header: str) -> None:
    answer = await client.call(method, path, raw=b"not even JSON", headers={"Authorization": header})
    answer.refused(401, "UNAUTHORIZED")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert ADMIN not in answer.body.decode()


@pytest.mark.parametrize(
    "header",
    [
        f"Bearer {ADMIN}",
        f"bearer {ADMIN}",
        f"BEARER  {ADMIN} ",
        basic("", ADMIN),
        basic("anybody", ADMIN).replace("B", "b", 1),
    ],
)
async def test_the_forms_of_a_token(client: Client, header: str) -> None:
    (await client.post("/v1/commands/leases", a_lease(), headers={"Authorization": header})).ok()


@pytest.mark.parametrize(
    "header",
    [basic("u", "wrong"), basic(ADMIN, ""), "Basic !!!", "Basic " + base64.b64encode(b"\xff\xfe").decode(), "Basic"],
)
async def test_bad_basic_credentials_are_401(client: Client, header: str) -> None:
    answer = await client.post("/v1/commands/leases", a_lease(), headers={"Authorization": header})
    answer.refused(401, "UNAUTHORIZED")


async def test_tokens_of_any_characters_are_compared(client: Client) -> None:
    answer = await client.post("/v1/commands/leases", a_lease(), headers={"Authorization": "Bearer \xe9\xff"})
    answer.refused(401, "UNAUTHORIZED")


@pytest.mark.parametrize("token", [None, "anything"])
async def test_an_open_service_takes_everybody(open_served: Served, token: str | None) -> None:
    client = open_served.client.presenting(token)
    created = (await client.post("/v1/commands", a_command(targetResourceId="operator"))).ok()
    asked = a_lease(target=a_target("operator", "daemon"))
    (lease,) = (await client.post("/v1/commands/leases", asked)).ok()["leases"]
    assert lease["commandId"] == created["commandId"]
    (await client.get(f"/v1/commands/{lease['commandId']}/payload")).ok()


async def test_admin_may_not_create_for_the_operator(served: Served) -> None:
    answer = await served.client.post("/v1/commands", a_command(targetResourceId="operator"))
    answer.refused(403, "FORBIDDEN")
    assert await served.journal.end() == 0


async def test_the_shape_is_checked_before_the_rights_and_the_values_after(client: Client) -> None:
    """`arc.v1` 1.7: decode (3), rights on the target (5), everything else (6)."""
    misshapen = a_command(targetResourceId="operator", deadline=5)
    (await client.post("/v1/commands", misshapen)).refused(422, "INVALID_REQUEST")
    empty = a_command(targetResourceId="operator", command="")
    (await client.post("/v1/commands", empty)).refused(403, "FORBIDDEN")


async def test_a_body_is_decoded_before_the_command_is_looked_up(client: Client) -> None:
    (await client.put("/v1/commands/cmd_1/response", {"status": "maybe"})).refused(422, "INVALID_REQUEST")
    (await client.post("/v1/commands/cmd_1/upload-complete", {"size": -1})).refused(422, "INVALID_REQUEST")
    (await client.post("/v1/commands/cmd_1/upload-complete", {"size": 1})).refused(404, "COMMAND_NOT_FOUND")
    (await client.get("/v1/commands/cmd_1?waitSeconds=x")).refused(422, "INVALID_REQUEST")


async def test_admin_leases_and_reads_what_is_for_the_operator(open_served: Served) -> None:
    command_id = await open_served.create(targetResourceId="operator")
    (lease,) = await open_served.lease(target=a_target("operator", "daemon"))
    assert lease["envelope"]["target"] == a_target("operator", "daemon")
    assert (await open_served.status(command_id))["target"] == a_target("operator", "daemon")
    assert await open_served.lease(target=a_target("operator", "worker")) == []


@pytest.mark.parametrize("kind", ["params", "response"])
@pytest.mark.parametrize(
    "query", ["", "?expires=x&signature=ab", "?expires=1800000000", "?expires=1800000000&signature=00"]
)
async def test_storage_takes_only_its_signature(client: Client, kind: str, query: str) -> None:
    for method in ("GET", "PUT"):
        answer = await client.call(method, f"/v1/storage/arc/commands/cmd_1/{kind}{query}")
        answer.refused(403, "FORBIDDEN")
