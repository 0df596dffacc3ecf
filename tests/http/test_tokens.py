"""Minting, using and revoking access tokens (extensions, "Tokens" and "Fine print")."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Any

import orjson
import pytest
import trio

from arc_es.codec import redacted
from arc_es.domain.limits import SECOND, TOKEN_LOOK_SECONDS
from arc_es.domain.recorded import TokenKey
from arc_es.journal.memory import MemoryJournal
from arc_es.ports import JournalUnavailable
from tests.http.driver import ADMIN, Client, Served, a_command, a_lease, a_target, serving

TOKEN = re.compile(r"arc_([0-9a-f]{20})_([0-9a-f]{64})")
UNKNOWN = f"arc_{'0' * 20}_{'0' * 64}"
OPERATIONS = {"scope": "operations", "deployments": ["dep"], "command": "restart"}


async def mint(client: Client, **request: Any) -> Any:
    answer = await client.post("/v1/tokens", {"scope": "sender"} | request)
    assert answer.status == 201, answer.body
    return answer.json


async def listed(client: Client) -> list[Any]:
    found: list[Any] = (await client.get("/v1/tokens")).ok()["tokens"]
    return found


async def test_what_is_wrong_with_a_request_is_told_before_the_want_of_room() -> None:
    async with serving(MemoryJournal(bytes_max=100_000, headroom_bytes=200_000)) as served:
        (await served.client.post("/v1/tokens", {"scope": "king"})).refused(422, "INVALID_REQUEST")
        (await served.client.post("/v1/tokens", {"scope": "sender"})).refused(507, "JOURNAL_FULL")


async def test_a_token_is_shown_once_and_never_stored(served: Served) -> None:
    answer = await served.client.post("/v1/tokens", {"scope": "sender", "deployments": ["dep"], "name": "shop"})
    assert (answer.status, answer.headers["cache-control"]) == (201, "no-store")
    minted = answer.json
    assert set(minted) == {"token", "id"}
    found = TOKEN.fullmatch(minted["token"])
    assert found is not None
    token_id, secret = found.groups()
    assert token_id == minted["id"]
    (message,) = await served.journal.history(TokenKey(token_id))
    assert secret.encode() not in message.payload
    (event,) = orjson.loads(redacted(message.payload))["events"]
    digest = hashlib.sha256(secret.encode()).hexdigest()
    assert event == {
        "type": "TokenCreated",
        "scope": "sender",
        "sha256": digest,
        "deployments": ["dep"],
        "name": "shop",
    }
    again = await served.client.get("/v1/tokens")
    assert secret not in again.body.decode()
    assert digest not in again.body.decode()
    (await served.client.presenting(minted["token"]).post("/v1/commands", a_command())).ok()


async def test_the_list_of_tokens(served: Served) -> None:
    client = served.client
    wanted: list[dict[str, Any]] = [
        {"scope": "admin", "name": "night shift"},
        {"scope": "receiver", "deployments": ["b", "a"], "targets": [a_target()], "ttlSeconds": 60},
        OPERATIONS,
    ]
    ids = [(await mint(client, **request))["id"] for request in wanted]
    now = {"createdAt": "2026-03-01T10:00:00Z"}
    assert await listed(client) == [
        {"id": ids[0], "scope": "admin", "name": "night shift", **now},
        {
            "id": ids[1],
            "scope": "receiver",
            "deployments": ["a", "b"],
            "targets": [a_target()],
            **now,
            "expiresAt": "2026-03-01T10:01:00Z",
        },
        {"id": ids[2], **OPERATIONS, **now},
    ]


async def test_revoking(served: Served) -> None:
    client = served.client
    minted, other = await mint(client), await mint(client)
    user = client.presenting(minted["token"])
    (await user.get("/v1/queues")).ok()
    for _ in range(2):  # the second time nothing changes
        answer = await client.call("DELETE", f"/v1/tokens/{minted['id']}")
        assert (answer.status, answer.body) == (204, b"")
        (await user.get("/v1/queues")).refused(401, "UNAUTHORIZED")
    assert len(await served.journal.history(TokenKey(minted["id"]))) == 2
    assert [one["id"] for one in await listed(client)] == [other["id"]]
    (await client.presenting(other["token"]).get("/v1/queues")).ok()
    (await client.call("DELETE", "/v1/tokens/unknown")).refused(404, "TOKEN_NOT_FOUND")


async def test_a_token_ends_by_the_clock_of_the_service(served: Served) -> None:
    minted = await mint(served.client, ttlSeconds=60)
    assert minted["expiresAt"] == "2026-03-01T10:01:00Z"
    user = served.client.presenting(minted["token"])
    served.clock.at += 60 * SECOND - 1
    (await user.get("/v1/queues")).ok()
    served.clock.at += 1
    (await user.get("/v1/queues")).refused(401, "UNAUTHORIZED")
    assert (await listed(served.client))[0]["expiresAt"] == "2026-03-01T10:01:00Z"
    assert (await served.client.call("DELETE", f"/v1/tokens/{minted['id']}")).status == 204


async def test_an_admin_token_that_was_minted_does_everything_but_for_the_operator(served: Served) -> None:
    minted = await mint(served.client, scope="admin")
    admin = served.client.presenting(minted["token"])
    await mint(admin, scope="sender")
    (await admin.post("/v1/commands", a_command(targetResourceId="operator"))).refused(403, "FORBIDDEN")
    (event,) = [
        orjson.loads(redacted(one.payload))
        for one in await served.journal.history(TokenKey((await listed(admin))[-1]["id"]))
    ]
    assert (event["by"]["id"], event["by"]["kind"]) == (minted["id"], "admin")


@pytest.mark.parametrize(
    "request_",
    [
        [],
        {},
        {"scope": None},
        {"scope": "open"},
        {"scope": "Sender"},
        {"scope": 5},
        {"scope": "sender", "deployments": "dep"},
        {"scope": "sender", "deployments": []},
        {"scope": "sender", "deployments": [""]},
        {"scope": "sender", "deployments": [None]},
        {"scope": "sender", "deployments": ["d"] * 201},
        {"scope": "sender", "targets": [a_target()]},
        {"scope": "auditor", "targets": [a_target()]},
        {"scope": "admin", "deployments": ["dep"]},
        {"scope": "receiver", "targets": []},
        {"scope": "receiver", "targets": a_target()},
        {"scope": "receiver", "targets": ["indexer"]},
        {"scope": "receiver", "targets": [{"resourceId": "indexer"}]},
        {"scope": "receiver", "targets": [a_target("indexer", "robot")]},
        {"scope": "receiver", "targets": [a_target("")]},
        {"scope": "sender", "ttlSeconds": 0},
        {"scope": "sender", "ttlSeconds": -1},
        {"scope": "sender", "ttlSeconds": 1.5},
        {"scope": "sender", "ttlSeconds": "60"},
        {"scope": "sender", "name": 5},
        {"scope": "sender", "command": "restart"},
        {"scope": "operations"},
        {"scope": "operations", "command": "restart"},
        {"scope": "operations", "deployments": ["dep"]},
        OPERATIONS | {"deployments": ["a", "b"]},
        OPERATIONS | {"command": ""},
        OPERATIONS | {"command": "a:b"},
        OPERATIONS | {"targets": [a_target("operator")]},
    ],
)
async def test_what_is_no_token_request(served: Served, request_: Any) -> None:
    (await served.client.post("/v1/tokens", request_)).refused(422, "INVALID_REQUEST")
    assert await served.journal.end() == 0


async def test_absent_and_null_are_not_given(served: Served) -> None:
    fields = ("deployments", "targets", "ttlSeconds", "name", "command", "unknown")
    minted = await mint(served.client, **dict.fromkeys(fields))
    assert set(minted) == {"token", "id"}
    (await served.client.presenting(minted["token"]).post("/v1/commands", a_command(deploymentId="any"))).ok()


@pytest.mark.parametrize("seconds", [2**63, 2**70, 10**300])
async def test_a_very_long_life_is_cut(served: Served, seconds: int) -> None:
    assert (await mint(served.client, ttlSeconds=seconds))["expiresAt"] == "2126-05-16T10:00:00Z"


async def test_names_have_a_length(served: Served) -> None:
    for more in ({"name": "n" * 1025}, {"deployments": ["d" * 1025]}):
        (await served.client.post("/v1/tokens", {"scope": "sender"} | more)).refused(400, "INVALID_COMMAND")


async def test_tokens_of_an_open_service(open_served: Served) -> None:
    """They can be made there, for later; today everybody may do everything."""
    minted = await mint(open_served.client, scope="auditor")
    user = open_served.client.presenting(minted["token"])
    (await user.post("/v1/commands", a_command())).ok()
    assert (await open_served.client.call("DELETE", f"/v1/tokens/{minted['id']}")).status == 204
    (await user.post("/v1/commands", a_command())).ok()


async def test_tokens_outlive_a_restart_and_revoked_ones_stay_revoked(served: Served) -> None:
    kept, revoked = await mint(served.client), await mint(served.client)
    await served.client.call("DELETE", f"/v1/tokens/{revoked['id']}")
    async with serving(served.journal, served.clock) as again:
        (await again.client.presenting(kept["token"]).get("/v1/queues")).ok()
        (await again.client.presenting(revoked["token"]).get("/v1/queues")).refused(401, "UNAUTHORIZED")
        assert [one["id"] for one in await listed(again.client)] == [kept["id"]]
        assert (await again.client.call("DELETE", f"/v1/tokens/{revoked['id']}")).status == 204


# --- another node


class SlowToDeliver(MemoryJournal):
    """A journal whose follower is held while `held`; counts how often its end is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = 0
        self.trouble: JournalUnavailable | None = None

    async def end(self) -> int:
        self.ends += 1
        if self.trouble is not None:
            raise self.trouble
        return await super().end()


