"""Declaring deployments (extensions)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.driver import Client, Served, a_target, serving

FULL: dict[str, Any] = {
    "model": "pull",
    "projectId": "p1",
    "targets": [
        {"resourceId": "indexer", "resourceType": "daemon", "delivery": "pull"},
        {"resourceId": "builder", "resourceType": "worker", "delivery": "pull"},
    ],
    "maxAttempts": 3,
    "retry": {"initialSeconds": 1.5, "maxSeconds": 30.0, "factor": 2.0},
    "idempotencyConflict": "replay",
}


async def test_the_stored_form_comes_back(client: Client) -> None:
    stored = {"deploymentId": "dep", **FULL}
    assert (await client.put("/v1/deployments/dep", FULL)).ok() == stored
    assert (await client.get("/deployments/dep")).ok() == stored
    assert (await client.get("/v1/deployments")).ok() == {"deployments": [stored]}


async def test_defaults(client: Client) -> None:
    assert (await client.put("/v1/deployments/dep", {"targets": [a_target()]})).ok() == {
        "deploymentId": "dep",
        "model": "pull",
        "targets": [{**a_target(), "delivery": "pull"}],
        "maxAttempts": 20,
        "idempotencyConflict": "reject",
    }


async def test_declaring_the_same_again_stores_nothing(served: Served) -> None:
    await served.client.put("/v1/deployments/dep", FULL)
    end = await served.journal.end()
    await served.client.put("/v1/deployments/dep", FULL)
    assert await served.journal.end() == end
    await served.client.put("/v1/deployments/dep", FULL | {"maxAttempts": 4})
    assert (await served.client.get("/v1/deployments/dep")).ok()["maxAttempts"] == 4


async def test_all_in_order_of_name(client: Client) -> None:
    for name in ("b", "a", "ü%20x", "leases"):
        (await client.put(f"/v1/deployments/{name}", {"targets": []})).ok()
    found = (await client.get("/v1/deployments")).ok()["deployments"]
    assert [entry["deploymentId"] for entry in found] == ["a", "b", "leases", "ü x"]


async def test_an_undeclared_one_is_404(served: Served) -> None:
    await served.create(deploymentId="open")
    (await served.client.get("/v1/deployments/open")).refused(404, "DEPLOYMENT_NOT_FOUND")
    (await served.client.get("/v1/deployments/nobody")).refused(404, "DEPLOYMENT_NOT_FOUND")
    assert (await served.client.get("/v1/deployments")).ok() == {"deployments": []}


PUSH = {"url": "https://w.example/run"}


@pytest.mark.parametrize(
    "changes",
    [
        {"targets": None},
        {"targets": {}},
        {"targets": ["indexer"]},
        {"targets": [{"resourceId": "a"}]},
        {"targets": [{"resourceId": "a", "resourceType": "robot"}]},
        {
            "targets": [
                a_target(""),
            ]
        },
        {"targets": [a_target("a"), a_target("a", "worker")]},
        {"targets": [a_target() | {"delivery": "carrier"}]},
        {"targets": [a_target("a", "worker") | {"delivery": "push"}]},
        {"targets": [a_target("a", "container") | {"delivery": "push", "push": PUSH}]},
        {"targets": [a_target("a", "daemon") | {"delivery": "push", "push": PUSH}]},
        {"targets": [a_target("a", "worker") | {"delivery": "push", "push": {}}]},
        {"targets": [a_target("a", "worker") | {"delivery": "push", "push": {"url": "ftp://x"}}]},
        {"targets": [a_target("a", "worker") | {"delivery": "push", "push": PUSH | {"timeoutSeconds": -1}}]},
        {"model": "push", "targets": [a_target("a", "worker")]},
        {"model": "carrier"},
        {"maxAttempts": -1},
        {"maxAttempts": "3"},
        {"maxAttempts": 1.5},
        {"retry": []},
        {"retry": {"initialSeconds": -1}},
        {"retry": {"maxSeconds": "1"}},
        {"retry": {"factor": 0.5}},
        {"retry": {"factor": True}},
        {"retry": {"maxSeconds": 10**300}},
        {"idempotencyConflict": "maybe"},
        {"projectId": 5},
    ],
)
async def test_declarations_of_the_wrong_shape_are_422(served: Served, changes: dict[str, Any]) -> None:
    data = {name: value for name, value in (FULL | changes).items() if value is not None}
    (await served.client.put("/v1/deployments/dep", data)).refused(422, "INVALID_REQUEST")
    assert await served.journal.end() == 0


async def test_a_target_id_with_a_colon_is_refused_with_the_declaration(served: Served) -> None:
    (await served.declare(a_target("a:b"))).refused(400, "COMMAND_TARGET_ID_INVALID")
    (await served.declare(a_target("a" * 1025))).refused(400, "INVALID_COMMAND")
    (await served.client.put("/v1/deployments/" + "a" * 1025, FULL)).refused(400, "INVALID_COMMAND")
    assert await served.journal.end() == 0


async def test_push_needs_the_public_url(served: Served) -> None:
    target = a_target("a", "worker") | {"delivery": "push", "push": PUSH}
    (await served.declare(target)).refused(400, "INVALID_COMMAND")
    assert await served.journal.end() == 0


async def test_push_settings_are_shown_without_their_token() -> None:
    async with serving(public_url="https://arc.example") as served:
        target = a_target("a", "worker") | {"delivery": "push", "push": PUSH | {"token": "hush-hush"}}
        answer = await served.declare(target)
        shown = answer.ok()["targets"][0]
        assert shown["push"] == PUSH | {"timeoutSeconds": 180}
        assert b"hush-hush" not in answer.body + (await served.client.get("/v1/deployments")).body
        assert await served.lease(target=a_target("a", "worker")) == []


@pytest.mark.parametrize(("given", "stored"), [(0, 1), (1, 1), (1000, 1000), (10**30, 1000)])
async def test_attempts_are_clamped(client: Client, given: int, stored: int) -> None:
    assert (await client.put("/v1/deployments/dep", FULL | {"maxAttempts": given})).ok()["maxAttempts"] == stored
