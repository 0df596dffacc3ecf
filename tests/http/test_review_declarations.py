"""Declarations too large to be stored are refused, not failed on."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from arc_es.codec import encode
from arc_es.declarations import parse_declaration
from arc_es.domain.limits import TARGETS_PER_DEPLOYMENT_MAX
from arc_es.domain.recorded import SERVICE, Decision
from arc_es.journal.pump import MESSAGE_BYTES_MAX
from tests.http.driver import Client, serving

BODY_BYTES_MAX = 2 * 1024 * 1024


def a_declaration(targets: int, id_chars: int = 1) -> dict[str, Any]:
    """The declaration that grows most when it is stored."""
    push = {"url": "http://"}
    ids = (f"{number}".rjust(id_chars, "x") for number in range(targets))
    return {"model": "push", "targets": [{"resourceId": name, "resourceType": "worker", "push": push} for name in ids]}


async def test_too_many_targets_are_refused() -> None:
    async with serving(public_url="http://arc.example") as served:
        client: Client = served.client
        body = orjson.dumps(a_declaration(TARGETS_PER_DEPLOYMENT_MAX + 1))
        answer = await client.put("/v1/deployments/dep", raw=body, headers={"content-type": "application/json"})
        answer.refused(400, "INVALID_COMMAND")


@pytest.mark.parametrize("id_chars", [5, 142])
def test_what_is_accepted_can_be_stored(id_chars: int) -> None:
    declaration = a_declaration(TARGETS_PER_DEPLOYMENT_MAX, id_chars)
    assert len(orjson.dumps(declaration)) <= BODY_BYTES_MAX
    decision = Decision("d" * 32, 1, SERVICE, (parse_declaration(declaration, lambda target, token: token),))
    assert len(encode(decision)) < MESSAGE_BYTES_MAX - 1_000
