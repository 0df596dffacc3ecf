"""Discovery (`arc.v1` 2.9) and the reserved payload PUT (2.8)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.driver import ADMIN, Served, a_target, serving

SENDER = {"deploymentId": "dep", "role": "sender"}


def receiver(target: Any) -> dict[str, Any]:
    return {"deploymentId": "dep", "role": "receiver", "target": target}


@pytest.mark.parametrize("path", ["/v1/commands/bootstrap", "/commands/bootstrap"])
async def test_a_sender(served: Served, path: str) -> None:
    assert (await served.client.post(path, SENDER)).ok() == {
        "managerUrl": "http://arc.example",
        "token": ADMIN,
        "expiresAt": "2026-03-01T11:00:00Z",
    }


async def test_a_sender_never_has_a_target(served: Served) -> None:
    assert "target" not in (await served.client.post("/v1/commands/bootstrap", SENDER | {"target": "x"})).ok()


@pytest.mark.parametrize("public", ["https://arc.example/x", "https://arc.example/x/v1", "https://arc.example/x/v1/"])
async def test_the_manager_url_is_the_public_one_without_v1(public: str) -> None:
    async with serving(public_url=public) as served:
        answer = (await served.client.post("/v1/commands/bootstrap", SENDER)).ok()
        assert answer["managerUrl"] == "https://arc.example/x"


@pytest.mark.parametrize(("token", "shown"), [(None, "open"), ("mine", "mine")])
async def test_the_token_of_an_open_service(open_served: Served, token: str | None, shown: str) -> None:
    answer = await open_served.client.presenting(token).post("/v1/commands/bootstrap", SENDER)
    assert answer.ok()["token"] == shown


async def test_a_receiver_of_an_open_deployment(served: Served) -> None:
    await served.lease(target=a_target("known", "container"))
    await served.lease(target=a_target("pushed", "worker"))
    await served.create(targetResourceId="untyped")
    expected = {"known": "container", "untyped": "daemon", "unknown": "daemon", "operator": "daemon"}
    for name, kind in expected.items():
        answer = (await served.client.post("/v1/commands/bootstrap", receiver(name))).ok()
        assert answer["target"] == a_target(name, kind)
    answer = await served.client.post("/v1/commands/bootstrap", receiver("pushed"))
    answer.refused(404, "COMMAND_TARGET_NOT_FOUND")


async def test_a_receiver_of_a_declared_deployment(served: Served) -> None:
    await served.declare(a_target("one", "container"), a_target("two", "daemon"), a_target("three", "worker"))
    for name, kind in (("one", "container"), ("two", "daemon")):
        answer = (await served.client.post("/v1/commands/bootstrap", receiver(name))).ok()
        assert answer["target"] == a_target(name, kind)
    for name in ("three", "four", ""):
        answer = await served.client.post("/v1/commands/bootstrap", receiver(name))
        answer.refused(404, "COMMAND_TARGET_NOT_FOUND")


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"role": "sender"},
        {"deploymentId": "dep"},
        {"deploymentId": "dep", "role": "boss"},
        {"deploymentId": "dep", "role": "receiver"},
        {"deploymentId": 5, "role": "sender"},
        receiver(5),
    ],
)
async def test_requests_of_the_wrong_shape_are_422(served: Served, data: Any) -> None:
    (await served.client.post("/v1/commands/bootstrap", data)).refused(422, "INVALID_REQUEST")
