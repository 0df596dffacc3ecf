"""The follower: applies in order, wakes those who wait for a position or a history."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from arc_es.actors.follower import EXPECTED_MAX, Follower
from arc_es.actors.messages import Messages
from arc_es.codec import encode
from arc_es.domain.errors import ImpossibleHistory
from arc_es.domain.events import CommandEvent, CommandExpired
from arc_es.domain.recorded import SERVICE, CommandKey, Decision, Recorded
from arc_es.journal.memory import Fault, MemoryJournal
from arc_es.ports import Append, JournalCorrupt
from projections import Projections
from tests.domain.story import created

KEY = CommandKey("dep", "cmd_1")


class Node:
    """A follower on a journal, with what it follows into."""

    def __init__(self, journal: MemoryJournal) -> None:
        self.journal = journal
        self.models = Projections()
        self.messages = Messages(journal, 10_000)
        self.follower = Follower(journal, self.models, self.messages)


async def write(journal: MemoryJournal, command_id: str, *events: CommandEvent, expected: int = 0) -> int:
    payload = encode(Decision(f"{command_id}-{expected}", 0, SERVICE, events))
    (outcome,) = await journal.append([Append(CommandKey("dep", command_id), expected, "id", payload, b"body")])
    assert isinstance(outcome, int)
    return outcome


async def test_an_empty_journal_is_replayed_at_once() -> None:
    node = Node(MemoryJournal())
    assert not node.follower.ready
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.follower.run)
        with trio.fail_after(1):
            await node.follower.wait_ready()
        assert node.follower.ready
        nursery.cancel_scope.cancel()


async def test_ready_means_all_that_was_stored_before_is_applied() -> None:
    journal = MemoryJournal()
    for number in range(600):
        await write(journal, f"cmd_{number}", created())
    node = Node(journal)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.follower.run)
        with trio.fail_after(1):
            await node.follower.wait_ready()
        assert len(node.models.status) == 600
        assert node.follower.applied == await journal.end()
        assert node.follower.progress()["applied"] == node.follower.progress()["target"]
        nursery.cancel_scope.cancel()


async def test_during_the_replay_nobody_is_woken() -> None:
    journal = MemoryJournal()
    await write(journal, "cmd_1", created())
    node = Node(journal)
    woken: list[str] = []
    node.follower.on_leasable = woken.append
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.follower.run)
        await node.follower.wait_ready()
        assert woken == []
        position = await write(journal, "cmd_2", created())
        with trio.fail_after(1):
            await node.follower.reached(position)
        assert woken == ["cmd_2"]
        nursery.cancel_scope.cancel()


async def test_reached_wakes_all_who_wait_and_not_before() -> None:
    journal = MemoryJournal()
    node = Node(journal)
    reached: list[int] = []

    async def wait(position: int) -> None:
        await node.follower.reached(position)
        assert node.follower.applied >= position
        reached.append(position)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.follower.run)
        for position in (2, 2, 4):
            nursery.start_soon(wait, position)
        await trio.testing.wait_all_tasks_blocked()
        await write(journal, "cmd_1", created())
        await trio.testing.wait_all_tasks_blocked()
        assert reached == [2, 2]
        await write(journal, "cmd_2", created())
        with trio.fail_after(1):
            await node.follower.reached(4)
            await node.follower.reached(1)
        await trio.testing.wait_all_tasks_blocked()
        assert reached == [2, 2, 4]
        nursery.cancel_scope.cancel()


async def test_changed_wakes_on_the_next_message_of_that_history_only() -> None:
    journal = MemoryJournal()
    node = Node(journal)
    changes: list[str] = []

    async def watch() -> None:
        await node.follower.changed(KEY)
        changes.append("once")
        await node.follower.changed(KEY)
        changes.append("twice")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.follower.run)
        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        await write(journal, "cmd_2", created())
        await trio.testing.wait_all_tasks_blocked()
        assert changes == []
        version = await write(journal, "cmd_1", created())
        await trio.testing.wait_all_tasks_blocked()
        assert changes == ["once"]
        await write(journal, "cmd_1", CommandExpired(attempt=1, reason="deadline"), expected=version)
        with trio.fail_after(1):
            await trio.testing.wait_all_tasks_blocked()
        assert changes == ["once", "twice"]
        nursery.cancel_scope.cancel()


async def test_caught_up_with_waits_for_what_is_stored_now() -> None:
    journal = MemoryJournal()
    node = Node(journal)
    version = await write(journal, "cmd_1", created())
    async with trio.open_nursery() as nursery:
        with trio.fail_after(1):
            await node.follower.caught_up_with(CommandKey("dep", "nothing"))
        nursery.start_soon(node.follower.run)
        await node.follower.wait_ready()
        version = await write(journal, "cmd_1", CommandExpired(attempt=1, reason="deadline"), expected=version)
        with trio.fail_after(1):
            await node.follower.caught_up_with(KEY)
        row = node.models.status.get("cmd_1")
        assert row is not None
        assert row.version == version
        nursery.cancel_scope.cancel()


async def test_a_journal_that_comes_up_late_is_waited_for() -> None:
    journal = MemoryJournal()
    await write(journal, "cmd_1", created())
    journal.fault = Fault.UNAVAILABLE
    node = Node(journal)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.follower.run)
        with trio.move_on_after(5):
            await node.follower.wait_ready()
        assert not node.follower.ready
        journal.fault = None
        with trio.fail_after(1):
            await node.follower.wait_ready()
        assert len(node.models.status) == 1
        nursery.cancel_scope.cancel()


async def test_what_cannot_be_folded_ends_the_following() -> None:
    journal = MemoryJournal()
    await write(journal, "cmd_1", CommandExpired(attempt=1, reason="deadline"))
    with pytest.raises(ImpossibleHistory):
        await Node(journal).follower.run()


async def test_what_cannot_be_read_ends_the_following() -> None:
    journal = MemoryJournal()
    await journal.append([Append(KEY, 0, "id", b'{"v":99}')])
    with pytest.raises(JournalCorrupt, match="newer"):
        await Node(journal).follower.run()


async def test_messages_are_remembered_and_bounded_in_bytes() -> None:
    journal = MemoryJournal()
    node = Node(journal)
    for number in range(100):
        await write(journal, f"cmd_{number}", created())
    payloads = await node.messages.get_many(range(2, 202, 2))
    assert len(payloads) == 100
    assert node.messages._bytes <= 10_000
    journal.fault = Fault.UNAVAILABLE
    assert await node.messages.get(200) == payloads[-1]
    journal.fault = None
    assert await node.messages.get(2) == payloads[0]
    with pytest.raises(JournalCorrupt, match="gone"):
        await node.messages.get(999)


async def test_what_is_expected_is_not_read_and_everything_else_is() -> None:
    """Own messages come back as what they were; those that never come are forgotten one day."""
    journal = MemoryJournal()
    node = Node(journal)
    seen: list[Recorded] = []
    node.models.apply = seen.append  # type: ignore[assignment, method-assign]
    mine, other = (Decision(name, 5, SERVICE, (created(),)) for name in ("mine", "other"))
    node.follower.expect(encode(mine, "salt"), mine)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.follower.run)
        await node.follower.wait_ready()
        for command_id, decision in (("cmd_1", mine), ("cmd_2", other)):
            append = Append(CommandKey("dep", command_id), 0, decision.id, encode(decision, "salt"))
            await journal.append([append])
        await node.follower.caught_up()
        nursery.cancel_scope.cancel()
    assert [(one.key, one.at, one.events) for one in seen] == [
        (CommandKey("dep", "cmd_1"), 5, mine.events),
        (CommandKey("dep", "cmd_2"), 5, other.events),
    ]
    assert seen[0].events[0] is mine.events[0]
    for number in range(EXPECTED_MAX + 10):
        node.follower.expect(b"%d" % number, mine)
    assert len(node.follower._expected) == EXPECTED_MAX