async def test_a_token_that_another_node_minted_a_moment_ago_works(served: Served) -> None:
    async with serving(served.journal, served.clock) as other:
        minted = await mint(served.client)
        (await other.client.presenting(minted["token"]).get("/v1/queues")).ok()
        again = await mint(other.client)
        assert (await served.client.call("DELETE", f"/v1/tokens/{again['id']}")).status == 204


async def test_strangers_share_their_looks_at_the_journal() -> None:
    journal = SlowToDeliver()
    async with serving(journal) as served:
        before, started = journal.ends, trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(unauthorized, served.client.presenting(UNKNOWN))
        for _ in range(5):
            await unauthorized(served.client.presenting(UNKNOWN))
        looks = journal.ends - before
        assert looks <= 2 + (trio.current_time() - started) / TOKEN_LOOK_SECONDS <= 10
        for token in ("x", UNKNOWN[:-1], UNKNOWN + "0", UNKNOWN.upper(), "arc_"):
            await unauthorized(served.client.presenting(token))
        assert journal.ends - before == looks


async def unauthorized(client: Client) -> None:
    (await client.get("/v1/queues")).refused(401, "UNAUTHORIZED")


async def test_known_tokens_do_not_look_at_the_journal() -> None:
    journal = SlowToDeliver()
    async with serving(journal) as served:
        minted = await mint(served.client)
        before = journal.ends
        (await served.client.presenting(minted["token"]).get("/v1/queues")).ok()
        await unauthorized(served.client.presenting(minted["token"][:-1] + "g"))
        wrong = minted["token"][:-64] + "0" * 64
        await unauthorized(served.client.presenting(wrong))
        assert journal.ends == before


