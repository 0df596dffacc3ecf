"""Which snapshot a start uses, and that it then knows what a full replay knows. On the journal in memory."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import pytest
import trio

from arc_es.bootstrap import empty_models
from arc_es.journal.memory import MemoryJournal
from arc_es.ports import Append
from arc_es.snapshots import file, fold
from arc_es.snapshots.file import digest_of
from arc_es.snapshots.fold import Folded, TooFar, models_at, take
from arc_es.snapshots.folder import Snapshots, paths
from arc_es.snapshots.moment import Moment
from tests.http.driver import Served

make = partial(empty_models, None)
FAR = 10**9


async def some_commands(served: Served) -> None:
    """Of every kind: pending, delayed, leased, succeeded, late."""
    first = await served.create(idempotencyKey="one")
    await served.create(notBefore="2026-03-01T11:00:00Z")
    await served.lease()
    await served.respond(first)
    await served.create()
    await served.lease(leaseSeconds=60)
    served.clock.advance(5)


async def digest_at(journal: MemoryJournal, position: int | None = None) -> str:
    folded = await models_at(journal, None, make, Moment(position=position))
    return digest_of(folded.models.dump())


async def restored(folder: Path, journal: MemoryJournal, position_max: int = FAR) -> Folded | None:
    """What a start on this folder and journal begins with."""
    snapshots, models = Snapshots(folder), make()
    await snapshots.prepare()
    header = await snapshots.restore(journal, models, position_max)
    return None if header is None else Folded(models, header.position)


async def test_a_start_begins_where_the_newest_snapshot_ends(served: Served, tmp_path: Path) -> None:
    await some_commands(served)
    header = await take(served.journal, tmp_path, make)
    assert header is not None
    assert header.position == await served.journal.end()
    await some_commands(served)
    found = await restored(tmp_path, served.journal)
    assert found is not None
    assert found.position == header.position
    assert digest_of(found.models.dump()) == await digest_at(served.journal, header.position)
    await fold.fold(served.journal, found, await served.journal.end())
    assert digest_of(found.models.dump()) == await digest_at(served.journal)


async def test_the_next_snapshot_is_made_from_the_last_one_and_its_tail(served: Served, tmp_path: Path) -> None:
    await some_commands(served)
    first = await take(served.journal, tmp_path, make)
    assert await take(served.journal, tmp_path, make) is None  # nothing has happened since
    await some_commands(served)
    second = await take(served.journal, tmp_path, make)
    assert first is not None
    assert second is not None
    assert first.position < second.position
    assert digest_of(file.read(paths(tmp_path)[0])) == await digest_at(served.journal)


async def test_a_damaged_one_is_passed_over_for_the_one_before(
    served: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await some_commands(served)
    first = await take(served.journal, tmp_path, make)
    await some_commands(served)
    await take(served.journal, tmp_path, make)
    newest = paths(tmp_path)[0]
    newest.write_bytes(newest.read_bytes()[:-1])
    found = await restored(tmp_path, served.journal)
    assert found is not None
    assert first is not None
    assert found.position == first.position
    assert f"The snapshot {newest.name} is not used, because it is damaged" in caplog.text


async def test_one_that_is_ahead_of_the_index_is_passed_over(served: Served, tmp_path: Path) -> None:
    await some_commands(served)
    first = await take(served.journal, tmp_path, make)
    await some_commands(served)
    await take(served.journal, tmp_path, make)
    assert first is not None
    found = await restored(tmp_path, served.journal, first.position)
    assert found is not None
    assert found.position == first.position


async def stolen(journal: MemoryJournal, length: int) -> MemoryJournal:
    """A journal with the beginning of another one, as after a restore: it has the same name."""
    copy = MemoryJournal()
    copy._identity = journal._identity
    for key, payload in journal._messages[:length]:
        assert key is not None
        last = await copy.last(key)
        await copy.append([Append(key, last.position if last else 0, "", payload)])
    return copy


@pytest.mark.parametrize("kind", ["another stream", "ahead of the journal", "is another one"])
async def test_a_snapshot_of_another_journal_means_a_full_replay(
    served: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    caplog.set_level(logging.INFO)
    await some_commands(served)
    header = await take(served.journal, tmp_path, make)
    assert header is not None
    older = await stolen(served.journal, header.position - 2)
    if kind == "another stream":
        older._identity = "other"
    elif kind == "is another one":  # an older backup that went its own way since
        key = served.journal._messages[0][0]
        assert key is not None
        for n in range(3):
            last = await older.last(key)
            await older.append([Append(key, last.position if last else 0, f"{n}", b'{"v":1}')])
    assert await restored(tmp_path, older) is None
    assert kind in caplog.text
    assert "the whole journal is replayed" in caplog.text


async def test_an_empty_folder_is_no_trouble(served: Served, tmp_path: Path) -> None:
    assert await restored(tmp_path / "missing", served.journal) is None


async def test_progress_tells_of_the_tail(served: Served, tmp_path: Path) -> None:
    await some_commands(served)
    follower = served.node.follower
    follower.resume(follower.applied)
    follower.target = follower.applied + 100
    assert follower.progress()["etaSeconds"] is None  # nothing was applied yet, so nobody knows
    follower.applied += 50
    progress = follower.progress()
    assert (progress["applied"], progress["target"]) == (follower.applied, follower.target)
    seconds = progress["etaSeconds"]
    assert seconds is not None
    assert seconds >= 0
    follower.ready, follower.target = False, 0
    assert follower.progress()["etaSeconds"] is None  # a snapshot is being read


async def test_the_past_begins_at_the_nearest_snapshot_before_it(served: Served, tmp_path: Path) -> None:
    await some_commands(served)
    first = await take(served.journal, tmp_path, make)
    await some_commands(served)
    await take(served.journal, tmp_path, make)
    assert first is not None
    middle = first.position + 1
    folded = await models_at(served.journal, tmp_path, make, Moment(position=middle))
    assert folded.events_before == first.events
    assert digest_of(folded.models.dump()) == await digest_at(served.journal, middle)
    early = await models_at(served.journal, tmp_path, make, Moment(position=2))
    assert (early.events_before, early.position) == (0, 2)
    by_time = await models_at(served.journal, tmp_path, make, Moment(time=served.clock.now() - 5_000_001))
    assert by_time.position == first.position
    with pytest.raises(TooFar):
        await models_at(served.journal, None, make, Moment(position=middle), messages_max=3)


async def test_a_snapshot_under_load_is_of_exactly_one_position(served: Served, tmp_path: Path) -> None:
    await some_commands(served)
    taken: list[int] = []

    async def write_all_the_time() -> None:
        with trio.CancelScope() as load:
            while len(taken) < 3:
                await some_commands(served)
            load.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_all_the_time)
        while len(taken) < 3:
            before = await served.journal.end()
            header = await take(served.journal, tmp_path, make)
            if header is not None:
                taken.append(header.position)
                assert header.position >= before
                assert digest_of(file.read(paths(tmp_path)[0])) == await digest_at(served.journal, header.position)
            await served.create()
    assert len(taken) == 3
