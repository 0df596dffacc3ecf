"""Secrets stay where they belong: a real service is provoked, then all that it said and wrote is searched for them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trio

from tests.e2e.http import Answer, Client, create_body, lease_body, submit_path
from tests.e2e.process import ServiceProcess, free_port, serving

SECONDS_MAX = 60
ADMIN = "an-admin-token-that-nobody-may-see"
PUSH_TOKEN = "a-push-token-that-nobody-may-see"
WRONG = "a-wrong-token-that-may-be-right-elsewhere"
SETTINGS = {
    "ARC_ADMIN_TOKEN": ADMIN,
    "ARC_SIGNING_KEY": "a-signing-key-that-nobody-may-see-0123456789",
    "ARC_SIGNING_KEYS_PREVIOUS": "an-old-signing-key-that-nobody-may-see-0123",
    "ARC_S3_ACCESS_KEY_ID": "an-s3-key-id-that-nobody-may-see",
    "ARC_S3_SECRET_ACCESS_KEY": "an-s3-secret-that-nobody-may-see",
}
KEY_FILES = {"signing.key", "signing-keys.json"}
"""Where the signing keys themselves may be."""
SCOPES: tuple[dict[str, Any], ...] = (
    {"scope": "admin"},
    {"scope": "sender", "deployments": ["e2e"]},
    {"scope": "receiver", "deployments": ["e2e"]},
    {"scope": "operations", "deployments": ["e2e"], "command": "restart"},
)


class Provoked:
    """A client that remembers what it must find nowhere, and every answer that must not hold any of it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.secrets = {ADMIN, PUSH_TOKEN, WRONG, *SETTINGS.values()}
        self.answers: list[Answer] = []

    async def ask(self, method: str, path: str, data: Any = None, *, token: str = ADMIN, **headers: str) -> Answer:
        """A request whose answer must not hold a secret."""
        answer = await self.told(method, path, data, token=token, **headers)
        self.answers.append(answer)
        return answer

    async def told(self, method: str, path: str, data: Any = None, *, token: str = ADMIN, **headers: str) -> Answer:
        """A request whose answer hands something out: what that is must be nowhere else."""
        sent = {"Authorization": f"Bearer {token}", **headers}
        answer = await self._client.call(method, path, data, **sent)
        assert answer.status < 500 or answer.json["code"] != "GENERIC_ERROR", answer.body
        self.secrets |= {found.decode() for found in re.findall(rb"arc_[0-9a-f]+_([0-9a-f]{64})", answer.body)}
        self.secrets |= set(signatures(answer.json))
        return answer


