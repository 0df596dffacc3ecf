"""`arc-es token`: what is asked of the service, and what is printed where."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Arc
from tests.cli.fake import Answer, FakeService, problem

MADE = {"token": "arc_0_secret", "id": "4bf92f", "expiresAt": "2026-03-01T10:00:00Z"}
ENTRY = {
    "id": "4bf92f",
    "scope": "receiver",
    "deployments": ["shop"],
    "targets": [{"resourceId": "indexer", "resourceType": "daemon"}],
    "createdAt": "2026-02-01T10:00:00Z",
}


def test_create_prints_the_token_alone_and_the_rest_beside_it(arc: Arc, fake: FakeService) -> None:
    fake.on("POST /v1/tokens", Answer(201, MADE))
    options = (
        "--deployment",
        "shop",
        "--target",
        "indexer",
        "--target",
        "mailer:container",
        "--ttl",
        "2d",
        "--name",
        "n",
    )
    done = arc("token", "create", "receiver", *options, ARC_URL=fake.url, ARC_TOKEN="t")
    assert (done.returncode, done.stdout) == (0, b"arc_0_secret\n")
    assert b"4bf92f is good until 2026-03-01T10:00:00Z" in done.stderr
    assert b"secret" not in done.stderr
    asked = fake.requests[-1].json()
    assert asked == {
        "scope": "receiver",
        "deployments": ["shop"],
        "targets": [
            {"resourceId": "indexer", "resourceType": "daemon"},
            {"resourceId": "mailer", "resourceType": "container"},
        ],
        "command": None,
        "ttlSeconds": 172_800,
        "name": "n",
    }


def test_a_plain_create_asks_for_everything_for_ever(arc: Arc, fake: FakeService) -> None:
    fake.on("POST /v1/tokens", Answer(201, {"token": "arc_0_secret", "id": "4bf92f"}))
    done = arc("token", "create", "auditor", "--json", ARC_URL=fake.url)
    assert json.loads(done.stdout) == {"token": "arc_0_secret", "id": "4bf92f"}
    asked = fake.requests[-1].json()
    assert {name: value for name, value in asked.items() if value is not None} == {"scope": "auditor"}


def test_list(arc: Arc, fake: FakeService) -> None:
    operations = {"id": "77aa", "scope": "operations", "deployments": ["a"], "command": "restart", "createdAt": "x"}
    fake.on("GET /v1/tokens", Answer(200, {"tokens": [ENTRY, operations]}))
    lines = arc("token", "list", ARC_URL=fake.url).stdout.decode().splitlines()
    assert lines[0].split() == ["id", "scope", "deployments", "limits", "name", "created", "expires"]
    assert lines[1].split() == ["4bf92f", "receiver", "shop", "indexer:daemon", "2026-02-01T10:00:00Z", "never"]
    assert lines[2].split() == ["77aa", "operations", "a", "restart", "x", "never"]
    assert json.loads(arc("token", "list", "--json", ARC_URL=fake.url).stdout) == {"tokens": [ENTRY, operations]}


def test_revoke(arc: Arc, fake: FakeService) -> None:
    fake.on("DELETE /v1/tokens/4bf92f", Answer(204))
    assert arc("token", "revoke", "4bf92f", ARC_URL=fake.url).returncode == 0
    fake.on("DELETE /v1/tokens/x", problem(404, "TOKEN_NOT_FOUND", retryable=False))
    done = arc("token", "revoke", "x", ARC_URL=fake.url)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"TOKEN_NOT_FOUND" in done.stderr


@pytest.mark.parametrize("ttl", ["x", "0s", "5", "1y", "-1d"])
def test_a_wrong_duration_is_wrong_usage(arc: Arc, fake: FakeService, ttl: str) -> None:
    done = arc("token", "create", "sender", f"--ttl={ttl}", ARC_URL=fake.url)
    assert done.returncode == 2
    assert fake.requests == []
