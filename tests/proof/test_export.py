"""An export verifies, and whatever is done to it is noticed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from arc_es.codec import digest
from arc_es.domain.merkle import leaf_data, leaf_hash
from arc_es.domain.recorded import CommandKey, Key
from arc_es.ports import Message
from arc_es.proof import export
from arc_es.proof.format import Tally, line
from arc_es.proof.notes import NoteSigner, key_note, parse_checkpoint, parse_note, sign
from arc_es.proof.verify import Report, verify_export
from tests.http.driver import Served, inline, success
from tests.proof.conftest import SEED

LARGE = b"x" * 5_000
"""More than fits an event: a message of its own."""


def checked(exported: bytes, **more: Any) -> Report:
    return verify_export(exported.splitlines(keepends=True), **more)


def problems(exported: bytes, **more: Any) -> str:
    found = checked(exported, **more).problems
    assert found, "nothing was noticed"
    return "\n".join(found)


async def a_life(served: Served, params: bytes = b"{}") -> str:
    """A command that was answered."""
    command_id = await served.create(params=inline(params))
    await served.lease()
    assert (await served.respond(command_id, success(b'{"rows":17}'))).status == 200
    return command_id


async def exported(served: Served, query: str) -> bytes:
    answer = await served.client.get(f"/v1/export?{query}")
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/jsonl"
    return answer.body


async def test_a_command_is_exported_whole(served: Served) -> None:
    await a_life(served)
    command_id = await a_life(served, LARGE)
    proof = await served.client.get(f"/v1/commands/{command_id}/proof?bodies=true")
    report = checked(proof.body)
    assert report.problems == []
    assert (report.messages, report.events, report.bodies) == (3, 3, 1)
    assert report.scope == (f"history arc.event.command.dep.{command_id}",)
    assert report.checkpoint is not None
    assert report.checkpoint.size >= 7
    assert not report.trusted
    (key,) = report.signers
    assert checked(proof.body, key=key).trusted
    assert proof.body == await exported(served, f"commandId={command_id}&bodies=true")


async def test_the_checkpoint_is_a_signed_note(served: Served) -> None:
    (await served.client.get("/v1/checkpoint")).refused(404, "CHECKPOINT_NOT_FOUND")
    command_id = await a_life(served)
    await served.client.get(f"/v1/commands/{command_id}/proof")
    answer = await served.client.get("/v1/checkpoint")
    note = parse_note(answer.body.decode())
    checkpoint = parse_checkpoint(note)
    assert answer.headers["content-type"].startswith("text/plain")
    assert note.signed_by([NoteSigner(checkpoint.origin, SEED).verifier])


async def test_nothing_new_signs_nothing_new(served: Served) -> None:
    command_id = await a_life(served)
    first = await exported(served, f"commandId={command_id}")
    end = await served.journal.end()
    assert await exported(served, f"commandId={command_id}") == first
    await exported(served, "deploymentId=dep")
    assert await served.journal.end() == end


async def test_several_commands_a_deployment_and_a_time(served: Served) -> None:
    ids = [await a_life(served) for _ in range(3)]
    other = await served.create(deploymentId="other")
    both = checked(await exported(served, f"commandId={ids[0]}&commandId={ids[2]}"))
    assert (both.problems, both.messages) == ([], 6)
    deployment = checked(await exported(served, "deploymentId=dep"))
    assert (deployment.problems, deployment.messages) == ([], 9)
    served.clock.advance(60)
    late = await a_life(served)
    everything = checked(await exported(served, "since=2026-03-01T00:00:00Z"))
    assert everything.problems == []
    assert everything.messages >= 13
    minute = await exported(served, "since=2026-03-01T10:01:00Z&until=2026-03-01T11:00:00Z")
    report = checked(minute)
    assert (report.problems, late.encode() in minute, other.encode() in minute) == ([], True, False)
    empty = checked(await exported(served, "since=2030-01-01T00:00:00Z"))
    assert (empty.problems, empty.messages) == ([], 0)


async def test_a_deployment_is_exported_by_its_commands_and_nothing_else_is_read(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it costs what it holds, however long the log is."""
    monkeypatch.setattr(export, "KEYS_PAGE", 2)
    ids = [await a_life(served) for _ in range(5)]
    await served.create(deploymentId="other")
    await exported(served, "deploymentId=dep")  # the tree has caught up now
    read: list[CommandKey] = []
    history = served.journal.history

    async def seen(key: Key) -> list[Message]:
        assert isinstance(key, CommandKey)
        read.append(key)
        return await history(key)

    monkeypatch.setattr(served.journal, "history", seen)
    monkeypatch.setattr(export.Exports, "_between", None)
    report = checked(await exported(served, "deploymentId=dep"))
    assert (report.problems, report.messages) == ([], 15)
    assert {key.command_id for key in read} == set(ids)
    empty = checked(await exported(served, "deploymentId=none"))
    assert (empty.problems, empty.messages) == ([], 0)


