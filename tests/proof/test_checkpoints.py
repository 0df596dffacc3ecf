"""Who signs when, with which key, and what is done when the log is not what was signed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from arc_es.codec import decode
from arc_es.domain.events import CheckpointKeyAdded, CheckpointSigned
from arc_es.domain.merkle import is_consistent
from arc_es.domain.recorded import CommandKey, LogKey
from arc_es.journal.memory import Fault, MemoryJournal
from arc_es.journal.subjects import event_subject
from arc_es.keyring import CheckpointSeeds, KeyFileError, checkpoint_seeds
from arc_es.ports import JournalUnavailable
from arc_es.proof.audit import Audit, AuditReport, digests_in
from arc_es.proof.checkpoints import Checkpoints
from arc_es.proof.log import LogChanged, TreeUnavailable
from arc_es.proof.notes import Checkpoint, NoteSigner, parse_checkpoint, parse_note, parse_verifier
from arc_es.proof.proving import Proving
from arc_es.proof.tiles import Tiles, in_directory
from arc_es.proof.verify import verify_export
from tests.http.driver import Served, serving
from tests.proof.conftest import SEED

NEXT_SEED = bytes(32)


def checkpoints_of(served: Served) -> Checkpoints:
    found = served.node.checkpoints
    assert found is not None
    return found


def latest(served: Served) -> Checkpoint:
    stored = served.node.models.checkpoints.latest
    assert stored is not None
    return parse_checkpoint(parse_note(stored.note))


async def log_events(journal: MemoryJournal) -> list[object]:
    page = await journal.page(0, 10_000, 1 << 30)
    return [event for one in page if isinstance(one.key, LogKey) for event in decode(one.payload).events]


async def audited(journal: MemoryJournal, **more: str) -> AuditReport:
    tiles = Tiles()
    key = more.pop("key", None)
    audit = Audit(tiles, key=None if key is None else parse_verifier(key), **more)
    for one in await journal.page(0, 10_000, 1 << 30):
        audit.take([(one.position, event_subject(one.key), one.payload)])
    report = audit.end()
    tiles.close()
    return report


async def test_a_checkpoint_comes_by_itself_when_something_is_new(served: Served) -> None:
    """Not more often than the period, and none when there is nothing to sign but the last one."""
    await trio.sleep(1)
    assert [type(one) for one in await log_events(served.journal)] == [CheckpointKeyAdded]
    await served.create()
    await served.node.follower.changed(LogKey("2026-03-01"))
    assert [type(one) for one in await log_events(served.journal)] == [CheckpointKeyAdded, CheckpointSigned]
    served.clock.advance(3_600)
    await trio.sleep(3_600)
    assert len(await log_events(served.journal)) == 2
    assert (await audited(served.journal)).problems == []


async def test_any_two_checkpoints_are_consistent(served: Served, tiles: Tiles) -> None:
    signer, signed = checkpoints_of(served), []
    for _ in range(12):
        await served.create()
        await signer.sign()
        signed.append(latest(served))
    tree = served.node.service.exports
    assert tree is not None
    for number, old in enumerate(signed):
        for new in signed[number:]:
            path = tree.tree.consistency(old.size, new)
            assert is_consistent(old.size, old.root, new.size, new.root, path)
    report = await audited(served.journal)
    assert (report.problems, report.checkpoints, report.covered) == ([], 12, signed[-1].size)


async def test_the_last_checkpoint_covers_everything(served: Served) -> None:
    await served.create()
    await checkpoints_of(served).last()
    report = await audited(served.journal)
    assert (report.problems, report.messages - report.covered) == ([], 1)


async def test_a_full_journal_is_left_to_the_commands(served: Served) -> None:
    await served.create()
    end = await served.journal.end()
    served.journal.bytes_max = 1
    await checkpoints_of(served).last()
    with pytest.raises(JournalUnavailable):
        await checkpoints_of(served).covering(None)
    assert await served.journal.end() == end


@pytest.mark.parametrize("fault", [Fault.UNAVAILABLE, Fault.LOST_SEND])
async def test_trouble_is_over_when_it_is_over(served: Served, fault: Fault) -> None:
    await served.create()
    served.journal.fault = fault
    await checkpoints_of(served).last()  # logs a warning
    served.journal.fault = None
    await checkpoints_of(served).sign()
    assert (await audited(served.journal)).checkpoints in (1, 2)  # the one that met the trouble may be there as well


# --- several nodes, restarts


async def nodes(stack: AsyncExitStack, *seeds: CheckpointSeeds, journal: MemoryJournal) -> list[Served]:
    found = []
    for one in seeds:
        tiles = Tiles()
        stack.callback(tiles.close)
        found.append(await stack.enter_async_context(serving(journal, proving=Proving(one, tiles, event_subject))))
    return found


async def test_one_of_several_nodes_signs() -> None:
    journal, seeds = MemoryJournal(), CheckpointSeeds(SEED)
    async with AsyncExitStack() as stack:
        one, other, third = await nodes(stack, seeds, seeds, seeds, journal=journal)
        await trio.sleep(1)
        await one.create()
        async with trio.open_nursery() as nursery:
            for node in (one, other, third):
                nursery.start_soon(checkpoints_of(node).sign, 30_000_000)
        found = await log_events(journal)
        assert [type(event) for event in found] == [CheckpointKeyAdded, CheckpointSigned]
    assert (await audited(journal)).problems == []


async def test_nodes_with_keys_of_their_own_sign_the_same_log() -> None:
    journal = MemoryJournal()
    async with AsyncExitStack() as stack:
        one, other = await nodes(stack, CheckpointSeeds(SEED), CheckpointSeeds(NEXT_SEED), journal=journal)
        await trio.sleep(1)
        for node in (one, other):
            await node.create()
            await checkpoints_of(node).sign()
        for node in (one, other, one):
            answer = await node.client.get("/v1/export?deploymentId=dep")
            assert verify_export(answer.body.splitlines(keepends=True)).problems == []
    report = await audited(journal)
    assert (report.problems, len(report.keys), len(report.unvouched)) == ([], 2, 1)
    assert report.checkpoints >= 4


async def life(journal: MemoryJournal, folder: Path, seeds: CheckpointSeeds) -> None:
    """One life of a node: it starts, makes a command, signs, and is gone."""
    tiles = Tiles(in_directory(folder))
    async with serving(journal, proving=Proving(seeds, tiles, event_subject)) as served:
        await trio.sleep(1)
        await served.create()
        await checkpoints_of(served).sign()
        await served.create()
        await served.node.service.exports.tree.catch_up()  # type: ignore[union-attr]
    tiles.close()


def cut(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil(folder: Path) -> None:
    path = folder / "level-0"
    path.write_bytes(bytes(path.stat().st_size))


def spoil_tail(folder: Path) -> None:
    """What a power loss may leave of what was not synced."""
    path = folder / "level-0"
    path.write_bytes(path.read_bytes()[:-32] + bytes(32))


def lose(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize("harm", [lambda folder: None, cut, spoil, spoil_tail, lose])
async def test_restarts_go_on_whatever_became_of_the_files(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    journal = MemoryJournal()
    for _ in range(3):
        await life(journal, tmp_path / "tree", CheckpointSeeds(SEED))
        harm(tmp_path / "tree")
    report = await audited(journal)
    assert (report.problems, report.checkpoints, len(report.keys)) == ([], 3, 1)


# --- keys


async def test_a_new_key_is_vouched_for_by_the_old_one(tmp_path: Path) -> None:
    journal = MemoryJournal()
    await life(journal, tmp_path / "tree", CheckpointSeeds(SEED))
    old_file = tmp_path / "old"
    old_file.write_bytes(SEED)
    await life(journal, tmp_path / "tree", CheckpointSeeds(NEXT_SEED, SEED, old_file))
    assert not old_file.exists()
    report = await audited(journal)
    assert (report.problems, len(report.keys), report.unvouched) == ([], 2, ())
    first, second = report.keys
    assert (await audited(journal, key=first)).problems == []
    assert "not signed by the key given" in str((await audited(journal, key=second)).problems)


def test_the_files_of_the_keys(tmp_path: Path) -> None:
    made = checkpoint_seeds(tmp_path)
    assert len(made.current) == 32
    assert (tmp_path / "checkpoint.key").stat().st_mode & 0o777 == 0o600
    assert checkpoint_seeds(tmp_path) == made
    assert made.current.hex() not in repr(made)
    (tmp_path / "checkpoint.key").rename(tmp_path / "checkpoint.key.old")
    (tmp_path / "checkpoint.key.old").chmod(0o600)
    after = checkpoint_seeds(tmp_path)
    assert after.old == made.current != after.current
    after.forget_old()
    assert checkpoint_seeds(tmp_path).old is None
    (tmp_path / "checkpoint.key").write_bytes(b"short")
    with pytest.raises(KeyFileError, match="5 bytes"):
        checkpoint_seeds(tmp_path)


# --- a history that was changed


def rewrite(journal: MemoryJournal, position: int) -> None:
    """What somebody does who can write to the stream's files."""
    key, payload = journal._messages[position - 1]
    changed = payload.replace(b'"by":{"id":"', b'"by":{"id":"not ')
    assert changed != payload
    journal._messages[position - 1] = key, changed


