"""Every scope at every endpoint, and the order of the checks (`arc.v1` 1.7, extensions "Tokens")."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from typing import Any, Final

import pytest

from arc_es.journal.subjects import event_subject
from arc_es.keyring import CheckpointSeeds
from arc_es.proof.proving import Proving
from arc_es.proof.tiles import Tiles
from tests.http.driver import ADMIN, Answer, Client, Served, a_command, a_lease, a_target, inline, serving, success

SCOPES: Final[dict[str, dict[str, Any]]] = {
    "admin": {"scope": "admin"},
    "sender": {"scope": "sender", "deployments": ["dep"]},
    "sender*": {"scope": "sender"},
    "sender!": {"scope": "sender", "deployments": ["another"]},
    "receiver": {"scope": "receiver", "deployments": ["dep"]},
    "exact": {"scope": "receiver", "deployments": ["dep"], "targets": [a_target(), a_target("operator")]},
    "receiver!": {"scope": "receiver", "deployments": ["another"]},
    "auditor": {"scope": "auditor", "deployments": ["dep"]},
    "auditor!": {"scope": "auditor", "deployments": ["another"]},
    "operations": {"scope": "operations", "deployments": ["dep"], "command": "restart"},
}
"""`!` is for another deployment, `*` for all; `exact` is for the target indexer only."""

TABLE: Final = """
                    admin sender sender* sender! receiver exact receiver! auditor auditor! operations open