@pytest.mark.parametrize(
    "query",
    ["", "commandId=a&deploymentId=b", "since=yesterday", "deploymentId=a&bodies=yes", "deploymentId=a&from=-1"],
)
async def test_what_is_asked_wrongly(served: Served, query: str) -> None:
    assert (await served.client.get(f"/v1/export?{query}")).status in (400, 404, 422)


async def test_an_older_checkpoint_larger_than_the_log(served: Served) -> None:
    command_id = await a_life(served)
    (await served.client.get(f"/v1/commands/{command_id}/proof?from=1000")).refused(400, "INVALID_COMMAND")


async def test_a_node_that_does_not_sign(served: Served) -> None:
    served.node.service.exports = None
    (await served.client.get("/v1/checkpoint")).refused(404, "CHECKPOINT_NOT_FOUND")


# --- doing harm


async def test_no_byte_can_be_changed(served: Served) -> None:
    """Each byte of a small export in turn, one bit of it: verify notices, and never breaks."""
    command_id = await a_life(served, LARGE[:10])
    raw = await exported(served, f"commandId={command_id}&bodies=true")
    assert checked(raw).problems == []
    for at in range(len(raw)):
        changed = raw[:at] + bytes([raw[at] ^ (1 << at % 8)]) + raw[at + 1 :]
        assert checked(changed).problems, (at, changed[max(0, at - 30) : at + 30])


def lines_of(raw: bytes) -> list[Any]:
    return [json.loads(one) for one in raw.splitlines()]


def written(records: list[Any]) -> bytes:
    return b"".join(map(line, records))


async def test_a_changed_payload_is_named(served: Served) -> None:
    command_id = await a_life(served)
    records = lines_of(await exported(served, f"commandId={command_id}"))
    payload = base64.b64decode(records[3]["payload"]).replace(b'"by":{"id":"', b'"by":{"id":"not ')
    records[3]["payload"] = base64.b64encode(payload).decode()
    (found,) = checked(written(records)).problems
    assert f"seq {records[3]['position']} of arc.event.command.dep.{command_id}, message 3" in found
    assert "CommandSucceeded" in found


async def test_a_changed_body_is_named(served: Served) -> None:
    command_id = await a_life(served)
    records = lines_of(await exported(served, f"commandId={command_id}"))
    payload = base64.b64decode(records[1]["payload"]).replace(b'"e30="', b'"W10="')
    records[1]["payload"] = base64.b64encode(payload).decode()
    assert f"seq {records[1]['position']} of" in problems(written(records))
    assert "The private part of a stored message is not the one that was stored with it" in problems(written(records))


Harm = Callable[[list[Any]], list[Any]]


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        pytest.param(lambda r: r[:-1], "cut off", id="no manifest"),
        pytest.param(lambda r: [*r[:-2], r[-1]], "missing", id="last message"),
        pytest.param(lambda r: [r[0], *r[2:]], "the message before it is missing", id="first message"),
        pytest.param(lambda r: [*r[:2], *r[3:]], "chain is broken", id="middle message"),
        pytest.param(lambda r: [r[0], r[1], r[3], r[2], *r[4:]], "chain is broken", id="order"),
        pytest.param(lambda r: [*r[:2], r[1], *r[2:]], "chain is broken", id="twice"),
        pytest.param(lambda r: [*r, r[1]], "nothing may follow", id="after the end"),
        pytest.param(lambda r: r[1:], "is no arc-es-export/1", id="no header"),
        pytest.param(lambda r: [], "empty", id="empty"),
        pytest.param(lambda r: [r[0], {**r[1], "more": 1}, *r[2:]], "no line of an export", id="more fields"),
        pytest.param(lambda r: [r[0], {**r[1], "index": r[1]["index"] + 1}, *r[2:]], "not what was signed", id="index"),
        pytest.param(lambda r: [r[0], {**r[1], "proof": r[1]["proof"][1:]}, *r[2:]], "not what was signed", id="proof"),
        pytest.param(lambda r: [{**r[0], "scope": ["history x"]}, *r[1:]], "history x is missing", id="scope"),
        pytest.param(lambda r: [{**r[0], "keys": []}, *r[1:]], "not signed", id="keys"),
    ],
)
async def test_harm_is_told(served: Served, harm: Harm, told: str) -> None:
    command_id = await a_life(served)
    await a_life(served)
    records = lines_of(await exported(served, f"commandId={command_id}"))
    assert told in problems(written(harm(records)))