async def created_and_signed(served: Served) -> int:
    """The position of a command that a checkpoint covers."""
    command_id = await served.create()
    await served.lease()
    await checkpoints_of(served).sign()
    (first, _) = await served.journal.history(CommandKey("dep", command_id))
    return first.position


async def test_a_change_is_found_by_the_chain_and_by_the_tree(served: Served) -> None:
    position = await created_and_signed(served)
    rewrite(served.journal, position)
    found = str((await audited(served.journal)).problems)
    assert "chain is broken" in found
    assert "was signed over other ones" in found


async def test_a_removed_tail_is_found(served: Served) -> None:
    await created_and_signed(served)
    kept = served.node.models.checkpoints.latest
    assert kept is not None
    journal = MemoryJournal()
    journal._messages = served.journal._messages[: kept.covered - 1]
    assert (await audited(journal)).problems == []  # nobody can tell
    assert "are here" in str((await audited(journal, witnessed=kept.note)).problems)
    journal._messages = served.journal._messages[: kept.covered - 1] + served.journal._messages[kept.position - 1 :]
    assert "was signed over other ones" in str((await audited(journal)).problems)


async def test_another_log_does_not_go_on_from_a_kept_checkpoint(served: Served) -> None:
    await created_and_signed(served)
    kept = served.node.models.checkpoints.latest
    assert kept is not None
    assert (await audited(served.journal, witnessed=kept.note)).problems == []
    other = NoteSigner("arc-es/other", NEXT_SEED)
    assert "not a key of this log" in str((await audited(served.journal, key=str(other.verifier))).problems)