create              yes   yes    yes     403     403      403   403       403     403      403        yes
create-operator     403   403    403     403     403      403   403       403     403      yes        yes
create-operator-2   403   403    403     403     403      403   403       403     403      403        yes
batch               yes   yes    yes     yes     403      403   403       403     403      yes        yes
upload              yes   yes    yes     403     403      403   403       403     403      403        yes
upload-operator     403   403    403     403     403      403   403       403     403      yes        yes
status              yes   yes    yes     403     yes      yes   403       yes     403      403        yes
status-mailer       yes   yes    yes     403     yes      403   403       yes     403      403        yes
status-operator     yes   yes    yes     403     yes      403   403       yes     403      403        yes
list                yes   yes    yes     yes     yes      yes   yes       yes     yes      403        yes
full                yes   yes    yes     403     yes      yes   403       yes     403      403        yes
full-mailer         yes   yes    yes     403     yes      403   403       yes     403      403        yes
full-unknown        404   404    404     404     404      404   404       404     404      403        404
status-unknown      404   404    404     404     404      404   404       404     404      403        404
payload             yes   yes    yes     403     yes      yes   403       yes     403      403        yes
payload-mailer      yes   yes    yes     403     yes      403   403       yes     403      403        yes
payload-stored      yes   404    404     404     404      404   404       404     404      403        yes
put-payload         yes   403    403     403     403      403   403       403     403      403        yes
events              yes   yes    yes     403     yes      yes   403       yes     403      403        yes
events-mailer       yes   yes    yes     403     yes      403   403       yes     403      403        yes
lease               yes   403    403     403     yes      yes   403       403     403      403        yes
lease-worker        yes   403    403     403     yes      403   403       403     403      403        yes
lease-mailer        yes   403    403     403     yes      403   403       403     403      403        yes
lease-operator      yes   403    403     403     yes      403   403       403     403      403        yes
lease-whole         yes   403    403     403     yes      yes   403       403     403      403        yes
renew               yes   403    403     403     yes      yes   403       403     403      403        yes
renew-mailer        yes   403    403     403     yes      403   403       403     403      403        yes
renew-unknown       404   403    403     403     404      404   404       403     403      403        404
release             yes   403    403     403     yes      yes   403       403     403      403        yes
release-mailer      yes   403    403     403     yes      403   403       403     403      403        yes
release-unknown     404   403    403     403     404      404   404       403     403      403        404
respond             yes   403    403     403     yes      yes   403       403     403      403        yes
respond-mailer      yes   403    403     403     yes      403   403       403     403      403        yes
respond-unknown     404   403    403     403     404      404   404       403     403      403        404
bootstrap-sender    yes   yes    yes     403     403      403   403       403     403      yes        yes
bootstrap-receiver  yes   403    403     403     yes      yes   403       403     403      403        yes
bootstrap-mailer    yes   403    403     403     yes      403   403       403     403      403        yes
explain             yes   yes    yes     403     yes      yes   403       yes     403      403        yes
explain-mailer      yes   yes    yes     403     yes      403   403       yes     403      403        yes
feed                yes   yes    yes     yes     yes      yes   yes       yes     yes      403        yes
feed-dep            yes   yes    yes     403     yes      yes   403       yes     403      403        yes
queues              yes   yes    yes     yes     yes      yes   yes       yes     yes      403        yes
deployments         yes   yes    yes     yes     yes      yes   yes       yes     yes      403        yes
deployment          yes   yes    yes     403     yes      yes   403       yes     403      403        yes
deployment-unknown  404   404    404     404     404      404   404       404     404      403        404
declare             yes   403    403     403     403      403   403       403     403      403        yes
mint                yes   403    403     403     403      403   403       403     403      403        yes
tokens              yes   403    403     403     403      403   403       403     403      403        yes
revoke              yes   403    403     403     403      403   403       403     403      403        yes
revoke-unknown      404   403    403     403     403      403   403       403     403      403        404
checkpoint          yes   yes    yes     yes     yes      yes   yes       yes     yes      yes        yes
proof               yes   403    403     403     403      403   403       yes     403      403        yes
proof-unknown       404   403    403     403     403      403   403       404     404      403        404
export              yes   403    403     403     403      403   403       yes     403      403        yes
export-dep          yes   403    403     403     403      403   403       yes     403      403        yes
export-time         yes   403    403     403     403      403   403       403     403      403        yes
cancel              yes   yes    yes     403     403      403   403       403     403      403        yes
cancel-mailer       yes   yes    yes     403     403      403   403       403     403      403        yes
cancel-operator     yes   yes    yes     403     403      403   403       403     403      403        yes
erase               yes   403    403     403     403      403   403       403     403      403        yes
erase-unknown       404   403    403     403     403      403   403       403     403      403        404
cancel-unknown      404   404    404     404     403      403   403       403     403      403        404
"""
COLUMNS, *ROWS = [line.split() for line in TABLE.strip().splitlines()]


class World:
    """A declared deployment with commands for each of its targets, some leased; `ids` names them."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.ids: dict[str, str] = {}

    async def fill(self, scope: str) -> None:
        """What the requests of the table are about, and a token of that scope."""
        admin = self.served.client
        await self.served.declare(a_target(), a_target("mailer", "container"), a_target("printer", "worker"))
        operations = (await admin.post("/v1/tokens", SCOPES["operations"])).json
        self.ids["token"] = operations["id"]
        by_operations = admin.presenting(operations["token"] if admin.token else None)
        for name, target, kind in (("indexer", "indexer", "daemon"), ("mailer", "mailer", "container")):
            self.ids[f"held-{name}"] = await self.served.create(targetResourceId=target)
            (lease,) = await self.served.lease(target=a_target(target, kind))
            self.ids[f"lease-{name}"] = lease["leaseId"]
            self.ids[name] = await self.served.create(targetResourceId=target)
        storage = {"mode": "storage", "size": 3}
        restart = a_command(targetResourceId="operator", command="restart")
        self.ids["operator"] = (await by_operations.post("/v1/commands", restart)).ok()["commandId"]
        self.ids["ended"] = await self.served.create()
        (await admin.post(f"/v1/commands/{self.ids['ended']}/cancel")).ok()
        self.ids["upload"] = await self.served.create(params=storage)
        uploading = restart | {"params": storage}
        self.ids["upload-operator"] = (await by_operations.post("/v1/commands", uploading)).ok()["commandId"]
        (await admin.put("/v1/commands/demo_1/payload", {"params": inline(b"{}")})).ok()
        checkpoints = self.served.node.checkpoints
        assert checkpoints is not None
        await checkpoints.announce()
        await checkpoints.sign()
        token = "anything" if scope == "open" else (await admin.post("/v1/tokens", SCOPES[scope])).json["token"]
        self.client = admin.presenting(token)

    async def ask(self, what: str) -> Answer:
        """The request of one row of the table."""
        method, path, data = self.request(what)
        return await self.client.call(method, f"/v1{path}", data)

    def request(self, what: str) -> tuple[str, str, Any]:
        ids = self.ids
        name, _, detail = what.partition("-")
        command = ids.get(detail or "indexer", "cmd_unknown")
        held = ids.get(f"held-{detail or 'indexer'}", "cmd_unknown")
        lease = ids.get(f"lease-{detail or 'indexer'}", "lease_unknown")
        operator = {"targetResourceId": "operator"}
        leased = {"": a_target(), "worker": a_target("indexer", "worker"), "mailer": a_target("mailer", "container")}
        leased |= {"operator": a_target("operator"), "whole": None}  # type: ignore[dict-item]
        payload = "demo_1" if detail == "stored" else command
        deployment = f"/deployments/{detail or 'dep'}"
        exported = {"dep": "deploymentId=dep", "time": "since=2026-01-01T00:00:00Z"}
        requests: dict[str, tuple[str, str, Any]] = {
            "create": ("POST", "/commands", a_command()),
            "create-operator": ("POST", "/commands", a_command(command="restart", **operator)),
            "create-operator-2": ("POST", "/commands", a_command(command="stop", **operator)),
            "batch": ("POST", "/commands/batch", {"commands": [a_command()]}),
            "upload": ("POST", f"/commands/{ids['upload']}/upload-complete", {"size": 3}),
            "upload-operator": ("POST", f"/commands/{ids['upload-operator']}/upload-complete", {"size": 3}),
            "status": ("GET", f"/commands/{command}", None),
            "list": ("GET", "/commands", None),
            "full": ("GET", f"/commands/{command}?view=full", None),
            "payload": ("GET", f"/commands/{payload}/payload", None),
            "put": ("PUT", "/commands/demo_2/payload", {"params": inline(b"{}")}),
            "events": ("GET", f"/commands/{command}/events", None),
            "lease": ("POST", "/commands/leases", a_lease(target=leased.get(detail))),
            "renew": ("POST", f"/commands/leases/{lease}/renew", {"leaseSeconds": 30}),
            "erase": ("POST", f"/commands/{ids.get(detail or 'ended', 'cmd_unknown')}/erase", {"reason": "asked for"}),
            "cancel": ("POST", f"/commands/{command}/cancel", {"reason": "no longer needed"}),
            "release": ("POST", f"/commands/leases/{lease}/release", None),
            "respond": ("PUT", f"/commands/{held}/response", success()),
            "bootstrap-sender": ("POST", "/commands/bootstrap", {"deploymentId": "dep", "role": "sender"}),
            "bootstrap": ("POST", "/commands/bootstrap", self.receiver("mailer" if detail == "mailer" else "indexer")),
            "explain": ("GET", f"/commands/{command}/explain", None),
            "feed": ("GET", "/events?deploymentId=dep" if detail else "/events", None),
            "queues": ("GET", "/queues", None),
            "checkpoint": ("GET", "/checkpoint", None),
            "proof": ("GET", f"/commands/{command}/proof", None),
            "export": ("GET", f"/export?{exported.get(detail, f'commandId={command}')}", None),
            "deployments": ("GET", "/deployments", None),
            "deployment": ("GET", deployment, None),
            "declare": ("PUT", "/deployments/new", {"targets": []}),
            "mint": ("POST", "/tokens", {"scope": "auditor"}),
            "tokens": ("GET", "/tokens", None),
            "revoke": ("DELETE", f"/tokens/{detail or ids['token']}", None),
        }
        return requests.get(what) or requests[name]

    def receiver(self, target: str) -> dict[str, str]:
        return {"deploymentId": "dep", "role": "receiver", "target": target}


