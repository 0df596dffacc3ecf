"""What `status` knows after some decisions."""

from __future__ import annotations

import pytest

from arc_es.domain.errors import ImpossibleHistory
from arc_es.domain.events import CommandFailed, LateResponseRecorded, LeaseExpired, LeaseRenewed, UploadCompleted
from arc_es.domain.recorded import CommandKey, Recorded
from arc_es.domain.state import Leased, Pending, PendingUpload, Succeeded
from projections.change import Row
from tests.projections.world import T0, World, body, created, leased, released, succeeded


def row_of(world: World, command_id: str = "c") -> Row:
    row = world.models.status.get(command_id)
    assert row is not None
    return row


def test_nothing_is_known_of_a_command_that_was_never_created() -> None:
    status = World().models.status
    assert status.get("c") is None
    assert len(status) == 0


def test_a_created_command_is_pending_and_its_params_are_where_it_was_created() -> None:
    world = World()
    world.given("c", created())
    row = row_of(world)
    assert isinstance(row.state, Pending)
    assert (row.version, row.params_at, row.answer_at) == (7, 7, 0)


def test_uploaded_params_are_where_the_upload_was_completed() -> None:
    world = World()
    world.given("c", created(params=None, upload_until=T0 + 9))
    assert isinstance(row_of(world).state, PendingUpload)
    assert row_of(world).params_at == 0
    world.given("c", UploadCompleted(params=body()))
    assert (row_of(world).version, row_of(world).params_at, row_of(world).answer_at) == (9, 9, 0)


def test_a_cancelled_upload_has_an_answer_but_no_params() -> None:
    world = World()
    world.given("c", created(params=None, upload_until=T0 + 9))
    world.given("c", CommandFailed(attempt=1, origin="cancel", code="CANCELLED", message=""))
    assert (row_of(world).params_at, row_of(world).answer_at) == (0, 9)


def test_the_answer_stays_where_it_was_accepted_when_a_late_one_is_recorded() -> None:
    world = World()
    for event in (created(), leased(), succeeded()):
        world.given("c", event)
    world.given("c", LateResponseRecorded(status="success", size=1, sha256="e" * 64))
    row = row_of(world)
    assert isinstance(row.state, Succeeded)
    assert (row.version, row.params_at, row.answer_at) == (13, 7, 11)


def test_a_decision_of_several_events_counts_as_a_whole() -> None:
    world = World()
    world.given("c", created())
    world.given("c", leased("a"))
    world.given("c", LeaseExpired(lease_id="a", attempt=1), leased("b", attempt=2))
    assert isinstance(row_of(world).state, Leased)
    assert world.models.status.holder_of("a") is None
    assert world.models.status.holder_of("b") == "c"


def test_a_lease_is_held_until_it_ends() -> None:
    world = World()
    world.given("c", created())
    world.given("c", leased("a"))
    world.given("c", LeaseRenewed(lease_id="a", expires_at=T0 + 99))
    assert world.models.status.holder_of("a") == "c"
    world.given("c", released("a"))
    assert world.models.status.holder_of("a") is None


@pytest.mark.parametrize("position", [1, 7, 8])
def test_a_decision_is_applied_once_and_in_order(position: int) -> None:
    world = World()
    world.given("c", created())
    world.given("c", leased())
    old = Recorded(position, CommandKey("dep", "c"), T0, (released(),))
    with pytest.raises(ImpossibleHistory):
        world.models.apply(old)
    assert isinstance(row_of(world).state, Leased)


def test_a_decision_without_events_is_impossible() -> None:
    with pytest.raises(ImpossibleHistory):
        World().models.apply(Recorded(1, CommandKey("dep", "c"), T0))


def test_all_projections_share_the_first_string_of_a_command_id() -> None:
    world = World()
    for event in (created(deadline=T0 + 5), leased(), released()):
        world.given("cmd_1", event)
    (taken,) = world.models.pending.take("dep", None, 1, T0)
    (due,) = world.models.due.take_due(T0 + 6, 1)
    assert taken is row_of(world, "cmd_1").command_id
    assert due is row_of(world, "cmd_1").command_id
