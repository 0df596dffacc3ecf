"""Own URLs, relative and absolute, byte by byte (`arc.v1` 1.8, 4.7), and their signatures."""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin

import pytest

from arc_es.signing import Signer, key_from_admin_token
from tests.http.driver import ADMIN, Client, Served, a_command, a_lease, serving

EXPIRES = 1_772_366_400
SIGNER = Signer(key_from_admin_token(ADMIN))


def submit_query(command_id: str) -> str:
    return f"response_token={SIGNER.response_token(command_id, EXPIRES)}&expires={EXPIRES}"


def storage_query(command_id: str) -> str:
    path = f"arc/commands/{command_id}/response"
    return f"expires={EXPIRES}&signature={SIGNER.storage_signature('PUT', path, EXPIRES)}"


async def handling(client: Client, path: str, **more: Any) -> tuple[str, str, str]:
    command_id = (await client.post("/v1/commands", a_command())).ok()["commandId"]
    (lease,) = (await client.post(path, a_lease(**more))).ok()["leases"]
    found = lease["envelope"]["responseHandling"]
    return command_id, found["submitResponseUrl"], found["storageUploadRequest"]["backend"]["url"]


@pytest.mark.parametrize("path", ["/v1/commands/leases", "/commands/leases", "//v1//commands/leases?token=x"])
async def test_with_a_target_urls_are_relative(client: Client, path: str) -> None:
    command_id, submit, upload = await handling(client, path)
    assert submit == f"{command_id}/response?{submit_query(command_id)}"
    assert upload == f"../storage/arc/commands/{command_id}/response?{storage_query(command_id)}"
    prefix = "/v1" if "v1" in path else ""
    posted = f"https://proxy.example/deep/prefix{prefix}/commands/leases"
    assert urljoin(posted, submit).startswith(
        f"https://proxy.example/deep/prefix{prefix}/commands/{command_id}/response?"
    )
    assert urljoin(posted, upload).startswith(f"https://proxy.example/deep/prefix{prefix}/storage/arc/commands/")


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v1/commands/leases", False),
        ("/v1//commands/leases", False),
        ("/commands/leases", False),
        ("/v1/commands/leases/", True),
        ("/commands/leases/", True),
        ("/v1/commands/leases//", True),
        ("/v1/commands/leases/?token=x", True),
    ],
)
async def test_without_a_target_or_after_a_slash_urls_are_absolute(client: Client, path: str, *, target: bool) -> None:
    more = {} if target else {"target": None}
    command_id, submit, upload = await handling(client, path, **more)
    base = "http://arc.example/v1" if path.startswith("/v1") else "http://arc.example"
    assert submit == f"{base}/commands/{command_id}/response?{submit_query(command_id)}"
    assert upload == f"{base}/storage/arc/commands/{command_id}/response?{storage_query(command_id)}"


@pytest.mark.parametrize("public", ["https://public.example/arc", "https://public.example/arc/"])
async def test_the_public_url_wins(public: str) -> None:
    async with serving(public_url=public) as served:
        forged = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "gopher"}
        await served.create()
        answer = await served.client.post("/v1/commands/leases", a_lease(target=None), headers=forged)
        (lease,) = answer.ok()["leases"]
        submit = lease["envelope"]["responseHandling"]["submitResponseUrl"]
        assert submit.startswith(f"https://public.example/arc/commands/{lease['commandId']}/response?")


async def test_forwarded_headers_do_not_count(client: Client) -> None:
    await client.post("/v1/commands", a_command())
    forged = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "gopher", "Forwarded": "host=evil.example"}
    answer = await client.post("/v1/commands/leases", a_lease(target=None), headers=forged)
    assert b"evil" not in answer.body
    assert b"gopher" not in answer.body


async def test_backends_are_http_with_empty_headers(served: Served) -> None:
    await served.create()
    (lease,) = await served.lease()
    backend = lease["envelope"]["responseHandling"]["storageUploadRequest"]["backend"]
    assert (backend["type"], backend["method"], backend["headers"]) == ("http", "PUT", {})


async def test_each_envelope_of_a_lease_has_urls_of_its_own(served: Served) -> None:
    await served.create()
    await served.create()
    one, other = await served.lease(maxLeases=2)
    for lease in (one, other):
        submit = lease["envelope"]["responseHandling"]["submitResponseUrl"]
        assert submit == f"{lease['commandId']}/response?{submit_query(lease['commandId'])}"


@pytest.mark.parametrize("kind", ["params", "response"])
@pytest.mark.parametrize("upper", [False, True])
async def test_a_signed_storage_url_is_good_for_its_method_and_object_only(
    client: Client, kind: str, *, upper: bool
) -> None:
    signature = SIGNER.storage_signature("GET", f"arc/commands/cmd_1/{kind}", EXPIRES)
    query = f"expires={EXPIRES}&signature={signature.upper() if upper else signature}"
    nobody = client.presenting(None)
    for prefix in ("", "/v1"):
        found = await nobody.get(f"{prefix}/storage/arc/commands/cmd_1/{kind}?{query}")
        assert found.status != 403
    other = "response" if kind == "params" else "params"
    for method, path in (("PUT", f"cmd_1/{kind}"), ("GET", f"cmd_1/{other}"), ("GET", f"cmd_2/{kind}")):
        answer = await nobody.call(method, f"/v1/storage/arc/commands/{path}?{query}")
        answer.refused(403, "FORBIDDEN")


async def test_a_signed_storage_url_ends(served: Served) -> None:
    signature = SIGNER.storage_signature("GET", "arc/commands/cmd_1/params", EXPIRES)
    path = f"/v1/storage/arc/commands/cmd_1/params?expires={EXPIRES}&signature={signature}"
    served.clock.advance(7200)
    assert (await served.client.get(path)).status != 403
    served.clock.advance(0.000001)
    (await served.client.get(path)).refused(403, "FORBIDDEN")