@asynccontextmanager
async def world(scope: str) -> AsyncGenerator[World, None]:
    with closing(Tiles()) as tiles:
        async with world_with(scope, tiles) as found:
            yield found


@asynccontextmanager
async def world_with(scope: str, tiles: Tiles) -> AsyncGenerator[World, None]:
    proving = Proving(CheckpointSeeds(bytes(32)), tiles, event_subject)
    async with serving(admin_token=None if scope == "open" else ADMIN, proving=proving) as served:
        if scope == "open":
            served.client.token = None
        found = World(served)
        await found.fill(scope)
        yield found


@pytest.mark.parametrize("scope", COLUMNS)
async def test_what_a_scope_may_do(scope: str) -> None:
    """One world a scope: no row undoes what another one needs."""
    async with world(scope) as served:
        wanted = {row[0]: row[1 + COLUMNS.index(scope)] for row in ROWS}
        assert {what: outcome(await served.ask(what)) for what in wanted} == wanted


def outcome(answer: Answer) -> str:
    """403, 404, or yes: whatever comes after the rights."""
    if answer.status in (403, 404):
        code = answer.json["code"]
        assert (code == "FORBIDDEN") == (answer.status == 403)
        return str(answer.status)
    assert answer.status in (200, 201, 204) or answer.json["code"] in ("INVALID_COMMAND", "INVALID_STATE_TRANSITION")
    return "yes"