async def test_messages_cannot_change_places_between_commands(served: Served) -> None:
    ids = [await a_life(served) for _ in range(2)]
    records = lines_of(await exported(served, f"commandId={ids[0]}&commandId={ids[1]}"))
    one, other = records[3], records[6]
    one["payload"], other["payload"] = other["payload"], one["payload"]
    assert problems(written(records)).count("not what was signed") == 2
    one["payload"], other["payload"] = other["payload"], one["payload"]
    one["subject"], other["subject"] = other["subject"], one["subject"]
    assert problems(written(records)).count("not what was signed") == 2


async def test_a_command_cannot_be_left_out(served: Served) -> None:
    ids = [await a_life(served) for _ in range(2)]
    records = lines_of(await exported(served, f"commandId={ids[0]}&commandId={ids[1]}"))
    assert "is missing" in problems(written([*records[:4], records[-1]]))
    deployment = lines_of(await exported(served, "deploymentId=dep"))
    assert "something is missing" in problems(written([*deployment[:4], deployment[-1]]))
    period = lines_of(await exported(served, "since=2026-03-01T00:00:00Z"))
    assert "missing" in problems(written([*period[:4], *period[5:]]))


async def test_a_body_cannot_be_changed_or_left_out(served: Served) -> None:
    command_id = await a_life(served, LARGE)
    records = lines_of(await exported(served, f"commandId={command_id}&bodies=true"))
    assert "body" in records[2]
    assert "something is missing" in problems(written([*records[:2], *records[3:]]))
    records[2]["body"]["base64"] = base64.b64encode(LARGE[:-1] + b"y").decode()
    assert "event 0, field params is not the one" in problems(written(records))


async def test_a_forger_needs_the_key(served: Served) -> None:
    """Who signs all of it anew is a stranger to who has the right key."""
    command_id = await a_life(served)
    raw = await exported(served, f"commandId={command_id}")
    checkpoint = checked(raw).checkpoint
    assert checkpoint is not None
    other = str(NoteSigner(checkpoint.origin, bytes(32)).verifier)
    assert "not by the key given" in problems(raw, key=other)


async def test_a_key_put_into_the_file_signs_no_manifest(served: Served) -> None:
    """Leave out the last event, and sign that with a key of one's own, announced in the file as keys are."""
    command_id = await a_life(served)
    records = lines_of(await exported(served, f"commandId={command_id}"))
    genuine = parse_checkpoint(parse_note(records[0]["checkpoint"]))
    forger = NoteSigner(genuine.origin, bytes(32))
    tally = Tally()
    for one in records[1:3]:
        tally.message(leaf_hash(leaf_data(one["position"], one["subject"], digest(base64.b64decode(one["payload"])))))
    manifest = tally.manifest(genuine.origin, genuine.size, records[0]["scope"], with_bodies=False)
    records[0]["keys"].append(key_note(forger, None))
    forged = written([*records[:3], {"manifest": sign(manifest, forger)}])
    assert "nobody vouches for" in problems(forged)
    assert "nobody vouches for" in problems(forged, key=str(NoteSigner(genuine.origin, SEED).verifier))


# --- a checkpoint that was kept


async def test_the_log_went_on_from_a_kept_checkpoint(served: Served) -> None:
    command_id = await a_life(served)
    first = await exported(served, f"commandId={command_id}")
    kept = lines_of(first)[0]["checkpoint"]
    assert checked(first, witnessed=kept).problems == []
    size = parse_checkpoint(parse_note(kept)).size
    later_id = await a_life(served)
    without = await exported(served, f"commandId={later_id}")
    assert "another size" in problems(without, witnessed=kept)
    later = await exported(served, f"commandId={later_id}&from={size}")
    assert checked(later, witnessed=kept).problems == []
    forged = kept.replace(f"\n{size}\n", f"\n{size - 1}\n")
    assert "is wrong" in problems(later, witnessed=forged)
    for at in range(len(later)):
        if b'"consistency"' in later[max(0, at - 20) : at + 200]:
            changed = later[:at] + bytes([later[at] ^ 1]) + later[at + 1 :]
            assert checked(changed).problems
