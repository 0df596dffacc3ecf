"""Whatever lies in the folder of the index at start, all answers are right."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from arc_es.bootstrap import assemble, build_app
from arc_es.config import Config
from arc_es.index import Index, schema
from arc_es.index.index import BACKLOG_MAX, IndexBehind
from arc_es.journal.memory import MemoryJournal
from arc_es.keyring import KeyRing
from arc_es.summaries import Find
from tests.http.driver import Client, Clock, Served, success

Made = list[tuple[str, str]]


@asynccontextmanager
async def serving(journal: MemoryJournal, folder: Path, finished_max: int = 1) -> AsyncGenerator[Served, None]:
    """A service whose index is a file."""
    config = Config(finished_in_memory_max=finished_max)
    keys, clock = KeyRing(b"example-signing-key"), Clock()
    node = assemble(journal, config, clock=clock, keys=keys, index_dir=folder)
    app = build_app(node.service, config, keys)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            yield Served(node, app, journal, clock, Client(app, "anybody"))
            nursery.cancel_scope.cancel()


async def fill(served: Served, count: int) -> Made:
    """Commands that ended, with their answers."""
    made: Made = []
    for number in range(count):
        command = await served.create(idempotencyKey=f"k{len(served.journal._messages)}", labels={"n": str(number)})
        await served.lease()
        (await served.respond(command, success(command.encode()))).ok()
        served.clock.advance(0.001)
        made.append((command, "SUCCEEDED"))
    return made


async def check(served: Served, made: Made) -> None:
    """Lists, states and histories of all that was ever made."""
    listed = (await served.client.get("/v1/commands?limit=1000&order=asc")).ok()
    assert sorted((entry["commandId"], entry["state"]) for entry in listed["commands"]) == sorted(made)
    assert listed["appliedSeq"] == served.node.follower.applied
    for command, state in made:
        assert (await served.status(command))["state"] == state
        assert len(await served.events(command)) >= (1 if state == "PENDING" else 3)


def as_it_is(path: Path) -> None:
    pass


def deleted(path: Path) -> None:
    schema.remove(path)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: 3 * 4096])


def empty(path: Path) -> None:
    schema.remove(path)
    path.touch()


def nonsense(path: Path) -> None:
    schema.remove(path)
    path.write_bytes(b"This is no database. " * 1_000)


def a_page_overwritten(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 : 2 * 4096] = b"\xff" * 4096
    path.write_bytes(data)


def edited(*statements: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        connection = sqlite3.connect(path)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()

    return edit


of_another_version = edited("UPDATE meta SET fingerprint = 'other'")
of_another_stream = edited("UPDATE meta SET stream = 'other'", "DELETE FROM commands")
ahead = edited("UPDATE meta SET position = position + 1000")
of_another_history = edited("UPDATE meta SET digest = 'other'", "DELETE FROM commands")
without_a_table = edited("DROP TABLE labels")
without_its_row = edited("DELETE FROM meta")


@pytest.mark.parametrize(
    "harm",
    [
        as_it_is,
        deleted,
        truncated,
        empty,
        nonsense,
        a_page_overwritten,
        of_another_version,
        of_another_stream,
        ahead,
        of_another_history,
        without_a_table,
        without_its_row,
    ],
)
async def test_a_restart_with_any_index(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    journal = MemoryJournal()
    async with serving(journal, tmp_path) as served:
        made = await fill(served, 30)
        live = await served.create(targetResourceId="nobody")
    path = tmp_path / schema.FILE
    assert not path.with_name(path.name + "-wal").exists(), "an orderly end leaves one file"
    harm(path)
    async with serving(journal, tmp_path) as served:
        await served.node.index.reached(served.node.follower.applied)
        made += [*await fill(served, 3), (live, "PENDING")]
        await check(served, made)


async def test_an_index_that_is_behind_is_caught_up(tmp_path: Path) -> None:
    """As after a kill: what the journal has and the index has not is folded again."""
    journal = MemoryJournal()
    async with serving(journal, tmp_path) as served:
        made = await fill(served, 5)
    copy = (tmp_path / schema.FILE).read_bytes()
    async with serving(journal, tmp_path) as served:
        late = success(b"late")
        (await served.respond(made[0][0], late)).ok()
        made += await fill(served, 5)
    (tmp_path / schema.FILE).write_bytes(copy)
    async with serving(journal, tmp_path) as served:
        await check(served, made)
        assert (await served.types(made[0][0]))[-1] == "LateResponseRecorded"


async def test_two_services_on_one_folder_have_an_index_each(tmp_path: Path) -> None:
    journal = MemoryJournal()
    async with serving(journal, tmp_path) as one, serving(journal, tmp_path) as other:
        made = await fill(one, 3)
        await other.node.follower.caught_up()
        await check(one, made)
        await check(other, made)
    async with serving(journal, tmp_path) as one:
        await check(one, made)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []  # noqa: ASYNC240 - a test


async def test_a_replay_waits_for_the_writer_and_bounds_what_is_in_memory(tmp_path: Path) -> None:
    journal = MemoryJournal()
    commands = BACKLOG_MAX // 40
    async with serving(journal, tmp_path / "a", finished_max=10**6) as served:
        made = await fill(served, commands)
    async with serving(journal, tmp_path / "b", finished_max=5) as served:
        await check(served, made)
        await served.node.index.reached(served.node.follower.applied)
        assert len(served.node.models.status) <= 5 + 1


@pytest.mark.expects_errors
async def test_an_index_that_breaks_while_running_refuses_and_is_made_anew_at_the_next_start(tmp_path: Path) -> None:
    journal = MemoryJournal()
    async with serving(journal, tmp_path) as served:
        made = await fill(served, 5)
        await served.node.index.reached(served.node.follower.applied)
        edited("DROP TABLE labels", "DROP TABLE commands")(tmp_path / schema.FILE)
        (await served.client.get("/v1/commands")).refused(503, "OVERLOADED")
        (await served.client.get(f"/v1/commands/{made[0][0]}")).refused(503, "OVERLOADED")
        made += await fill(served, 1)  # new commands do not need it
        assert (await served.status(made[-1][0]))["state"] == "SUCCEEDED"
    async with serving(journal, tmp_path) as served:
        await check(served, made)


@pytest.mark.slow
async def test_while_the_file_is_locked_nothing_is_lost_and_nobody_waits(tmp_path: Path) -> None:
    """The trouble passes: what could not be written is written then."""
    journal = MemoryJournal()
    async with serving(journal, tmp_path) as served:
        made = await fill(served, 2)
        index = served.node.index
        await index.reached(served.node.follower.applied)
        index._writer.execute("PRAGMA busy_timeout = 0")
        blocker = sqlite3.connect(tmp_path / schema.FILE, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        made += await fill(served, 3)
        with pytest.raises(IndexBehind):
            with trio.fail_after(20):
                await index.reached(served.node.follower.applied)
        assert (await served.status(made[-1][0]))["state"] == "SUCCEEDED"
        blocker.execute("ROLLBACK")
        blocker.close()
        await check(served, made)


async def test_what_is_asked_of_an_index_in_memory_is_the_same(tmp_path: Path) -> None:
    journal = MemoryJournal()
    async with serving(journal, tmp_path) as served:
        await fill(served, 10)
        on_disk = served.node.index
        await on_disk.reached(served.node.follower.applied)
        twin = assemble(journal, Config())
        async with trio.open_nursery() as nursery:
            await nursery.start(twin.run)
            await twin.index.reached(served.node.follower.applied)
            for find in (Find(), Find(labels=(("n", "3"),)), Find(state="SUCCEEDED", order="asc", limit=3)):
                assert await on_disk.find(find) == await twin.index.find(find)
            nursery.cancel_scope.cancel()


async def test_an_index_says_up_to_where_it_is(tmp_path: Path) -> None:
    journal = MemoryJournal()
    async with serving(journal, tmp_path) as served:
        await fill(served, 2)
        position = served.node.follower.applied
    index = Index(tmp_path)
    await index.prepare(journal)
    assert index.position == position
    await index.close()