@pytest.mark.parametrize("what", [row[0] for row in ROWS])
async def test_a_wrong_token_is_401_before_everything(what: str) -> None:
    async with world("admin") as served:
        for token in (None, "wrong", "arc_" + "0" * 20 + "_" + "0" * 64, f"{served.client.token}0"):
            served.client = served.client.presenting(token)
            (await served.ask(what)).refused(401, "UNAUTHORIZED")


# --- lists show what is covered


async def test_lists_show_only_what_a_token_covers(served: Served) -> None:
    await served.declare(a_target(), a_target("mailer", "container"))
    await served.declare(a_target(), deployment="another")
    for deployment, target in (("dep", "indexer"), ("dep", "mailer"), ("another", "indexer")):
        await served.create(deploymentId=deployment, targetResourceId=target)

    async def seen(**request: Any) -> tuple[list[str], list[str]]:
        token = (await served.client.post("/v1/tokens", request)).json["token"]
        client = served.client.presenting(token)
        queues = (await client.get("/v1/queues")).ok()["queues"]
        deployments = (await client.get("/v1/deployments")).ok()["deployments"]
        return (
            sorted(f"{queue['deploymentId']}/{queue['target']['resourceId']}" for queue in queues),
            [deployment["deploymentId"] for deployment in deployments],
        )

    everything = ["another/indexer", "dep/indexer", "dep/mailer"], ["another", "dep"]
    assert await seen(scope="admin") == everything == await seen(scope="auditor")
    assert await seen(scope="sender", deployments=["dep"]) == (["dep/indexer", "dep/mailer"], ["dep"])
    assert await seen(scope="receiver", deployments=["dep"], targets=[a_target()]) == (["dep/indexer"], ["dep"])
    assert await seen(scope="auditor", deployments=["none"]) == ([], [])


# --- the order of the checks


async def test_a_declaration_shows_only_the_targets_that_a_token_covers() -> None:
    async with serving(public_url="https://arc.example") as served:
        push = {"url": "http://127.0.0.1:9000/secret-path", "token": "secret"}
        (await served.declare(a_target(), a_target("w", "worker") | {"delivery": "push", "push": push})).ok()
        request = {"scope": "receiver", "deployments": ["dep"], "targets": [a_target()]}
        receiver = served.client.presenting((await served.client.post("/v1/tokens", request)).json["token"])
        only = [a_target() | {"delivery": "pull"}]
        assert (await receiver.get("/v1/deployments/dep")).ok()["targets"] == only
        assert (await receiver.get("/v1/deployments")).ok()["deployments"][0]["targets"] == only
        assert len((await served.client.get("/v1/deployments/dep")).ok()["targets"]) == 2


async def test_the_order_of_the_checks(served: Served) -> None:
    """`arc.v1` 1.7: token, scope, shape, existence, coverage, the rest. Each step hides all that come after it."""
    await served.declare(a_target())
    command_id = await served.create()
    auditor, foreign, own = [
        served.client.presenting((await served.client.post("/v1/tokens", request)).json["token"])
        for request in (
            {"scope": "auditor"},
            {"scope": "receiver", "deployments": ["another"]},
            {"scope": "receiver", "deployments": ["dep"]},
        )
    ]
    answer_it, answer_unknown = f"/v1/commands/{command_id}/response", "/v1/commands/cmd_0/response"
    bad = {"status": "maybe"}
    (await served.client.presenting("x").put(answer_unknown, bad)).refused(401, "UNAUTHORIZED")
    (await auditor.put(answer_unknown, bad)).refused(403, "FORBIDDEN")
    (await auditor.put(answer_unknown, raw=b"{")).refused(403, "FORBIDDEN")
    (await foreign.put(answer_unknown, raw=b"{", headers={"Content-Type": "text/plain"})).refused(
        415, "UNSUPPORTED_MEDIA_TYPE"
    )
    (await foreign.put(answer_unknown, bad)).refused(422, "INVALID_REQUEST")
    (await foreign.put(answer_unknown, success())).refused(404, "COMMAND_NOT_FOUND")
    (await foreign.put(answer_it, success())).refused(403, "FORBIDDEN")
    (await own.put(answer_it, success())).refused(400, "INVALID_STATE_TRANSITION")


