"""The journal on a server that is full, set up differently, or closed to us."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from arc_es.journal import follow, pump, watch
from arc_es.journal.jetstream import open_journal
from arc_es.journal.stream import StreamSettings, api, compare_stream, ensure_stream
from arc_es.nats_access import Access
from arc_es.nats_bridge import Bridge, open_bridge
from arc_es.ports import JournalClosed, JournalFull, JournalMismatch, JournalUnavailable, OutcomeUnknown
from tests.contract.nats_process import NatsProcess
from tests.contract.story import Seen, command, item

PASSWORD = "correct-horse"


@asynccontextmanager
async def served(directory: Path, max_payload: str = "4MB") -> AsyncIterator[Bridge]:
    """A bridge to a server of the test's own."""
    server = NatsProcess(directory, max_payload=max_payload)
    await server.start()
    try:
        async with open_bridge(Access([server.url])) as bridge:
            with trio.fail_after(10):
                await bridge.wait_available()
            yield bridge
    finally:
        server.kill()


async def test_a_full_journal_refuses_and_can_still_be_read(tmp_path: Path) -> None:
    async with served(tmp_path) as bridge:
        await ensure_stream(bridge, StreamSettings(max_bytes=64 * 1024))
        async with open_journal(bridge) as journal:
            outcomes = await journal.append([item(command(str(n)), "x" * 1024) for n in range(100)])
            stored = [outcome for outcome in outcomes if isinstance(outcome, int)]
            refused = [outcome for outcome in outcomes if not isinstance(outcome, int)]
            assert {type(outcome) for outcome in refused} == {JournalFull}
            assert stored
            assert await journal.end() == stored[-1]
            (with_body,) = await journal.append([item(command("body"), "x", body=b"x" * 2048)])
            assert isinstance(with_body, JournalFull)
            assert await journal.end() == stored[-1]


async def test_a_runaway_history_is_stopped_and_its_bodies_too(tmp_path: Path) -> None:
    async with served(tmp_path) as bridge:
        await api(bridge, "STREAM.CREATE.ARC", StreamSettings().config() | {"max_msgs_per_subject": 2})
        async with open_journal(bridge) as journal:
            at = 0
            for _ in range(2):
                (outcome,) = await journal.append([item(command("a"), str(at), at, body=b"B")])
                assert isinstance(outcome, int)
                at = outcome
            for body in (None, b"B"):
                (outcome,) = await journal.append([item(command("a"), "more", at, body=body)])
                assert isinstance(outcome, JournalFull)
                assert "per subject" in str(outcome)
            (other,) = await journal.append([item(command("b"), "x")])
            assert isinstance(other, int)


async def test_without_a_stream_nothing_is_stored_and_nothing_is_doubted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "REQUEST_SECONDS", 0.2)
    async with served(tmp_path) as bridge, open_journal(bridge) as journal:
        for body in (None, b"B"):
            outcomes = await journal.append([item(command(str(n)), "x", body=body) for n in range(3)])
            assert {type(outcome) for outcome in outcomes} == {JournalUnavailable}
            with pytest.raises(JournalUnavailable):
                await journal.end()


async def test_an_answer_that_comes_too_late_is_not_taken_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "APPEND_SECONDS", 0.1)
    server = NatsProcess(tmp_path)
    await server.start()
    try:
        async with open_bridge(Access([server.url])) as bridge:
            await bridge.wait_available()
            await ensure_stream(bridge)
            async with open_journal(bridge) as journal:
                server.freeze()
                outcomes = [
                    *await journal.append([item(command("a"), "one")]),
                    *await journal.append([item(command(str(n)), "x", body=b"B") for n in range(5)]),
                ]
                assert {type(outcome) for outcome in outcomes} == {OutcomeUnknown}
                monkeypatch.undo()
                server.thaw()
                (after,) = await journal.append([item(command("b"), "two")])
                assert after == await journal.end()
                assert len(await journal.history(command("a"))) == 1
    finally:
        server.kill()


async def test_the_stream_is_made_once_and_then_compared(tmp_path: Path) -> None:
    async with served(tmp_path) as bridge:
        assert await compare_stream(bridge, StreamSettings()) is None
        await ensure_stream(bridge)
        await ensure_stream(bridge)
        assert await compare_stream(bridge, StreamSettings()) == []
        (difference,) = await compare_stream(bridge, StreamSettings(replicas=3)) or []
        assert str(difference) == "num_replicas is 1, wanted 3"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("discard", "old"),
        ("max_age", 3600 * 1_000_000_000),
        ("allow_direct", False),
        ("allow_atomic", False),
        ("compression", "s2"),
        ("duplicate_window", 60 * 1_000_000_000),
        ("max_msgs_per_subject", 5),
        ("subjects", ["arc.event.>"]),
        ("storage", "memory"),
        ("metadata", {"arc_es.schema": "0"}),
    ],
)
async def test_a_different_stream_is_refused_by_name_and_left_alone(tmp_path: Path, field: str, value: object) -> None:
    config = StreamSettings().config() | {field: value}
    if field == "discard":
        config["discard_new_per_subject"] = False
    async with served(tmp_path) as bridge:
        answer = await api(bridge, "STREAM.CREATE.ARC", config)
        assert "error" not in answer, answer
        with pytest.raises(JournalMismatch, match=field):
            await ensure_stream(bridge)
        found = (await api(bridge, "STREAM.INFO.ARC"))["config"]
        assert found == answer["config"]


