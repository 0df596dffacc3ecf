"""Turns: in order of arrival, one at a time, bounded, never lost."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from arc_es.actors.directory import Directory
from arc_es.domain.limits import REQUESTS_PER_COMMAND_MAX
from arc_es.domain.recorded import CommandKey
from arc_es.ports import Overloaded

KEY = CommandKey("dep", "cmd_1")
OTHER = CommandKey("dep", "cmd_2")


async def test_turns_come_in_order_of_arrival_one_at_a_time() -> None:
    directory = Directory(10)
    seen: list[int] = []
    inside = 0

    async def take(number: int) -> None:
        nonlocal inside
        async with directory.turn(KEY):
            inside += 1
            assert inside == 1
            seen.append(number)
            await trio.lowlevel.checkpoint()
            inside -= 1

    async with trio.open_nursery() as nursery, directory.turn(KEY):
        for number in range(20):
            nursery.start_soon(take, number)
            await trio.testing.wait_all_tasks_blocked()
        assert seen == []
    assert seen == list(range(20))
    assert len(directory) == 0


async def test_histories_do_not_wait_for_each_other() -> None:
    directory = Directory(10)
    async with directory.turn(KEY), directory.turn(OTHER):
        assert len(directory) == 2
        assert not directory.try_acquire(KEY)
    assert directory.try_acquire(KEY)
    directory.release(KEY)


async def test_a_turn_ends_by_an_error_too() -> None:
    directory = Directory(10)
    with pytest.raises(ValueError, match="mine"):
        async with directory.turn(KEY):
            raise ValueError("mine")
    assert len(directory) == 0


async def test_who_is_cancelled_while_waiting_is_skipped() -> None:
    directory = Directory(10)
    seen: list[str] = []
    scopes = {name: trio.CancelScope() for name in "abc"}

    async def take(name: str) -> None:
        with scopes[name]:
            async with directory.turn(KEY):
                seen.append(name)

    async with trio.open_nursery() as nursery, directory.turn(KEY):
        for name in scopes:
            nursery.start_soon(take, name)
            await trio.testing.wait_all_tasks_blocked()
        scopes["b"].cancel()
        await trio.testing.wait_all_tasks_blocked()
    assert seen == ["a", "c"]
    assert len(directory) == 0


async def test_who_is_cancelled_as_the_turn_is_handed_over_passes_it_on() -> None:
    directory = Directory(10)
    seen: list[str] = []
    scope = trio.CancelScope()

    async def leave() -> None:
        with scope:
            async with directory.turn(KEY):
                seen.append("gone")
                await trio.lowlevel.checkpoint()
                seen.append("stayed")

    async def take() -> None:
        async with directory.turn(KEY):
            seen.append("next")

    async with trio.open_nursery() as nursery:
        await directory.acquire(KEY)
        for task in (leave, take):
            nursery.start_soon(task)
            await trio.testing.wait_all_tasks_blocked()
        directory.release(KEY)
        scope.cancel()
        with trio.fail_after(1):
            await trio.testing.wait_all_tasks_blocked()
    assert seen[-1] == "next"
    assert "stayed" not in seen
    assert len(directory) == 0


async def test_the_number_of_mailboxes_is_bounded() -> None:
    directory = Directory(2)
    async with directory.turn(KEY), directory.turn(OTHER):
        with pytest.raises(Overloaded):
            async with directory.turn(CommandKey("dep", "cmd_3")):
                pytest.fail("that is one too many")
        with pytest.raises(Overloaded):
            directory.try_acquire(CommandKey("dep", "cmd_3"))
    async with directory.turn(CommandKey("dep", "cmd_3")):
        assert len(directory) == 1


async def test_the_length_of_a_queue_is_bounded() -> None:
    directory = Directory(2)

    async def take() -> None:
        async with directory.turn(KEY):
            pass

    async with trio.open_nursery() as nursery, directory.turn(KEY):
        for _ in range(REQUESTS_PER_COMMAND_MAX):
            nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Overloaded):
            await directory.acquire(KEY)
    assert len(directory) == 0
