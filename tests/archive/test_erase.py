"""What is private about a command can be erased; that it was there, and the proof of all else, stays."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from arc_es import codec
from arc_es.archive.journal import ArchivedJournal
from arc_es.domain.recorded import CommandKey
from arc_es.journal.memory import MemoryJournal
from arc_es.journal.subjects import event_subject
from arc_es.keyring import CheckpointSeeds
from arc_es.ports import Message
from arc_es.proof.audit import Audit
from arc_es.proof.proving import Proving
from arc_es.proof.tiles import Tiles
from arc_es.proof.verify import verify_export
from arc_es.storage.memory import MemoryBodyStore
from tests.archive.told import DAY, LARGE, archived, archiving, ended
from tests.http.driver import Clock, Served, a_command, failure, inline, serving, success
from tests.http.test_storage import downloaded, follow

SECRET = "Ada-Lovelace"
RAW = SECRET.encode()
HUGE = RAW * 20_000
"""Lies in the body store."""
WHY = "asked for, case 17"


async def erased(served: Served, command: str, reason: str = WHY) -> Any:
    """Erase, until all of it is gone."""
    with trio.fail_after(30):
        answer = (await served.client.post(f"/v1/commands/{command}/erase", {"reason": reason})).ok()
    assert answer["gone"]
    return answer


async def told_of(served: Served, command: str) -> list[Any]:
    ways = [f"/v1/commands/{command}{way}" for way in ("", "/payload", "?view=full", "/explain", "/events")]
    ways += ["/v1/commands", "/v1/events?after=0&limit=1000", f"/v1/commands?label=who:{SECRET}"]
    return [(await served.client.get(way)).ok() for way in ways]


def stored(journal: MemoryJournal) -> bytes:
    """All that is in the stream."""
    return b"\n".join(payload for _, payload in journal._messages)


def forms(raw: bytes) -> list[bytes]:
    """How bytes may be found again: as they are, or as base64 at each offset."""
    return [raw, *(base64.b64encode(b"x" * at + raw)[4:-4] for at in range(3))]


def holds(text: bytes) -> list[bytes]:
    return [form for form in forms(RAW) if form in text]


A_LIFE: dict[str, Any] = {
    "params": inline(RAW),
    "labels": {"who": SECRET},
    "idempotencyKey": SECRET,
}


async def test_everything_private_is_gone_and_everything_else_is_told() -> None:
    async with serving() as served:
        other = await ended(served)
        command = await ended(served, failure(message=SECRET, details=SECRET), **A_LIFE)
        before = await served.events(command)
        assert holds(stored(served.journal))
        answer = await erased(served, command)
        assert answer["erased"]["reason"] == WHY
        assert answer["erased"]["by"]["kind"] == "admin"
        assert not holds(stored(served.journal))
        for told in await told_of(served, command):
            assert SECRET not in str(told)
            assert base64.b64encode(RAW).decode() not in str(told)
        after = await served.events(command)
        assert [event["type"] for event in after] == [*(event["type"] for event in before), "CommandErased"]
        for now, then in zip(after, before, strict=False):
            assert now["erased"] is True
            assert {name: now[name] for name in ("seq", "id", "at", "hash", "commandId")} == {
                name: then[name] for name in ("seq", "id", "at", "hash", "commandId")
            }
            assert (now.get("prev"), now["by"]["id"]) == (then.get("prev"), then["by"]["id"])
        assert (await served.status(other))["response"]["response"] == success()["response"]


@pytest.mark.parametrize("answer", [success(RAW), success(LARGE + RAW), success(HUGE), failure(details=SECRET * 900)])
@pytest.mark.parametrize("params", [inline(RAW), inline(LARGE + RAW), inline(HUGE)], ids=["event", "beside", "store"])
async def test_bodies_are_gone_wherever_they_were(answer: dict[str, Any], params: dict[str, str]) -> None:
    async with serving() as served:
        command = await ended(served, answer, params=params)
        await erased(served, command)
        assert not holds(stored(served.journal))
        assert [name async for name in served.node.service.store.names()] == []
        payload = (await served.client.get(f"/v1/commands/{command}/payload")).ok()
        assert "params" not in payload
        code = answer.get("code", "COMMAND_ERASED")
        assert payload["response"] == {"status": "error", "code": code, "message": "What was answered has been erased"}
        assert (await served.status(command))["response"] == payload["response"]
        position = (await served.events(command))[-2]["seq"]
        then = (await served.client.get(f"/v1/commands/{command}?asOf={position}")).ok()
        assert then["response"] == payload["response"]


async def test_a_download_url_from_before_finds_nothing() -> None:
    async with serving() as served:
        command = await ended(served, success(HUGE))
        body = (await served.status(command))["response"]["response"]
        assert await downloaded(served, body) == HUGE
        await erased(served, command)
        url = body["storageGetRequest"]["backend"]["url"]
        path = url[url.index("/storage") :]
        (await served.client.get(f"/v1{path}")).refused(404, "OBJECT_NOT_FOUND")


async def test_who_erases_twice_changes_nothing() -> None:
    async with serving() as served:
        command = await ended(served, **A_LIFE)
        first = await erased(served, command)
        assert await erased(served, command, "another reason") == first
        assert (await served.types(command)).count("CommandErased") == 1


async def test_what_has_not_ended_is_not_erased() -> None:
    async with serving() as served:
        command = await served.create()
        answer = await served.client.post(f"/v1/commands/{command}/erase", {"reason": WHY})
        assert "cancel the command first" in answer.refused(400, "INVALID_STATE_TRANSITION")["message"]
        (await served.client.post("/v1/commands/cmd_no/erase", {"reason": WHY})).refused(404, "COMMAND_NOT_FOUND")
        (await served.client.post(f"/v1/commands/{command}/cancel", {"reason": SECRET})).ok()
        await erased(served, command)
        assert not holds(stored(served.journal))
        assert (await served.status(command))["response"]["code"] == "CANCELLED"


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": "  "}, {"reason": 7}, {"reason": None}])
async def test_a_reason_must_be_given(body: dict[str, Any]) -> None:
    async with serving() as served:
        command = await ended(served)
        (await served.client.post(f"/v1/commands/{command}/erase", body)).refused(422, "INVALID_REQUEST")


async def test_late_answers_to_an_erased_command_leave_nothing() -> None:
    async with serving() as served:
        command = await ended(served)
        (await served.respond(command, success(b"late"))).ok()
        await erased(served, command)
        types = await served.types(command)
        (await served.respond(command, success(RAW))).ok()
        (await served.respond(command, failure(message=SECRET))).ok()
        assert await served.types(command) == types
        assert not holds(stored(served.journal))


async def test_a_key_that_was_erased_still_finds_its_command() -> None:
    """Nobody knows any more what was asked under it; to run it twice would be worse than not to tell."""
    async with serving() as served:
        command = await ended(served, idempotencyKey="k", params=inline(b"one"))
        await erased(served, command)
        again = (await served.client.post("/v1/commands", a_command(idempotencyKey="k", params=inline(b"two")))).ok()
        assert (again["commandId"], again["state"]) == (command, "SUCCEEDED")
        served.clock.advance(DAY)
        other = await served.create(idempotencyKey="k")
        assert other != command
        assert await served.create(idempotencyKey="k") == other


async def test_an_erased_command_does_not_run_again() -> None:
    async with serving() as served:
        command = await ended(served, failure())
        await erased(served, command)
        answer = await served.client.post(f"/v1/commands/{command}/redrive")
        assert "erased" in answer.refused(400, "INVALID_STATE_TRANSITION")["message"]


async def test_a_late_answer_that_is_faster_is_erased_as_well() -> None:
    class Racing(MemoryJournal):
        meanwhile: Callable[[], Any] | None = None

        async def append(self, appends: Any) -> Any:
            if self.meanwhile is not None and b"CommandErased" in appends[0].payload:
                meanwhile, self.meanwhile = self.meanwhile, None
                await meanwhile()
            return await super().append(appends)

    journal = Racing()
    async with serving(journal) as served:
        command = await ended(served)

        async def late() -> None:
            (await served.respond(command, failure(code="LATE", message=SECRET))).ok()

        journal.meanwhile = late
        await erased(served, command)
        assert (await served.types(command))[-2:] == ["LateResponseRecorded", "CommandErased"]
        assert not holds(stored(journal))


# --- replay, other nodes, readers


async def test_replay_from_zero_is_the_live_state() -> None:
    journal, clock = MemoryJournal(), Clock()
    async with serving(journal, clock) as served:
        made = [await ended(served, idempotencyKey=str(number), labels={"n": "1"}) for number in range(4)]
        await ended(served, failure(message=SECRET), agent={"id": SECRET})
        await served.create()
        for command in made[:3]:
            await erased(served, command)
        live = dict(served.node.models.dump())
        before = [await told_of(served, command) for command in made]
    async with serving(journal, clock) as served:
        assert dict(served.node.models.dump()) == live
        assert [await told_of(served, command) for command in made] == before


async def test_another_node_forgets_as_well() -> None:
    journal, clock = MemoryJournal(), Clock()
    async with (
        serving(journal, clock) as one,
        serving(journal, clock) as other,
        serving(journal, clock, finished_in_memory_max=1) as third,
    ):
        command = await ended(one, success(LARGE + RAW), **A_LIFE)
        await ended(one)
        for node in (one, other, third):
            await node.node.follower.caught_up()
            assert SECRET in str(await told_of(node, command))
        await erased(one, command)
        first = await told_of(one, command)
        for node in (other, third):
            await node.node.follower.caught_up()
            assert await told_of(node, command) == first
            assert SECRET not in str(first)
        assert dict(other.node.models.dump()) == dict(one.node.models.dump())


async def test_the_index_is_that_of_a_replay() -> None:
    journal, clock = MemoryJournal(), Clock()
    for maximum in (1, 100):
        async with serving(journal, clock, finished_in_memory_max=maximum) as served:
            if maximum == 1:
                made = [await ended(served, failure(message=SECRET), labels={"who": SECRET}) for _ in range(3)]
                await erased(served, made[0])
                await erased(served, made[2])
                listed = (await served.client.get("/v1/commands")).ok()["commands"]
            assert (await served.client.get("/v1/commands")).ok()["commands"] == listed
            found = (await served.client.get(f"/v1/commands?label=who:{SECRET}")).ok()["commands"]
            assert [one["commandId"] for one in found] == [made[1]]


async def test_a_reader_of_the_feed_loses_nothing() -> None:
    async with serving() as served:
        command = await ended(served, **A_LIFE)
        first = (await served.client.get("/v1/events?after=0&limit=2")).ok()
        await erased(served, command)
        rest = (await served.client.get(f"/v1/events?after={first['next']}&limit=100")).ok()["events"]
        types = [event["type"] for event in [*first["events"], *rest] if event.get("commandId") == command]
        assert types == await served.types(command)
        assert SECRET not in str(rest)


# --- an archive


async def test_what_was_archived_is_erased_from_its_segment(tmp_path: Path) -> None:
    folder, journal, clock = tmp_path / "archive", MemoryJournal(), Clock()
    async with archiving(folder, journal, clock) as served:
        made = [await ended(served, success(LARGE + RAW), **A_LIFE | {"idempotencyKey": str(n)}) for n in range(3)]
        clock.advance(DAY)
        assert await archived(served) == 3
        (old,) = folder.glob("*.zst")
        await erased(served, made[1])
        (new,) = folder.glob("*.zst")
        assert old != new
        assert SECRET not in str((await told_of(served, made[1]))[:5])
        assert (await served.types(made[1]))[-2:] == ["CommandArchived", "CommandErased"]
        kept = [await told_of(served, command) for command in made]
        assert await archived(served) == 0
        await erased(served, made[0])
        await erased(served, made[2])
        assert not list(folder.glob("*.zst"))
        assert not holds(stored(journal))
    (folder / "catalog.sqlite").unlink()
    async with archiving(folder, journal, clock) as served:
        assert [(await served.types(command))[-1] for command in made] == ["CommandErased"] * 3
        assert kept[1][0] == await served.status(made[1])


async def test_what_was_erased_is_not_archived(tmp_path: Path) -> None:
    async with archiving(tmp_path / "archive") as served:
        command, other = await ended(served), await ended(served)
        await erased(served, command)
        served.clock.advance(DAY)
        assert await archived(served) == 1
        assert (await served.types(command))[-1] == "CommandErased"
        assert (await served.types(other))[-1] == "CommandArchived"
        assert await archived(served) == 0


# --- proof


def audited(messages: list[Message]) -> list[str]:
    audit = Audit(Tiles())
    audit.take([(one.position, event_subject(one.key), one.payload) for one in messages])
    return audit.end().problems


async def everything(served: Served) -> list[Message]:
    return await served.node.journal.page(0, 10_000, 1 << 30)


async def test_checkpoints_from_before_hold_and_exports_verify() -> None:
    proving = Proving(CheckpointSeeds(bytes(range(32))), Tiles(), event_subject)
    async with serving(proving=proving) as served:
        command = await ended(served, success(LARGE + RAW), **A_LIFE)
        export = await served.client.get(f"/v1/export?commandId={command}")
        kept = export.body.splitlines()[0]
        assert verify_export(export.body.splitlines(keepends=True)).problems == []
        await erased(served, command)
        assert audited(await everything(served)) == []
        for way in (f"bodies=true&commandId={command}", "deploymentId=dep", "since=2026-03-01T00:00:00Z"):
            export = await served.client.get(f"/v1/export?{way}")
            report = verify_export(export.body.splitlines(keepends=True))
            assert (report.problems, report.erased) == ([], 3)
            assert not holds(export.body)
        assert kept != export.body.splitlines()[0]


async def test_what_is_missing_and_was_not_erased_is_named() -> None:
    async with serving() as served:
        command = await ended(served, **A_LIFE)
        mine = CommandKey("dep", command)
        (problem,) = audited(
            [
                Message(one.position, one.key, codec.redacted(one.payload)) if one.key == mine else one
                for one in await everything(served)
            ]
        )
        assert "its private part is missing, though the command was not erased" in problem
        assert event_subject(mine) in problem


async def test_what_is_erased_of_version_1_is_only_told() -> None:
    """The chain goes on through its digest; a stub where none may be is found."""
    journal, clock = MemoryJournal(), Clock()
    async with serving(journal, clock) as served:
        command = await ended(served, **A_LIFE)
    as_of_version_1(journal)
    async with serving(journal, clock) as served:
        other = await ended(served)
        assert audited(await everything(served)) == []
        await erased(served, command)
        assert not holds(stored(journal))
        event = (await served.events(command))[-1]
        assert event["data"] == {"reason": WHY, "messages": 3, "unproven": 3}
        messages = await everything(served)
        assert audited(messages) == []
        live = dict(served.node.models.dump())
        stubs = [stub(one) if one.key == CommandKey("dep", other) else one for one in messages]
        assert "holds a stub" in str(audited(stubs))
    async with serving(journal, clock) as served:
        assert dict(served.node.models.dump()) == live


def stub(message: Message) -> Message:
    digest = codec.digest(message.payload).encode()
    payload = b'{"digest":"%b",%b' % (digest, codec.redacted(message.payload)[1:])
    return Message(message.position, message.key, payload)


def as_of_version_1(journal: MemoryJournal) -> None:
    """Write a journal as a program of before would have, the chains made anew."""
    import orjson

    before: dict[Any, str] = {}
    for at, (key, payload) in enumerate(journal._messages):
        if key is None:
            continue
        public, _, private = payload.partition(b"\n")
        said = orjson.loads(public)
        hidden = orjson.loads(private) if private else {}
        for event, more in zip(said["events"], hidden.get("events", []), strict=False):
            for name, value in more.items():
                event[name] = event[name] | value if name in event else value
        said["by"] |= hidden.get("by", {})
        said.pop("private", None)
        said["v"] = 1
        if key in before:
            said["prev"] = before[key]
        stored = orjson.dumps(said)
        before[key] = codec.digest(stored)
        journal._messages[at] = key, stored


# --- cut off


class CutOff(Exception):
    """The process was killed here."""


@pytest.mark.expects_errors
@pytest.mark.parametrize("step", ["append", "appended", "purge", "purged", "deleted", "forgotten"])
async def test_what_was_cut_off_is_finished(tmp_path: Path, step: str) -> None:
    class Cut(MemoryJournal):
        at: str = ""

        async def append(self, appends: Any) -> Any:
            is_mine = b"CommandErased" in appends[0].payload
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

    journal, clock, folder, store = Cut(), Clock(), tmp_path / "archive", MemoryBodyStore()
    command = ""
    with pytest.RaisesGroup(CutOff, flatten_subgroups=True):
        async with archiving(folder, journal, clock, store=store) as served:
            command = await ended(served, success(HUGE), **A_LIFE)
            clock.advance(DAY)
            assert await archived(served) == 1
            cut_at(served, step)
            journal.at = step
            with trio.move_on_after(5):
                await served.client.post(f"/v1/commands/{command}/erase", {"reason": WHY})
            raise CutOff
    journal.at = ""
    vars(store).pop("delete", None)
    async with archiving(folder, journal, clock, store=store) as served:
        await erased(served, command)
        assert (await served.types(command)).count("CommandErased") == 1
        assert not holds(stored(journal))
        assert not list(folder.glob("*.zst"))
        assert [name async for name in served.node.service.store.names()] == []


def cut_at(served: Served, step: str) -> None:
    """Let it end right after a step that is not the journal's."""
    journal, store = served.node.journal, served.node.service.store
    assert isinstance(journal, ArchivedJournal)
    forget, delete = journal.archive.forget, store.delete

    def forgotten(command_id: str) -> None:
        forget(command_id)
        raise CutOff

    async def deleted(name: str, *, overwrite: bool = False) -> None:
        await delete(name, overwrite=overwrite)
        raise CutOff

    if step == "forgotten":
        journal.archive.forget = forgotten  # type: ignore[method-assign]
    if step == "deleted":
        store.delete = deleted  # type: ignore[method-assign]


async def test_an_upload_that_was_never_used_is_gone_too() -> None:
    async with serving() as served:
        command = await served.create()
        (lease,) = await served.lease()
        (await follow(served, lease["envelope"]["responseHandling"]["storageUploadRequest"], HUGE)).ok()
        (await served.respond(command)).ok()
        await erased(served, command)
        left = [name async for name in served.node.service.store.names()]
        assert not [name for name in left if name.is_upload]
