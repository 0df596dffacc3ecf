"""Keys and tokens over the lives of a real service: what was handed out before a change, and what works after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from tests.e2e.http import SUCCESS, Client, create_body, lease_body, submit_path
from tests.e2e.process import ServiceProcess, serving

SECONDS_MAX = 60


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def leased(client: Client) -> dict[str, Any]:
    """The lease of a new command."""
    assert (await client.call("POST", "/v1/commands", create_body("t"))).status == 200
    (lease,) = (await client.call("POST", "/v1/commands/leases", lease_body("t", leaseSeconds=43_200))).json["leases"]
    found: dict[str, Any] = lease
    return found


async def test_a_new_admin_token_spares_urls_and_tokens(tmp_path: Path) -> None:
    """The signing key is made from it, so it changes too (`arc.v1` 2.6)."""
    with trio.fail_after(SECONDS_MAX):
        async with serving(tmp_path / "data", ARC_ADMIN_TOKEN="old-admin") as service:
            async with service.client(**bearer("old-admin")) as client:
                lease = await leased(client)
                minted = (await client.call("POST", "/v1/tokens", {"scope": "receiver"})).json
                revoked = (await client.call("POST", "/v1/tokens", {"scope": "receiver"})).json
                assert (await client.call("DELETE", f"/v1/tokens/{revoked['id']}")).status == 204
            assert await service.terminate() == 0
        again = ServiceProcess(tmp_path / "data", bind=service.bind, ARC_ADMIN_TOKEN="new-admin")
        try:
            await again.start()
            async with again.client() as client:
                for token, wanted in (
                    ("old-admin", 401),
                    ("new-admin", 200),
                    (minted["token"], 200),
                    (revoked["token"], 401),
                ):
                    assert (await client.call("GET", "/v1/queues", **bearer(token))).status == wanted, token
                assert (await client.call("PUT", "/v1" + submit_path(lease), SUCCESS)).status == 200
                status = await client.call("GET", f"/v1/commands/{lease['commandId']}", **bearer(minted["token"]))
                assert status.json["state"] == "SUCCEEDED"
        finally:
            with trio.CancelScope(shield=True):
                await again.kill()


async def test_a_leaked_key_is_dropped_with_the_file_that_remembers_it(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS_MAX):
        async with serving(tmp_path / "data") as service:
            async with service.client() as client:
                lease = await leased(client)
            assert await service.terminate() == 0
            (tmp_path / "data" / "signing-keys.json").unlink()
            (tmp_path / "data" / "signing.key").unlink()
            await service.start()
            async with service.client() as client:
                assert (await client.call("PUT", "/v1" + submit_path(lease), SUCCESS)).status == 401
            assert await service.terminate() == 0
            (tmp_path / "data" / "signing-keys.json").write_text("{")
            await service.spawn()
            assert await service.wait() == 1
            assert "signing-keys.json is damaged" in service.stderr.read_text()