async def test_a_node_does_not_sign_over_a_changed_history(tmp_path: Path, tiles: Tiles) -> None:
    journal = MemoryJournal()
    seeds = CheckpointSeeds(SEED)
    async with serving(journal, proving=Proving(seeds, tiles, event_subject)) as served:
        await trio.sleep(1)
        position = await created_and_signed(served)
    rewrite(journal, position)
    fresh = Tiles()
    async with serving(journal, proving=Proving(seeds, fresh, event_subject)) as served:
        await served.create()
        with pytest.raises(LogChanged):
            await checkpoints_of(served).sign()
        answer = await served.client.get("/v1/export?deploymentId=dep")
        answer.refused(500, "LOG_CHANGED")
    fresh.close()


async def test_no_proof_is_handed_out_that_does_not_hold(served: Served, tiles: Tiles) -> None:
    command_id = await served.create()
    await checkpoints_of(served).sign()
    exports, stored = served.node.service.exports, served.node.models.checkpoints.latest
    assert exports is not None
    assert stored is not None
    (message,) = await served.journal.history(CommandKey("dep", command_id))
    tiles.truncate(0)
    tiles.extend([(position, bytes(32)) for position in (1, 2)])
    with pytest.raises(TreeUnavailable):
        exports.tree.inclusion(message, latest(served))
    await served.create()
    assert (await served.client.get(f"/v1/commands/{command_id}/proof")).status == 200  # made again


@pytest.mark.expects_errors
async def test_a_broken_chain_is_told_by_the_history(served: Served) -> None:
    command_id = await served.create()
    await served.lease()
    answer = (await served.client.get(f"/v1/commands/{command_id}/events")).ok()
    assert "chainBrokenAt" not in answer
    first, second = await served.journal.history(CommandKey("dep", command_id))
    rewrite(served.journal, first.position)
    answer = (await served.client.get(f"/v1/commands/{command_id}/events")).ok()
    assert answer["chainBrokenAt"] == second.position
    assert len(answer["events"]) == 2


def test_prev_is_found_where_it_is() -> None:
    sha = "ab" * 32
    assert digests_in(b'{"v":1,"by":{"id":"x"},"prev":"%b","events":[]}' % sha.encode())[0] == sha.encode()
    assert digests_in(b'{"v":1,"by":{"id":",\\"prev\\":\\""},"events":[{"labels":{"a":1,"prev":"x"}}]}') == (None, None)
    assert digests_in(b'{"prev": "x", "events": []}')[0] == b"x"
    with pytest.raises(ValueError, match="invalid literal"):
        digests_in(b"no json")
