"""Target resolution over HTTP (`arc.v1` 4.6)."""

from __future__ import annotations

import pytest

from tests.http.driver import Served, a_command, a_lease, a_target


async def test_open_an_unknown_id_becomes_a_target_shown_as_worker(served: Served) -> None:
    command_id = await served.create(targetResourceId="new")
    assert (await served.status(command_id))["target"] == a_target("new", "worker")


async def test_open_the_first_receiver_fixes_the_type(served: Served) -> None:
    command_id = await served.create(targetResourceId="new")
    (lease,) = await served.lease(target=a_target("new", "container"))
    assert (lease["commandId"], lease["envelope"]["target"]) == (command_id, a_target("new", "container"))
    assert (await served.status(command_id))["target"] == a_target("new", "container")
    await served.create(targetResourceId="new")
    end = await served.journal.end()
    assert await served.lease(target=a_target("new", "worker")) == []
    assert await served.lease(target=a_target("new", "daemon")) == []
    assert await served.journal.end() == end
    assert len(await served.lease(target=a_target("new", "container"))) == 1


async def test_open_the_type_is_fixed_for_commands_created_before(served: Served) -> None:
    ids = [await served.create(targetResourceId="new") for _ in range(3)]
    await served.lease(target=a_target("new", "daemon"))
    shown = [(await served.status(command_id))["target"]["resourceType"] for command_id in ids]
    assert shown == ["daemon"] * 3


async def test_open_without_any_target_default_is_implied(served: Served) -> None:
    command_id = await served.create(targetResourceId=None)
    assert (await served.status(command_id))["target"] == a_target("default", "worker")
    (lease,) = await served.lease(target=a_target("default", "daemon"))
    assert lease["envelope"]["target"] == a_target("default", "daemon")


async def test_open_default_does_not_make_one_real_target_ambiguous(served: Served) -> None:
    await served.create(targetResourceId=None)
    await served.create(targetResourceId="real")
    command_id = await served.create(targetResourceId=None)
    assert (await served.status(command_id))["target"]["resourceId"] == "real"


async def test_open_a_receiver_of_default_makes_it_a_candidate(served: Served) -> None:
    await served.lease(target=a_target("default", "worker"))
    await served.create(targetResourceId="real")
    answer = await served.client.post("/v1/commands", a_command(targetResourceId=None))
    answer.refused(409, "COMMAND_TARGET_AMBIGUOUS")


async def test_open_the_only_known_target_is_chosen_and_two_are_ambiguous(served: Served) -> None:
    await served.lease(target=a_target("one", "daemon"))
    command_id = await served.create(targetResourceId=None)
    assert (await served.status(command_id))["target"] == a_target("one", "daemon")
    await served.create(targetResourceId="two")
    answer = await served.client.post("/v1/commands", a_command(targetResourceId=None))
    answer.refused(409, "COMMAND_TARGET_AMBIGUOUS")


async def test_open_deployments_do_not_know_each_other(served: Served) -> None:
    await served.create(deploymentId="a", targetResourceId="one")
    await served.create(deploymentId="b", targetResourceId="two")
    for deployment, target in (("a", "one"), ("b", "two"), ("c", "default")):
        command_id = await served.create(deploymentId=deployment, targetResourceId=None)
        assert (await served.status(command_id))["target"]["resourceId"] == target


async def test_open_the_operator_is_no_candidate(open_served: Served) -> None:
    await open_served.create(targetResourceId="operator")
    command_id = await open_served.create(targetResourceId=None)
    assert (await open_served.status(command_id))["target"]["resourceId"] == "default"


async def test_strict_only_declared_targets(served: Served) -> None:
    (await served.declare(a_target("one", "container"))).ok()
    command_id = await served.create(targetResourceId="one")
    assert (await served.status(command_id))["target"] == a_target("one", "container")
    answer = await served.client.post("/v1/commands", a_command(targetResourceId="two"))
    assert answer.refused(404, "COMMAND_TARGET_NOT_FOUND")["details"] == "two"
    (await served.client.post("/v1/commands", a_command(targetResourceId=""))).refused(404, "COMMAND_TARGET_NOT_FOUND")
    (await served.client.post("/v1/commands", a_command(targetResourceId="a:b"))).refused(
        400, "COMMAND_TARGET_ID_INVALID"
    )


async def test_strict_nothing_requested(served: Served) -> None:
    nothing = a_command(targetResourceId=None)
    (await served.declare()).ok()
    (await served.client.post("/v1/commands", nothing)).refused(422, "NO_COMMAND_TARGETS")
    (await served.declare(a_target("operator", "daemon"))).ok()
    (await served.client.post("/v1/commands", nothing)).refused(422, "NO_COMMAND_TARGETS")
    (await served.declare(a_target("one"), a_target("operator", "daemon"))).ok()
    command_id = (await served.client.post("/v1/commands", nothing)).ok()["commandId"]
    assert (await served.status(command_id))["target"] == a_target("one")
    (await served.declare(a_target("one"), a_target("two"))).ok()
    (await served.client.post("/v1/commands", nothing)).refused(409, "COMMAND_TARGET_AMBIGUOUS")


async def test_strict_the_operator_is_a_daemon_whatever_was_declared(open_served: Served) -> None:
    (await open_served.declare(a_target("operator", "container"))).ok()
    command_id = await open_served.create(targetResourceId="operator")
    assert (await open_served.status(command_id))["target"] == a_target("operator", "daemon")


@pytest.mark.parametrize(
    "target", [a_target("two"), a_target("one", "worker"), a_target("a:b"), a_target(""), a_target("x" * 1025)]
)
async def test_strict_leases_of_other_targets_are_empty(served: Served, target: dict[str, str]) -> None:
    (await served.declare(a_target("one", "daemon"))).ok()
    await served.create(targetResourceId="one")
    assert await served.lease(target=target) == []


@pytest.mark.parametrize("deployment", ["unknown", "", "x" * 1025])
async def test_leases_of_unknown_deployments_are_empty(served: Served, deployment: str) -> None:
    assert await served.lease(deploymentId=deployment) == []
    assert await served.lease(deploymentId=deployment, target=None) == []
    assert (await served.client.post("/v1/commands/leases", a_lease(deploymentId=deployment))).status == 200
