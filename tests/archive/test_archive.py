"""Commands that ended long ago leave the stream, and answer as before."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from arc_es.archive.archive import CATALOG
from arc_es.archive.journal import ArchivedJournal
from arc_es.archive.segment import SUFFIX, ArchiveDamaged
from arc_es.codec import decode_recorded
from arc_es.config import Config, ConfigError, load
from arc_es.domain.recorded import CommandKey
from arc_es.journal.memory import MemoryJournal
from arc_es.journal.subjects import event_subject
from arc_es.keyring import CheckpointSeeds
from arc_es.ports import JournalMismatch, Message
from arc_es.proof.proving import Proving
from arc_es.proof.tiles import Tiles
from arc_es.proof.verify import verify_export
from projections import Projections
from tests.archive.told import DAY, LARGE, answers, archived, archiver_of, archiving, ended, opened
from tests.http.driver import Clock, Served, failure, inline, success
from tests.http.test_storage import downloaded


def folded(messages: list[Message]) -> Projections:
    models = Projections(Config().finished_in_memory_max)
    for message in messages:
        models.apply(decode_recorded(message.position, message.key, message.payload))
    return models


async def everything(served: Served) -> list[Message]:
    return await served.node.journal.page(0, 10_000, 1 << 30)


async def test_what_was_archived_answers_as_before(tmp_path: Path) -> None:
    stream = MemoryJournal()
    async with archiving(tmp_path / "archive", stream, finished_in_memory_max=1) as served:
        made = [
            await ended(served, params=inline(LARGE), labels={"a": "1"}),
            await ended(served, success(LARGE), idempotencyKey="once"),
            await ended(served, failure(details="y" * 10_000)),
            await ended(served),
        ]
        live = await served.create()
        before = [await answers(served, command) for command in made]
        log = await everything(served)
        size = stream._bytes
        assert await archived(served) == 0
        served.clock.advance(DAY)
        assert await archived(served) == 4
        assert await archived(served) == 0
        assert stream._bytes < size / 4
        for command, wanted in zip(made, before, strict=True):
            assert await answers(served, command) == wanted
            assert (await served.types(command))[-1] == "CommandArchived"
        assert (await everything(served))[: len(log)] == log
        assert (await served.status(live))["state"] == "PENDING"
        listed = (await served.client.get("/v1/commands?order=asc")).ok()["commands"]
        assert {one["commandId"] for one in listed} == {*made, live}


async def test_replay_from_zero_is_the_live_state(tmp_path: Path) -> None:
    journal, clock = MemoryJournal(), Clock()
    async with archiving(tmp_path / "archive", journal, clock) as served:
        made = [await ended(served, params=inline(LARGE)) for _ in range(3)]
        await served.create()
        clock.advance(DAY)
        await archived(served)
        (await served.respond(made[0], success(b"late"))).ok()
        before = [await answers(served, command) for command in made]
        live = dict(served.node.models.dump())
    async with archiving(tmp_path / "archive", journal, clock) as served:
        assert dict(served.node.models.dump()) == live
        assert [await answers(served, command) for command in made] == before
        assert await archived(served) == 0
        assert dict(folded(await everything(served)).dump()) == live


@pytest.mark.parametrize("page", [1, 2, 7, 512])
async def test_long_stretches_come_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr("arc_es.archive.journal.PAGE", page)
    journal, clock = MemoryJournal(), Clock()
    async with archiving(tmp_path / "archive", journal, clock) as served:
        for number in range(8):
            await ended(served)
            if number % 3 == 1:
                await served.create(deploymentId="live")
        clock.advance(DAY)
        assert await archived(served) == 8
        live = dict(served.node.models.dump())
        log = await everything(served)
        for size in (1, 3, 100):
            pages: list[Message] = []
            while more := await served.node.journal.page(pages[-1].position if pages else 0, size, 1 << 20):
                pages += more
            assert pages == log
    async with archiving(tmp_path / "archive", journal, clock) as served:
        assert dict(served.node.models.dump()) == live


async def test_late_answers_and_old_keys_after_the_archive(tmp_path: Path) -> None:
    async with archiving(tmp_path / "archive", finished_in_memory_max=1) as served:
        old = await ended(served, idempotencyKey="once")
        served.clock.advance(DAY)
        await ended(served)
        assert await archived(served) == 1
        for raw in (b"late", b"late"):
            (await served.respond(old, success(raw))).ok()
        assert (await served.types(old))[-2:] == ["CommandArchived", "LateResponseRecorded"]
        assert await served.create(idempotencyKey="once") != old
        assert (await served.status(old))["response"]["response"] == inline(b'{"rows":17}')


async def test_a_body_in_the_store_is_kept_for_what_was_archived(tmp_path: Path) -> None:
    huge = b"z" * 200_000
    async with archiving(tmp_path / "archive", finished_in_memory_max=1) as served:
        command = await ended(served, success(huge))
        served.clock.advance(3 * DAY)
        await ended(served)
        assert await archived(served) == 1
        assert await served.node.sweep.once() == 0
        assert await downloaded(served, (await served.status(command))["response"]["response"]) == huge


async def test_a_late_answer_is_faster_than_the_event(tmp_path: Path) -> None:
    """What was read is old by then: it is left alone, and archived in the next round."""

    class Racing(MemoryJournal):
        meanwhile: Callable[[], Any] | None = None

        async def append(self, appends: Any) -> Any:
            if self.meanwhile is not None and b"CommandArchived" in appends[0].payload:
                meanwhile, self.meanwhile = self.meanwhile, None
                await meanwhile()
            return await super().append(appends)

    journal = Racing()
    async with archiving(tmp_path / "archive", journal) as served:
        command = await ended(served)
        other = await ended(served)
        before = await answers(served, other)
        served.clock.advance(DAY)

        async def late() -> None:
            (await served.respond(command, success(b"late"))).ok()

        journal.meanwhile = late
        assert await archived(served) == 1
        assert await archived(served) == 1
        assert (await served.types(command))[-2:] == ["LateResponseRecorded", "CommandArchived"]
        assert await answers(served, other) == before


# --- cut off at each step


class CutOff(Exception):
    """The process was killed here."""


@pytest.mark.parametrize("step", ["append", "appended", "purge", "purged"])
async def test_what_was_cut_off_is_finished(tmp_path: Path, step: str) -> None:
    class Cut(MemoryJournal):
        at: str = ""

        async def append(self, appends: Any) -> Any:
            is_mine = b"CommandArchived" in appends[0].payload
            if is_mine and self.at == "append":
                raise CutOff
            outcomes = await super().append(appends)
            if is_mine and self.at == "appended":
                raise CutOff
            return outcomes

        async def purge(self, key: Any, before: int) -> None:
            if self.at == "purge":
                raise CutOff
            await super().purge(key, before)
            if self.at == "purged":
                raise CutOff

    journal, clock = Cut(), Clock()
    async with archiving(tmp_path / "archive", journal, clock) as served:
        made = [await ended(served, params=inline(LARGE)) for _ in range(3)]
        before = [await answers(served, command) for command in made]
        clock.advance(DAY)
        journal.at = step
        with pytest.raises(CutOff):
            await archived(served)
        journal.at = ""
    async with archiving(tmp_path / "archive", journal, clock) as served:
        assert [await answers(served, command) for command in made] == before
        assert await archived(served) == 3
        assert [await answers(served, command) for command in made] == before
        assert [(await served.types(command)).count("CommandArchived") for command in made] == [1, 1, 1]
        assert await archived(served) == 0
    left = [positions for key, positions in journal._histories.items() if isinstance(key, CommandKey)]
    assert [len(positions) for positions in left] == [1, 1, 1]


# --- damage


async def prepared(tmp_path: Path) -> tuple[MemoryJournal, Clock, str, list[Any]]:
    journal, clock = MemoryJournal(), Clock()
    async with archiving(tmp_path / "archive", journal, clock) as served:
        command = await ended(served, params=inline(LARGE))
        before = await answers(served, command)
        clock.advance(DAY)
        assert await archived(served) == 1
    return journal, clock, command, before


def segment_of(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "archive").glob(f"*{SUFFIX}")
    return path


async def test_a_catalog_is_made_again(tmp_path: Path) -> None:
    journal, clock, command, before = await prepared(tmp_path)
    for harm in (b"", b"no database" * 1000, None):
        for path in (tmp_path / "archive").glob(CATALOG + "-*"):
            path.unlink()
        catalog = tmp_path / "archive" / CATALOG
        catalog.unlink() if harm is None else catalog.write_bytes(harm)
        async with archiving(tmp_path / "archive", journal, clock) as served:
            assert await answers(served, command) == before


async def test_every_changed_byte_of_a_segment_is_noticed(tmp_path: Path) -> None:
    await prepared(tmp_path)
    path = segment_of(tmp_path)
    whole = path.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 100)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        (tmp_path / "archive" / CATALOG).unlink(missing_ok=True)
        with pytest.raises(ArchiveDamaged, match=path.name):
            opened(tmp_path / "archive")
    for length in range(0, len(whole), max(1, len(whole) // 50)):
        path.write_bytes(whole[:length])
        with pytest.raises(ArchiveDamaged, match=path.name):
            opened(tmp_path / "archive")


async def test_a_damaged_segment_is_an_error_and_never_another_answer(tmp_path: Path) -> None:
    journal, *_ = await prepared(tmp_path)
    path = segment_of(tmp_path)
    frames = zstandard.ZstdDecompressor().decompressobj()
    first = frames.decompress(path.read_bytes())
    other = zstandard.ZstdCompressor().compress(first.replace(b"report/build", b"report/other"))
    archive = opened(tmp_path / "archive")
    path.write_bytes(other + frames.unused_data)
    merged = ArchivedJournal(journal, archive)
    with pytest.raises(ArchiveDamaged, match=path.name):
        await merged.page(0, 10, 1 << 20)
    with pytest.raises(ArchiveDamaged, match=path.name):
        await merged.follow(0, lambda position, key, payload: None)
    path.unlink()
    with pytest.raises(ArchiveDamaged, match=path.name):
        await merged.page(0, 10, 1 << 20)
    with pytest.raises(ArchiveDamaged, match=path.name):
        opened(tmp_path / "archive")


async def test_a_lost_archive_is_an_error(tmp_path: Path) -> None:
    journal, *_ = await prepared(tmp_path)
    name = segment_of(tmp_path).name
    shutil.rmtree(tmp_path / "archive")
    merged = ArchivedJournal(journal, opened(tmp_path / "archive"))
    with pytest.raises(ArchiveDamaged, match=name):
        await merged.page(0, 10, 1 << 20)
    with pytest.raises(ArchiveDamaged, match=name):
        await merged.follow(0, lambda position, key, payload: None)


async def test_damage_while_the_service_runs_is_a_clear_error(tmp_path: Path) -> None:
    async with archiving(tmp_path / "archive", finished_in_memory_max=1) as served:
        command = await ended(served)
        served.clock.advance(DAY)
        await ended(served)
        assert await archived(served) == 1
        segment_of(tmp_path).write_bytes(b"damaged")
        answer = await served.client.get(f"/v1/commands/{command}/events")
        answer.refused(503, "JOURNAL_UNAVAILABLE")


@pytest.mark.expects_errors
async def test_what_the_archive_does_not_have_is_never_purged(tmp_path: Path) -> None:
    """Whatever happened to the files between the event and the purge."""
    journal, clock = MemoryJournal(), Clock()
    async with archiving(tmp_path / "archive", journal, clock) as served:
        command, other = await ended(served, params=inline(LARGE)), await ended(served)
        before = await answers(served, command)
        clock.advance(DAY)
        archiver = archiver_of(served)
        purge, journal.purge = journal.purge, no_purge  # type: ignore[method-assign]
        assert await archived(served, archiver) == 2
        journal.purge = purge  # type: ignore[method-assign]
        merged = served.node.journal
        assert isinstance(merged, ArchivedJournal)
        with sqlite3.connect(tmp_path / "archive" / CATALOG) as catalog:
            catalog.execute("UPDATE commands SET is_purged = 0")
            catalog.execute("DELETE FROM messages WHERE NOT is_event")
        catalog.close()
        assert await archived(served) == 1
        assert await answers(served, command) == before
        left = [len(journal._histories[CommandKey("dep", one)]) for one in (command, other)]
        assert left == [4, 1]


async def no_purge(key: CommandKey, before: int) -> None:
    """As if the process had ended here."""


async def test_an_archive_of_another_journal_is_refused(tmp_path: Path) -> None:
    await prepared(tmp_path)
    with pytest.raises(JournalMismatch):
        await ArchivedJournal(MemoryJournal(), opened(tmp_path / "archive")).check()


async def test_a_round_begins_where_something_is_left(tmp_path: Path) -> None:
    """And what ends late in the middle of what is archived is found all the same."""
    async with archiving(tmp_path / "archive") as served:
        archiver = archiver_of(served)
        slow = await served.create(deploymentId="slow")
        made = [await ended(served) for _ in range(5)]
        served.clock.advance(DAY)
        assert await archived(served, archiver) == 5
        await served.lease(deploymentId="slow")
        (await served.respond(slow)).ok()
        assert await archived(served, archiver) == 0
        served.clock.advance(DAY)
        assert await archived(served, archiver) == 1
        assert await archived(served, archiver) == 0
        assert [(await served.types(command))[-1] for command in (slow, *made)] == ["CommandArchived"] * 6


async def test_proofs_go_on_over_what_was_archived(tmp_path: Path) -> None:
    """The tree made again from stream and archive is the one that was signed before."""
    stream, clock = MemoryJournal(), Clock()
    command = ""
    for made_anew in (False, True):
        tiles = Tiles()
        proving = Proving(CheckpointSeeds(bytes(range(32))), tiles, event_subject)
        async with archiving(tmp_path / "archive", stream, clock, proving=proving) as served:
            command = command or await ended(served, params=inline(LARGE))
            for ways in ("", "bodies=true&"):
                export = await served.client.get(f"/v1/export?{ways}commandId={command}")
                assert export.status == 200
                report = verify_export(export.body.splitlines(keepends=True))
                assert not report.problems
                assert (report.messages, report.bodies) == (4 if made_anew else 3, 1 if ways else 0)
            clock.advance(DAY)
            if not made_anew:
                assert await archived(served) == 1
        tiles.close()


def test_the_setting_is_a_day_at_least_and_not_for_a_shared_nats() -> None:
    assert load({}, {}).archive_after_seconds == -1
    assert load({}, {"ARC_ARCHIVE_AFTER_SECONDS": "86400"}).archive_after_seconds == DAY
    for wrong in ("0", "86399", "inf", "nan", "-2"):
        with pytest.raises(ConfigError, match="archive_after_seconds"):
            load({}, {"ARC_ARCHIVE_AFTER_SECONDS": wrong})
    with pytest.raises(ConfigError, match="nats_url"):
        load({"nats_url": "nats://127.0.0.1:4222"}, {"ARC_ARCHIVE_AFTER_SECONDS": "86400"})
