"""Push tokens: stored sealed, sealed anew when the key has changed, shown to nobody."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from arc_es.codec import decode, encode
from arc_es.domain.deployments import NO_DEPLOYMENT, Redeclare, decide_deployment, evolve_deployment
from arc_es.domain.events import DeclaredTarget, DeploymentDeclared, PushSettings
from arc_es.domain.recorded import SERVICE, Decision, DeploymentKey
from arc_es.journal.memory import MemoryJournal
from arc_es.keyring import KeyRing
from arc_es.ports import Append
from arc_es.signing import OldKey
from tests.http.driver import Served, serving

TOKEN = "a-push-token-that-nobody-may-see"
KEY = DeploymentKey("dep")
OLD, NEW = KeyRing(b"1" * 32), KeyRing(b"2" * 32)
BOTH = KeyRing(NEW.current, (OldKey(OLD.current),))


def pushed(token: str | None = TOKEN) -> dict[str, Any]:
    push = {"url": "http://127.0.0.1:9/commands"} | ({} if token is None else {"token": token})
    return {"resourceId": "w", "resourceType": "worker", "delivery": "push", "push": push}


@asynccontextmanager
async def node(journal: MemoryJournal, keys: KeyRing = NEW) -> AsyncGenerator[Served, None]:
    async with serving(journal, keys=keys, public_url="http://arc.example") as served:
        await trio.testing.wait_all_tasks_blocked()
        yield served


async def stored(journal: MemoryJournal) -> list[Decision]:
    return [decode(message.payload) for message in await journal.history(KEY)]


def settings_of(decision: Decision) -> PushSettings:
    (event,) = decision.events
    assert isinstance(event, DeploymentDeclared)
    push = event.targets[0].push
    assert push is not None
    return push


async def test_a_push_token_is_stored_sealed_and_shown_to_nobody() -> None:
    journal = MemoryJournal()
    async with node(journal) as served:
        answers = [await served.declare(pushed()) for _ in range(2)]
        answers += [await served.client.get("/v1/deployments"), await served.client.get("/v1/deployments/dep")]
        assert all(TOKEN.encode() not in answer.body and b"siv1" not in answer.body for answer in answers)
        (message,) = await journal.history(KEY)  # the second time is the same
        assert TOKEN.encode() not in message.payload
        target = served.node.service.declaration("dep").targets[0]
        assert served.app.api.sealer.token_of("dep", target) == TOKEN
        await served.declare(pushed("another"))
        await served.declare(pushed(None))
        tokens = [settings_of(one).token_sealed for one in await stored(journal)]
        assert [token is None for token in tokens] == [False, False, True]
        assert len({*tokens}) == 3


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "nul\0", "größe", 5, "x" * 8193])
async def test_what_a_header_cannot_carry_is_no_push_token(token: Any) -> None:
    async with node(MemoryJournal()) as served:
        (await served.declare(pushed(token))).refused(422, "INVALID_REQUEST")


async def test_what_the_first_versions_stored_in_clear_is_sealed_at_the_next_start() -> None:
    journal = MemoryJournal()
    push = PushSettings(url="http://127.0.0.1:9/commands", token=TOKEN, timeout_seconds=30)
    target = DeclaredTarget(resource_id="w", resource_type="worker", delivery="push", push=push)
    declared = DeploymentDeclared(model="pull", targets=(target,), max_attempts=3)
    payload = encode(Decision("d" * 32, 1, SERVICE, (declared,)))
    await journal.append([Append(KEY, 0, "d" * 32, payload)])
    for _ in range(2):  # the second start finds nothing to do
        async with node(journal) as served:
            before, after = await stored(journal)
            assert (after.by, settings_of(before)) == (SERVICE, push)
            assert settings_of(after).token is None
            found = served.node.service.declaration("dep")
            assert served.app.api.sealer.token_of("dep", found.targets[0]) == TOKEN
            assert (found.max_attempts, found.targets[0].push and found.targets[0].push.timeout_seconds) == (3, 30)


async def test_a_new_key_seals_anew_and_only_once_on_all_nodes() -> None:
    journal = MemoryJournal()
    async with node(journal, OLD) as served:
        await served.declare(pushed())
        async with node(journal, BOTH) as one, node(journal, BOTH) as other:
            first, second = [settings_of(decision).token_sealed for decision in await stored(journal)]
            assert first != second
            for one_of_them in (one, other):
                target = one_of_them.node.service.declaration("dep").targets[0]
                assert one_of_them.app.api.sealer.token_of("dep", target) == TOKEN
    async with node(journal, NEW):
        assert len(await stored(journal)) == 2


async def test_a_token_whose_key_is_gone_is_reported_and_left(caplog: pytest.LogCaptureFixture) -> None:
    journal = MemoryJournal()
    async with node(journal, OLD) as served:
        await served.declare(pushed())
    with caplog.at_level(logging.WARNING):
        async with node(journal, NEW):
            assert len(await stored(journal)) == 1
    assert "The push token of target 'w' of deployment 'dep' was sealed with a signing key that is gone" in caplog.text


def test_a_declaration_that_was_replaced_meanwhile_is_left_alone() -> None:
    """By an administrator, or by another node that sealed it first."""
    old, sealed, newer = (DeploymentDeclared(model="pull", targets=(), max_attempts=n) for n in (1, 2, 3))
    states = {}
    for event in (old, sealed, newer):
        states[event.max_attempts] = evolve_deployment(evolve_deployment(NO_DEPLOYMENT, old, 0), event, 0)
    assert decide_deployment(Redeclare(old, sealed), states[1]) == (sealed,)
    assert decide_deployment(Redeclare(old, sealed), states[2]) == ()
    assert decide_deployment(Redeclare(old, sealed), states[3]) == ()
    assert decide_deployment(Redeclare(old, old), states[1]) == ()