async def test_the_order_of_the_checks_of_a_create(served: Served) -> None:
    await served.declare(a_target())
    minted = await served.client.post("/v1/tokens", {"scope": "sender", "deployments": ["dep"]})
    sender = served.client.presenting(minted.json["token"])
    (await sender.post("/v1/commands", a_command(deploymentId="another", command=5))).refused(422, "INVALID_REQUEST")
    (await sender.post("/v1/commands", a_command(deploymentId="another", command=""))).refused(403, "FORBIDDEN")
    (await sender.post("/v1/commands", a_command(deploymentId=""))).refused(403, "FORBIDDEN")
    (await sender.post("/v1/commands", a_command(targetResourceId="operator", command=""))).refused(403, "FORBIDDEN")
    (await sender.post("/v1/commands", a_command(command=""))).refused(400, "INVALID_COMMAND")
    (await sender.post("/v1/commands", a_command(targetResourceId="x"))).refused(404, "COMMAND_TARGET_NOT_FOUND")


# --- answering: a known token decides, else the signed query (2.6)


async def test_a_known_token_decides_about_an_answer_even_against_a_good_signature(served: Served) -> None:
    command_id = await served.create()
    (lease,) = await served.lease()
    url = lease["envelope"]["responseHandling"]["submitResponseUrl"]
    path = f"/v1/commands/{url}"
    sender = served.client.presenting((await served.client.post("/v1/tokens", {"scope": "sender"})).json["token"])
    foreign = {"scope": "receiver", "deployments": ["another"]}
    receiver = served.client.presenting((await served.client.post("/v1/tokens", foreign)).json["token"])
    for client in (sender, receiver):
        (await client.put(path, success())).refused(403, "FORBIDDEN")
    assert (await served.status(command_id))["state"] == "DISPATCHED"
    (await served.client.presenting("arc_" + "0" * 20 + "_" + "0" * 64).put(path, success())).ok()
    assert (await served.status(command_id))["state"] == "SUCCEEDED"
    (event,) = [one for one in await served.events(command_id) if one["type"] == "CommandSucceeded"]
    assert (event["by"]["id"], event["by"]["kind"]) == (f"response-token:{command_id}", "response-token")


async def test_an_ended_token_leaves_the_decision_to_the_signed_query(served: Served) -> None:
    await served.create()
    (lease,) = await served.lease()
    path = f"/v1/commands/{lease['envelope']['responseHandling']['submitResponseUrl']}"
    minted = (await served.client.post("/v1/tokens", {"scope": "sender"})).json
    await served.client.call("DELETE", f"/v1/tokens/{minted['id']}")
    (await served.client.presenting(minted["token"]).put(path, success())).ok()


# --- who did it


async def test_events_name_the_token_that_did_it(served: Served) -> None:
    """Never what a caller says."""
    ids = {}
    clients: dict[str, Client] = {}
    for scope in ("sender", "receiver"):
        minted = (await served.client.post("/v1/tokens", {"scope": scope, "name": "somebody else"})).json
        ids[scope], clients[scope] = minted["id"], served.client.presenting(minted["token"])
    headers = {"X-Principal": "root", "User-Agent": "agent", "X-Request-Id": "r1"}
    created = await clients["sender"].post("/v1/commands", a_command(by={"id": "root"}), headers=headers)
    command_id = created.ok()["commandId"]
    (lease,) = (await clients["receiver"].post("/v1/commands/leases", a_lease(agent={"id": "a-17"}))).ok()["leases"]
    (await clients["receiver"].post(f"/v1/commands/leases/{lease['leaseId']}/release")).ok()
    by = [event["by"] for event in await served.events(command_id)]
    assert [(one["id"], one["kind"]) for one in by] == [
        (ids["sender"], "sender"),
        (ids["receiver"], "receiver"),
        (ids["receiver"], "receiver"),
    ]
    assert (by[0]["userAgent"], by[0]["requestId"]) == ("agent", "r1")