async def test_a_server_for_small_messages_only_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path, max_payload="1MB") as bridge:
        assert bridge.server_info().max_payload_bytes == 1024 * 1024
        assert bridge.server_info().version.startswith("2.")
        with pytest.raises(JournalMismatch, match="max_payload"):
            await ensure_stream(bridge)


async def test_a_password_is_never_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server = NatsProcess(tmp_path, users=f'{{ user: "arc", password: "other-{PASSWORD}" }}')
    await server.start()
    access = Access([server.url], "arc", PASSWORD)
    try:
        async with open_bridge(access):
            with trio.fail_after(10):
                while "Cannot connect" not in caplog.text:
                    await trio.lowlevel.checkpoint()
        async with open_bridge(replace(access, password=f"other-{PASSWORD}")) as bridge:
            with trio.fail_after(10):
                await bridge.wait_available()
    finally:
        server.kill()
    assert PASSWORD not in caplog.text
    assert PASSWORD not in repr(access)


async def test_following_survives_the_loss_of_its_consumer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr(follow, "SILENCE_SECONDS", 0.6)
    async with served(tmp_path) as bridge:
        await ensure_stream(bridge)
        async with open_journal(bridge) as journal, trio.open_nursery() as nursery:
            seen = Seen()
            nursery.start_soon(journal.follow, 0, seen.handle)
            await journal.append([item(command("a"), "one")])
            await seen.wait_for(1)
            for name in (await api(bridge, "CONSUMER.NAMES.ARC"))["consumers"]:
                await api(bridge, f"CONSUMER.DELETE.ARC.{name}")
            await journal.append([item(command("b"), "two")])
            await seen.wait_for(2)
            nursery.cancel_scope.cancel()
        assert seen.positions == [1, 2]


async def test_an_idle_follower_keeps_its_consumer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(follow, "SILENCE_SECONDS", 0.3)
    async with served(tmp_path) as bridge:
        await ensure_stream(bridge)
        async with open_journal(bridge) as journal, trio.open_nursery() as nursery:
            seen = Seen()
            nursery.start_soon(journal.follow, 0, seen.handle)
            await journal.append([item(command("a"), "one", body=b"B")])
            await seen.wait_for(2)
            before = (await api(bridge, "CONSUMER.NAMES.ARC"))["consumers"]
            await trio.sleep(1)  # what is tested is that time passes and nothing happens
            assert (await api(bridge, "CONSUMER.NAMES.ARC"))["consumers"] == before
            nursery.cancel_scope.cancel()


async def test_a_follower_leaves_no_consumer_behind(tmp_path: Path) -> None:
    async with served(tmp_path) as bridge:
        await ensure_stream(bridge)
        async with open_journal(bridge) as journal:
            async with trio.open_nursery() as nursery:
                seen = Seen()
                nursery.start_soon(journal.follow, 0, seen.handle)
                await journal.append([item(command("a"), "one")])
                await seen.wait_for(1)
                nursery.cancel_scope.cancel()
            with trio.fail_after(5):
                while (await api(bridge, "CONSUMER.NAMES.ARC"))["consumers"]:
                    pass


async def test_a_closed_journal_refuses_further_use(tmp_path: Path) -> None:
    async with served(tmp_path) as bridge:
        await ensure_stream(bridge)
        async with open_journal(bridge) as journal:
            pass
        assert not journal.available
        with pytest.raises(JournalClosed):
            await journal.append([item(command("a"), "one")])
        with pytest.raises(JournalClosed):
            await journal.end()


async def test_a_bridge_to_a_server_that_never_speaks_closes_in_time() -> None:
    with trio.socket.socket() as deaf:
        await deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        access = Access([f"nats://127.0.0.1:{deaf.getsockname()[1]}"])
        with trio.fail_after(5):
            async with open_bridge(access) as bridge:
                connection, _ = await deaf.accept()
                assert not bridge.available
        connection.close()


async def test_a_cancelled_bridge_closes_in_time(tmp_path: Path) -> None:
    with trio.fail_after(10), trio.CancelScope() as scope:
        async with served(tmp_path):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_an_error_in_the_body_comes_out_bare(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with served(tmp_path) as bridge, open_journal(bridge):
            raise ZeroDivisionError
