"""Lists of commands: filters, order, pages, cursors, rights (extensions, "Finding")."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from arc_es.summaries import Find, Place, cursor_of
from tests.http.driver import Client, Served, a_target, failure, inline, serving, success
from tests.http.virtual_time import run


async def listed(client: Client, **query: Any) -> list[Any]:
    """All commands of a list, page by page."""
    found: list[Any] = []
    while True:
        answer = (await client.get(f"/v1/commands?{urlencode(query, doseq=True)}")).ok()
        found += answer["commands"]
        if "nextCursor" not in answer:
            return found
        assert len(answer["commands"]) == int(query.get("limit", 100))
        query = query | {"cursor": answer["nextCursor"]}


async def ids(client: Client, **query: Any) -> list[str]:
    return [entry["commandId"] for entry in await listed(client, **query)]


async def test_a_summary_says_all_that_is_known(served: Served) -> None:
    """The fields of the extension, as they come to be known."""
    await served.declare(a_target())
    command = await served.create(
        labels={"run": "7", "by": "ada"},
        priority=5,
        deadline="2026-03-01T11:00:00Z",
        notBefore="2026-03-01T10:00:00Z",
        params=inline(b"12345"),
    )
    (new,) = await listed(served.client)
    assert new == {
        "commandId": command,
        "state": "PENDING",
        "attempt": 1,
        "target": a_target(),
        "deploymentId": "dep",
        "command": "report/build",
        "createdAt": "2026-03-01T10:00:00Z",
        "deadline": "2026-03-01T11:00:00Z",
        "notBefore": "2026-03-01T10:00:00Z",
        "priority": 5,
        "labels": {"by": "ada", "run": "7"},
        "requestSizeBytes": 5,
    }
    served.clock.advance(1)
    (lease,) = await served.lease(agent={"id": "a-17"})
    (held,) = await listed(served.client)
    more = {"dispatchedAt": "2026-03-01T10:00:01Z", "leaseId": lease["leaseId"], "agent": "a-17"}
    assert held == new | more | {"state": "DISPATCHED", "leaseExpiresAt": "2026-03-01T10:01:01Z"}
    served.clock.advance(1)
    await served.respond(command, success(b"1234567"))
    (done,) = await listed(served.client)
    del more["leaseId"]
    more |= {"completedAt": "2026-03-01T10:00:02Z"}
    assert done == new | more | {"state": "SUCCEEDED", "responseSizeBytes": 7}
    full = (await served.client.get(f"/v1/commands/{command}?view=full")).ok()
    assert full == done | {"response": {"status": "success", "response": inline(b"1234567")}}
    assert set(await served.status(command)) == {"commandId", "state", "attempt", "target", "response"}


async def test_the_error_of_a_failed_command_is_shown(served: Served) -> None:
    command = await served.create()
    await served.lease()
    await served.respond(command, failure("DB_DOWN", "no connection", details="…"))
    (found,) = await listed(served.client)
    assert (found["state"], found["error"]) == ("FAILED", {"code": "DB_DOWN", "message": "no connection"})
    full = (await served.client.get(f"/v1/commands/{command}?view=full")).ok()
    assert full["error"] == found["error"]
    assert full["response"]["details"] == "…"


async def test_filters_are_anded(served: Served) -> None:
    client = served.client
    a = await served.create(deploymentId="a", labels={"x": "1", "y": "1"})
    b = await served.create(deploymentId="b", targetResourceId="mailer", labels={"x": "1", "y": "2"})
    served.clock.advance(1)
    c = await served.create(deploymentId="a", command="stop", labels={"x": "2"})
    (lease,) = await served.lease(deploymentId="a")
    assert lease["commandId"] == a
    assert await ids(client, deploymentId="a") == [c, a]
    assert await ids(client, deploymentId="none") == []
    assert await ids(client, target="mailer") == [b]
    assert await ids(client, command="stop") == [c]
    assert await ids(client, state="DISPATCHED") == [a]
    assert set(await ids(client, state="PENDING")) == {b, c}
    assert await ids(client, deploymentId="a", state="PENDING") == [c]
    assert await ids(client, deploymentId="b", target="mailer") == [b]
    assert await ids(client, deploymentId="b", target="indexer") == []
    assert set(await ids(client, label="x:1")) == {a, b}
    assert await ids(client, label=["x:1", "y:2"]) == [b]
    assert await ids(client, label=["x:1", "y:2", "x:2"]) == []
    assert await ids(client, label="x:2", deploymentId="a") == [c]
    assert await ids(client, createdAfter="2026-03-01T10:00:01Z") == [c]
    assert set(await ids(client, createdBefore="2026-03-01T10:00:01Z")) == {a, b}
    assert await ids(client, createdAfter="2026-03-01T10:00:00Z", createdBefore="2026-03-01T10:00:00Z") == []


async def test_labels_are_split_at_the_first_colon(served: Served) -> None:
    command = await served.create(labels={"url": "http://a:1", "": "", "ü": "💧"})
    for label in ("url:http://a:1", ":", "ü:💧"):
        assert await ids(served.client, label=label) == [command]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_pages_join_to_the_whole_list(served: Served, order: str, limit: int) -> None:
    """Also where many commands were created in one microsecond."""
    made = []
    for number in range(7):
        made.append((served.clock.now(), await served.create(labels={"n": str(number % 2)})))
        served.clock.advance(number % 3 // 2)
    wanted = [name for _, name in sorted(made, reverse=order == "desc")]
    assert await ids(served.client, order=order, limit=limit) == wanted
    assert await ids(served.client, order=order, limit=limit, deploymentId="dep") == wanted
    odd = {name for number, (_, name) in enumerate(made) if number % 2}
    assert await ids(served.client, order=order, limit=limit, label="n:1") == [name for name in wanted if name in odd]
    times = {"createdAfter": "2026-03-01T10:00:01Z", "createdBefore": "2027-01-01T00:00:00Z"}
    late = {name for at, name in made if at >= made[3][0]}
    assert await ids(served.client, order=order, limit=limit, **times) == [name for name in wanted if name in late]


async def test_a_cursor_stands_where_it_stood_while_commands_come_and_change(served: Served) -> None:
    made = []
    for _ in range(6):
        made.append(await served.create())
        served.clock.advance(1)
    first = (await served.client.get("/v1/commands?limit=3")).ok()
    new = await served.create()
    await served.lease(maxLeases=6)
    second = (await served.client.get(f"/v1/commands?limit=3&cursor={first['nextCursor']}")).ok()
    assert [entry["commandId"] for entry in first["commands"] + second["commands"]] == made[::-1]
    assert "nextCursor" not in second
    assert {entry["state"] for entry in second["commands"]} == {"DISPATCHED"}
    assert (await ids(served.client))[0] == new


async def test_a_list_has_all_that_was_answered_before(served: Served) -> None:
    """Read your writes, however busy the writer of the index is."""
    for _ in range(20):
        command = await served.create()
        answer = (await served.client.get("/v1/commands?limit=1000")).ok()
        assert command in [entry["commandId"] for entry in answer["commands"]]
        assert answer["appliedSeq"] >= served.node.follower.applied


@pytest.mark.parametrize(
    "query",
    [
        "state=RUNNING",
        "state=",
        "label=nocolon",
        "createdAfter=yesterday",
        "createdBefore=2026-03-01T10:00:00",
        "order=up",
        "limit=many",
        "limit=1.5",
        "cursor=",
        "cursor=%00",
        "cursor=x",
        "cursor=e30",
        "cursor=WzEsMiwzXQ",
        f"cursor={'W' * 9000}",
    ],
)
async def test_what_cannot_be_read_is_422(client: Client, query: str) -> None:
    (await client.get(f"/v1/commands?{query}")).refused(422, "INVALID_REQUEST")


async def test_a_cursor_of_another_list_is_422(served: Served) -> None:
    for _ in range(3):
        await served.create(labels={"a": "1"})
    cursor = (await served.client.get("/v1/commands?limit=1")).ok()["nextCursor"]
    for other in ("order=asc", "deploymentId=dep", "state=PENDING", "label=a:1", "createdAfter=2026-03-01T10:00:00Z"):
        (await served.client.get(f"/v1/commands?{other}&cursor={cursor}")).refused(422, "INVALID_REQUEST")
    assert len((await served.client.get(f"/v1/commands?limit=1000&cursor={cursor}")).ok()["commands"]) == 2


@pytest.mark.parametrize(("limit", "shown"), [(-5, 1), (0, 1), (1, 1), (3, 3), (999_999_999, 4)])
async def test_the_limit_is_clamped(served: Served, limit: int, shown: int) -> None:
    for _ in range(4):
        await served.create()
    assert len((await served.client.get(f"/v1/commands?limit={limit}")).ok()["commands"]) == shown


async def test_an_unknown_view_is_422(served: Served) -> None:
    command = await served.create()
    (await served.client.get(f"/v1/commands/{command}?view=half")).refused(422, "INVALID_REQUEST")
    (await served.client.get("/v1/commands/cmd_none?view=full")).refused(404, "COMMAND_NOT_FOUND")


RIGHTS: dict[str, dict[str, Any]] = {
    "all": {"scope": "auditor"},
    "a": {"scope": "sender", "deployments": ["a"]},
    "a b": {"scope": "auditor", "deployments": ["a", "b"]},
    "a indexer": {"scope": "receiver", "deployments": ["a"], "targets": [a_target(), a_target("operator")]},
    "b indexer": {"scope": "receiver", "deployments": ["a", "b"], "targets": [a_target("indexer", "worker")]},
    "mailer": {"scope": "receiver", "targets": [a_target("mailer")]},
    "other": {"scope": "auditor", "deployments": ["other"]},
}


async def test_a_token_sees_what_it_covers_and_its_pages_are_full(served: Served) -> None:
    """Rights count before the page is cut."""
    client = served.client
    await served.declare(a_target(), a_target("mailer"), deployment="a")
    await served.declare(a_target("indexer", "worker"), deployment="b")
    operations = {"scope": "operations", "deployments": ["a"], "command": "restart"}
    by_operations = client.presenting((await client.post("/v1/tokens", operations)).json["token"])
    made: dict[str, list[str]] = {"a": [], "b": [], "m": [], "o": [], "open": []}
    for _ in range(3):
        made["a"].append(await served.create(deploymentId="a"))
        made["b"].append(await served.create(deploymentId="b"))
        made["m"].append(await served.create(deploymentId="a", targetResourceId="mailer"))
        restart = {"deploymentId": "a", "command": "restart", "params": inline(b"{}"), "targetResourceId": "operator"}
        made["o"].append((await by_operations.post("/v1/commands", restart)).ok()["commandId"])
        made["open"].append(await served.create(deploymentId="c", targetResourceId="mailer"))
        served.clock.advance(1)
    a, b, mailer, operator, undeclared = (made[name] for name in ("a", "b", "m", "o", "open"))
    wanted = {
        "all": [*a, *b, *mailer, *operator, *undeclared],
        "a": [*a, *mailer, *operator],
        "a b": [*a, *b, *mailer, *operator],
        "a indexer": a,
        "b indexer": b,
        "mailer": [*mailer, *undeclared],
        "other": [],
    }
    for name, request in RIGHTS.items():
        token = (await client.post("/v1/tokens", request)).json["token"]
        reader = client.presenting(token)
        for order in ("asc", "desc"):
            found = await listed(reader, limit=2, order=order)
            times = [(entry["createdAt"], entry["commandId"]) for entry in found]
            assert times == sorted(times, reverse=order == "desc")
            assert sorted(name for _, name in times) == sorted(wanted[name])
        assert sorted(await ids(reader, deploymentId="a")) == sorted(set(wanted[name]) & {*a, *mailer, *operator})
    (await by_operations.get("/v1/commands")).refused(403, "FORBIDDEN")
    (await client.presenting("wrong").get("/v1/commands")).refused(401, "UNAUTHORIZED")


async def test_an_open_service_shows_all(open_served: Served) -> None:
    command = await open_served.create()
    assert await ids(open_served.client) == [command]


async def test_an_index_that_stands_still_is_overloaded_not_wrong(served: Served) -> None:
    """A list that lacked what was answered before would be a lie."""
    await served.create()
    index = served.node.index
    index.tip = lambda: (0, b"")  # as if nothing more was written
    await served.create()
    (await served.client.get("/v1/commands")).refused(503, "OVERLOADED")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_no_cursor_text_breaks_anything(text: str) -> None:
    async def main() -> None:
        async with serving() as served:
            await served.create()
            answer = await served.client.get(f"/v1/commands?cursor={quote(text)}")
            answer.refused(422, "INVALID_REQUEST")

    run(main)


@settings(max_examples=100, deadline=None)
@given(st.integers(-(2**61), 2**61), st.text(max_size=40))
def test_a_cursor_that_a_client_made_up_shows_no_more_than_its_rights(at: int, command_id: str) -> None:
    """It names a place and a list, and no rights."""

    async def main() -> None:
        async with serving() as served:
            await served.create(deploymentId="a")
            token = (await served.client.post("/v1/tokens", {"scope": "auditor", "deployments": ["b"]})).json["token"]
            cursor = cursor_of(Find(), Place(at, command_id))
            answer = await served.client.presenting(token).get(f"/v1/commands?cursor={cursor}")
            assert answer.ok()["commands"] == []

    run(main)


async def test_many_may_ask_at_once(served: Served) -> None:
    for _ in range(10):
        await served.create()
    sizes: list[int] = []

    async def ask() -> None:
        sizes.append(len((await served.client.get("/v1/commands")).ok()["commands"]))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
    assert sizes == [10] * 20