def signatures(value: Any) -> Iterator[str]:
    """All signatures in URLs of an answer."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from signatures(item)
    elif isinstance(value, str) and "?" in value:
        query = parse_qs(urlsplit(value).query)
        yield from query.get("signature", []) + query.get("response_token", [])


async def test_no_secret_is_said_or_written_where_it_does_not_belong(tmp_path: Path) -> None:
    bind = f"127.0.0.1:{free_port()}"
    options = ("--public-url", f"http://{bind}", "--log-level", "DEBUG")
    with trio.fail_after(SECONDS_MAX):
        async with serving(tmp_path / "data", *options, bind=bind, **SETTINGS) as service:
            async with service.client() as client:
                provoked = Provoked(client)
                await use(provoked)
                await abuse(provoked)
            assert await service.terminate() == 0
            check(service, provoked)


async def use(provoked: Provoked) -> None:
    """A day in the life: tokens, a push that fails, a large upload, an answer, a cut lease, histories."""
    for request in SCOPES:
        minted = (await provoked.told("POST", "/v1/tokens", request)).json
        await provoked.ask("GET", "/v1/queues", token=minted["token"])
        await provoked.told(
            "POST", "/v1/commands/bootstrap", {"deploymentId": "e2e", "role": "sender"}, token=minted["token"]
        )
        await provoked.ask("DELETE", f"/v1/tokens/{minted['token']}")
        await provoked.ask("DELETE", f"/v1/tokens/{minted['id']}")
        await provoked.ask("GET", "/v1/queues", token=minted["token"])
    await provoked.ask("GET", "/v1/tokens")
    push = {"url": "http://127.0.0.1:1/commands", "token": PUSH_TOKEN}
    worker = {"resourceId": "w", "resourceType": "worker", "delivery": "push", "push": push}
    declared = await provoked.ask("PUT", "/v1/deployments/pushed", {"targets": [worker]})
    assert declared.status == 200, declared.body
    pushed = (await provoked.ask("POST", "/v1/commands", create_body("w", deploymentId="pushed"))).json
    await provoked.ask("GET", f"/v1/commands/{pushed['commandId']}/events")
    await provoked.ask("GET", "/v1/deployments/pushed")
    uploading = await provoked.told("POST", "/v1/commands", create_body("t", params={"mode": "storage", "size": 3}))
    upload = urlsplit(uploading.json["storageUpload"]["putRequest"]["backend"]["url"])
    await provoked.ask("PUT", f"{upload.path}?{upload.query}", {})
    await provoked.ask("POST", f"/v1/commands/{uploading.json['commandId']}/upload-complete", {"size": 2})
    leased = await provoked.told("POST", "/v1/commands/leases", lease_body("t"))
    (lease,) = leased.json["leases"]
    path = "/v1" + submit_path(lease)
    success = {"status": "success", "response": {"mode": "inline", "inlineBase64": "e30="}}
    await provoked.ask("PUT", path, {"status": 5}, token=WRONG)
    await provoked.ask("PUT", path, success, token=WRONG)
    await provoked.ask("PUT", path, success, token=WRONG)
    await provoked.ask("GET", f"/v1/commands/{lease['commandId']}/events")
    await provoked.ask("GET", f"/v1/commands/{lease['commandId']}")


async def abuse(provoked: Provoked) -> None:
    """Bad tokens, bad signatures, bad JSON, unknown paths: each refused."""
    basic = base64.b64encode(f"{WRONG}:{WRONG}".encode()).decode()
    provoked.secrets.add(basic)
    for header in (f"Bearer {WRONG}", f"Basic {basic}", f"Token {WRONG}", WRONG, f"Bearer arc_{WRONG}"):
        for path in ("/v1/queues", f"/v1/queues?token={WRONG}", f"/v1/commands/cmd_1?access_token={WRONG}"):
            assert (await provoked.ask("GET", path, Authorization=header)).status == 401
    forged = "f0" * 32
    provoked.secrets.add(forged)
    for path, status in (
        (f"/v1/commands/cmd_1/response?response_token={forged}&expires=1800000000", 401),
        (f"/v1/commands/cmd_1/response?response_token={forged}&expires=x", 400),
        (f"/v1/storage/arc/commands/cmd_1/params?signature={forged}&expires=1800000000", 403),
    ):
        assert (await provoked.ask("PUT", path, {}, token=WRONG)).status == status
    sender = {"scope": "sender"}
    bad_tokens: list[Any] = [[], {"scope": WRONG}, sender | {"deployments": WRONG}, sender | {"ttlSeconds": WRONG}]
    for request in bad_tokens:
        assert (await provoked.ask("POST", "/v1/tokens", request)).status == 422
    for push in bad_pushes():
        declaration = {"targets": [{"resourceId": "w", "resourceType": "worker", "push": push}]}
        assert (await provoked.ask("PUT", "/v1/deployments/bad", declaration)).status == 422
    assert (await provoked.ask("POST", "/v1/commands", {}, **{"Content-Type": "text/plain"})).status == 415
    assert (await provoked.ask("GET", f"/v1/nothing/{WRONG}")).status == 404
    assert (await provoked.ask("PATCH", f"/v1/tokens/{WRONG}")).status == 405


def bad_pushes() -> Iterator[dict[str, Any]]:
    yield {"token": PUSH_TOKEN}
    yield {"url": "ftp://a", "token": PUSH_TOKEN}
    yield {"url": "http://a", "token": [PUSH_TOKEN]}
    yield {"url": "http://a", "token": f"{PUSH_TOKEN}\n"}
    yield {"url": "http://a", "token": PUSH_TOKEN, "timeoutSeconds": "x"}


def check(service: ServiceProcess, provoked: Provoked) -> None:
    """Console, log files, the stream on disk, every answer: none of the secrets is in any of them."""
    assert len(provoked.secrets) > 15
    written = {path.name: path.read_bytes() for path in service.data_dir.rglob("*") if path.is_file()}
    assert any(b"CommandSucceeded" in content for content in written.values()), "the stream is among them"
    assert "DEBUG" in service.stderr.read_text()
    written |= {path.name: path.read_bytes() for path in (service.stdout, service.stderr)}
    for secret in provoked.secrets:
        forms = (secret.encode(), secret.encode().hex().encode())
        found = {name for name, content in written.items() if any(form in content for form in forms)}
        assert found <= (KEY_FILES if "signing-key" in secret else set()), f"{secret} is in {found}"
        assert not [answer for answer in provoked.answers if secret.encode() in answer.body], secret