async def test_whether_a_token_is_known_cannot_be_told_while_the_journal_is_away() -> None:
    """Not 401: that would end a client for good. All who ask share one attempt."""
    journal = SlowToDeliver()
    async with serving(journal) as served:
        minted = await mint(served.client)
        journal.trouble = JournalUnavailable("gone")
        before = journal.ends

        async def ask() -> None:
            (await served.client.presenting(UNKNOWN).get("/v1/queues")).refused(503, "JOURNAL_UNAVAILABLE")

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
        assert journal.ends - before <= 2
        (await served.client.presenting(minted["token"]).get("/v1/queues")).ok()
        await unauthorized(served.client.presenting("not one of ours"))
        journal.trouble = None
        await unauthorized(served.client.presenting(UNKNOWN))


# --- constant time


async def test_secrets_are_compared_in_constant_time(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known, wrong and unknown tokens take the same comparisons."""
    compared: list[tuple[int, int]] = []

    def compare(one: Any, other: Any) -> bool:
        compared.append((len(one), len(other)))
        return hmac_compare(one, other)

    hmac_compare = hmac.compare_digest
    minted = await mint(served.client)
    monkeypatch.setattr(hmac, "compare_digest", compare)
    paths: set[tuple[tuple[int, int], ...]] = set()
    for token in (minted["token"], minted["token"][:-64] + "0" * 64, UNKNOWN):
        compared.clear()
        await served.client.presenting(token).get("/v1/queues")
        paths.add(tuple(compared))
    assert paths == {((len(UNKNOWN), len(ADMIN)), (64, 64))}


# --- a token of exact targets


async def test_a_receiver_of_exact_targets_without_a_target_gets_only_theirs(served: Served) -> None:
    """First-generation requests name no target (`arc.v1` 2.4)."""
    kinds = {"indexer": "daemon", "mailer": "container", "printer": "worker"}
    await served.declare(*(a_target(name, kind) for name, kind in kinds.items()))
    wanted = [a_target(), a_target("printer", "worker"), a_target("mailer", "daemon")]
    minted = await mint(served.client, scope="receiver", deployments=["dep"], targets=wanted)
    receiver = served.client.presenting(minted["token"])
    made = [await served.create(targetResourceId=name) for name in ("mailer", "printer", "indexer", "printer")]
    made.append(await served.create(targetResourceId="indexer", priority=5))
    got = (await receiver.post("/v1/commands/leases", a_lease(target=None, maxLeases=3))).ok()["leases"]
    assert [lease["commandId"] for lease in got] == [made[4], made[1], made[2]]
    rest = (await receiver.post("/v1/commands/leases", a_lease(target=None, maxLeases=9))).ok()["leases"]
    assert [lease["commandId"] for lease in rest] == [made[3]]
    (left,) = await served.lease(target=None, maxLeases=9)
    assert left["commandId"] == made[0]


async def test_a_receiver_of_exact_targets_waits_for_theirs_only(served: Served) -> None:
    await served.declare(a_target(), a_target("mailer", "container"), a_target("printer", "worker"))
    wanted = [a_target(), a_target("printer", "worker")]
    minted = await mint(served.client, scope="receiver", deployments=["dep"], targets=wanted)
    receiver = served.client.presenting(minted["token"])
    got: list[Any] = []

    async def wait() -> None:
        answer = await receiver.post("/v1/commands/leases", a_lease(target=None, waitSeconds=30))
        got.extend(answer.ok()["leases"])

    with trio.fail_after(25):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await served.create(targetResourceId="mailer")
            await trio.testing.wait_all_tasks_blocked()
            assert got == []
            wanted_id = await served.create(targetResourceId="printer")
    assert [lease["commandId"] for lease in got] == [wanted_id]
    assert [queue["waiting"] for queue in (await served.client.get("/v1/queues")).ok()["queues"]] == [0, 0]


async def test_the_type_of_a_target_may_be_settled_while_an_exact_receiver_waits(served: Served) -> None:
    """Its token says daemon. While nobody has said the type it waits; then it is a container, and not for it."""
    minted = await mint(served.client, scope="receiver", deployments=["dep"], targets=[a_target(), a_target("printer")])
    receiver = served.client.presenting(minted["token"])
    got: list[Any] = []

    async def wait() -> None:
        answer = await receiver.post("/v1/commands/leases", a_lease(target=None, waitSeconds=30))
        got.extend(answer.ok()["leases"])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert await served.lease(target=a_target("indexer", "container")) == []
        created = await served.create()
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        (lease,) = await served.lease(target=a_target("indexer", "container"))
        assert lease["commandId"] == created
        printing = await served.create(targetResourceId="printer")
    assert [lease["commandId"] for lease in got] == [printing]
    assert (await receiver.post("/v1/commands/leases", a_lease(target=None))).ok()["leases"] == []
