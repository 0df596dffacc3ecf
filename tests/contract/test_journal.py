"""What every journal does. The same sentences hold for the one in memory and the one on JetStream."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio.testing

from arc_es.domain.recorded import CommandKey, DeploymentKey, Key, PayloadKey, TokenKey
from arc_es.ports import Append, AppendOutcome, Conflict, Journal, JournalFull, Message
from tests.contract.conftest import Pair
from tests.contract.story import Seen, command, item


def positions(outcomes: list[AppendOutcome]) -> list[int]:
    """The outcomes, which must all be positions."""
    assert all(isinstance(outcome, int) for outcome in outcomes), outcomes
    return [outcome for outcome in outcomes if isinstance(outcome, int)]


# --- append


async def test_an_appended_message_is_the_last_of_its_history(journal: Journal) -> None:
    (at,) = positions(await journal.append([item(command("a"), "one")]))
    assert Message(at, command("a"), b"one") == await journal.last(command("a"))
    assert await journal.end() == at


async def test_an_empty_journal_has_no_end_and_no_histories(journal: Journal) -> None:
    assert await journal.end() == 0
    assert await journal.last(command("a")) is None
    assert await journal.history(command("a")) == []
    assert await journal.append([]) == []


async def test_the_version_of_a_history_guards_it(journal: Journal) -> None:
    (first,) = positions(await journal.append([item(command("a"), "one")]))
    (again,) = await journal.append([item(command("a"), "two")])
    assert isinstance(again, Conflict)
    (second,) = positions(await journal.append([item(command("a"), "two", first)]))
    (stale,) = await journal.append([item(command("a"), "three", first)])
    assert isinstance(stale, Conflict)
    assert [first, second] == [message.position for message in await journal.history(command("a"))]


async def test_resending_a_stored_message_conflicts_and_stores_nothing(journal: Journal) -> None:
    (at,) = positions(await journal.append([item(command("a"), "one")]))
    (again,) = await journal.append([item(command("a"), "one")])
    assert isinstance(again, Conflict)
    assert await journal.end() == at


async def test_histories_of_a_command_and_of_its_deployment_are_apart(journal: Journal) -> None:
    keys: list[Key] = [DeploymentKey("dep"), PayloadKey("dep"), CommandKey("dep", "dep"), CommandKey("other", "dep")]
    first = positions(await journal.append([item(key, "one") for key in keys]))
    assert len(set(first)) == len(keys)
    for key, at in zip(keys, first, strict=True):
        assert await journal.history(key) == [Message(at, key, b"one")]


@pytest.mark.parametrize("deployment", ["dép ü", "a.b", "*", ">", "=", "", "=YQ", "x\r\ny", "d" * 1024, "猫" * 300])
async def test_any_id_names_a_history_of_its_own(journal: Journal, deployment: str) -> None:
    keys: list[Key] = [CommandKey(deployment, "c"), DeploymentKey(deployment), PayloadKey(deployment)]
    seen = Seen()
    last = max(positions(await journal.append([item(key, "one") for key in keys])))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.follow, 0, seen.handle)
        await seen.wait_for(last)
        nursery.cancel_scope.cancel()
    assert keys == [message.key for message in seen.messages]


# --- together


async def test_what_belongs_together_is_stored_right_before_it(journal: Journal) -> None:
    link = replace(item(command("a"), "link"), together=(item(command("b"), "new", body=b"BODY"),))
    (at, other) = positions(await journal.append([link, item(command("c"), "other")]))
    assert await journal.read([at - 2, at - 1, at]) == [b"BODY", b"new", b"link"]
    assert [Message(at - 1, command("b"), b"new")] == await journal.history(command("b"))
    assert other > at
    (late,) = await journal.append([item(command("b"), "again")])
    assert isinstance(late, Conflict)


@pytest.mark.parametrize("taken", ["a", "b"])
async def test_what_belongs_together_is_stored_whole_or_not_at_all(journal: Journal, taken: str) -> None:
    (end,) = positions(await journal.append([item(command(taken), "first")]))
    link = replace(item(command("a"), "link"), together=(item(command("b"), "new", body=b"BODY"),))
    refused, stored = await journal.append([link, item(command("c"), "other")])
    (other,) = positions([stored])
    assert isinstance(refused, Conflict)
    assert [Message(end, command(taken), b"first")] == await journal.history(command(taken))
    assert await journal.history(command("b" if taken == "a" else "a")) == []
    assert await journal.last(command("c")) == Message(other, command("c"), b"other")


# --- bodies


async def test_a_body_sits_one_position_before_its_event(journal: Journal) -> None:
    outcomes = await journal.append([item(command("a"), "one", body=b"BODY"), item(command("b"), "two")])
    at, _ = positions(outcomes)
    assert await journal.read([at - 1, at]) == [b"BODY", b"one"]


async def test_an_id_without_a_command_may_have_bodies(journal: Journal) -> None:
    key = PayloadKey("cmd_9")
    (first,) = positions(await journal.append([item(key, "one", body=b"BODY")]))
    (second,) = positions(await journal.append([Append(key, first, "two", b"two", b"ANSWER", "response")]))
    assert await journal.read([first - 1, second - 1]) == [b"BODY", b"ANSWER"]
    assert [message.position for message in await journal.history(key)] == [first, second]


async def test_a_body_may_be_empty_or_large(journal: Journal) -> None:
    large = bytes(range(256)) * 600
    items = [item(command("a"), "one", body=b""), Append(command("b"), 0, "b", b"two", large, "response")]
    empty_at, large_at = positions(await journal.append(items))
    assert await journal.read([empty_at - 1, large_at - 1]) == [b"", large]


async def test_the_body_of_a_refused_message_is_not_stored(journal: Journal) -> None:
    (at,) = positions(await journal.append([item(command("a"), "one")]))
    (refused,) = await journal.append([item(command("a"), "two", body=b"BODY")])
    assert isinstance(refused, Conflict)
    assert await journal.read([at + 1]) == [None]


async def test_a_lone_message_with_a_body_extends_its_history(journal: Journal) -> None:
    (first,) = positions(await journal.append([item(command("a"), "one", body=b"1")]))
    (second,) = positions(await journal.append([item(command("a"), "two", first, body=b"2")]))
    assert await journal.read([first - 1, second - 1]) == [b"1", b"2"]


# --- many at once


async def test_each_of_many_gets_an_outcome_of_its_own(journal: Journal) -> None:
    taken = positions(await journal.append([item(command(f"taken{n}"), "one") for n in range(3)]))
    mixed = [
        item(command("new0"), "one", body=b"B0"),
        item(command("taken0"), "bad"),
        item(command("taken1"), "two", taken[1], body=b"B1"),
        item(command("new1"), "one"),
        item(command("taken2"), "bad", taken[0], body=b"no"),
        *[item(command(f"more{n}"), "one", body=b"B" if n % 2 else None) for n in range(200)],
    ]
    outcomes = await journal.append(mixed)
    refused = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, Conflict)]
    assert refused == [1, 4]
    for sent, outcome in zip(mixed, outcomes, strict=True):
        if isinstance(outcome, int):
            assert await journal.last(sent.key) == Message(outcome, sent.key, sent.payload)
            if sent.body is not None:
                assert await journal.read([outcome - 1]) == [sent.body]


async def test_a_thousand_in_one_call_lie_side_by_side(journal: Journal) -> None:
    stored = positions(await journal.append([item(command(str(n)), "one") for n in range(1000)]))
    assert stored == list(range(stored[0], stored[0] + 1000))


async def test_more_than_fit_in_one_batch_are_all_stored(journal: Journal) -> None:
    items = [item(command(str(n)), "one", body=b"B" if n % 2 else None) for n in range(1500)]
    stored = positions(await journal.append(items))
    assert stored == sorted(stored)
    assert await journal.read([at - 1 for at in stored[1::2]]) == [b"B"] * 750


async def test_of_many_writers_to_one_version_one_wins(pair: Pair) -> None:
    outcomes: list[AppendOutcome] = []
    ready = 0
    go = trio.Event()

    async def write(journal: Journal, text: str) -> None:
        nonlocal ready
        ready += 1
        await go.wait()
        outcomes.extend(await journal.append([item(command("a"), text)]))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(write, pair.here if number % 2 else pair.there, str(number))
        await trio.testing.wait_all_tasks_blocked()
        assert ready == 20
        go.set()
    assert len([outcome for outcome in outcomes if isinstance(outcome, int)]) == 1
    assert len([outcome for outcome in outcomes if isinstance(outcome, Conflict)]) == 19
    assert len(await pair.here.history(command("a"))) == 1


async def test_a_cancelled_caller_leaves_the_others_alone(journal: Journal) -> None:
    stored: list[int] = []

    async def write(name: str) -> None:
        stored.extend(positions(await journal.append([item(command(name), "one")])))

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(write, str(number))
        with trio.CancelScope() as scope:
            scope.cancel()
            await journal.append([item(command("cancelled"), "one")])
        assert scope.cancelled_caught
    assert len(stored) == 10


# --- reading


async def test_reading_finds_each_position_or_none(journal: Journal) -> None:
    stored = positions(await journal.append([item(command(str(n)), str(n)) for n in range(200)]))
    assert await journal.read(stored[::-1]) == [str(n).encode() for n in reversed(range(200))]
    assert await journal.read([0, stored[-1] + 1, stored[0]]) == [None, None, b"0"]
    assert await journal.read([]) == []


async def test_a_long_history_comes_whole_and_in_order(journal: Journal) -> None:
    at = 0
    expected: list[Message] = []
    for number in range(300):
        (at,) = positions(await journal.append([item(command("a"), str(number), at)]))
        expected.append(Message(at, command("a"), str(number).encode()))
        if number % 100 == 0:
            await journal.append([item(command(f"between{number}"), "x", body=b"x")])
    assert await journal.history(command("a")) == expected


async def test_pages_hold_the_events_of_all_histories_in_order(journal: Journal) -> None:
    keys: list[Key] = [command("a"), DeploymentKey("dép"), PayloadKey("cmd_9"), TokenKey("t"), command("b", "d.2")]
    items = [
        item(key, f"{n}", body=b"B" if isinstance(key, CommandKey | PayloadKey) else None) for n, key in enumerate(keys)
    ]
    stored = positions(await journal.append(items))
    expected = [Message(at, sent.key, sent.payload) for at, sent in zip(stored, items, strict=True)]
    assert await journal.page(0, 100, 1_000_000) == expected
    for skipped, at in enumerate(stored, start=1):
        assert await journal.page(at, 100, 1_000_000) == expected[skipped:]
        assert await journal.page(at - 1, 1, 1_000_000) == expected[skipped - 1 : skipped]
    assert await journal.page(stored[-1] + 5, 100, 1_000_000) == []


async def test_a_page_is_bounded_in_bytes_and_never_empty_before_the_end(journal: Journal) -> None:
    stored = positions(await journal.append([item(command(f"{n}"), "x" * 1000) for n in range(50)]))
    seen: list[int] = []
    while page := await journal.page(seen[-1] if seen else 0, 100, 5_000):
        assert len(page) <= 10
        seen += [message.position for message in page]
    assert seen == stored
    assert [message.position for message in await journal.page(0, 100, 1)] == stored[:1]


async def test_an_empty_journal_has_no_pages(journal: Journal) -> None:
    assert await journal.page(0, 10, 1_000) == []


async def test_another_node_reads_what_was_acknowledged(pair: Pair) -> None:
    (at,) = positions(await pair.here.append([item(command("a"), "one", body=b"B")]))
    assert await pair.there.last(command("a")) == Message(at, command("a"), b"one")
    assert await pair.there.read([at - 1]) == [b"B"]
    assert await pair.there.end() == at


# --- following


async def test_following_hands_over_events_in_order_without_bodies(journal: Journal) -> None:
    seen = Seen()
    before = positions(await journal.append([item(command(f"a{n}"), str(n), body=b"B") for n in range(20)]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.follow, 0, seen.handle)
        after = positions(await journal.append([item(command(f"b{n}"), str(n)) for n in range(20)]))
        await seen.wait_for(after[-1])
        nursery.cancel_scope.cancel()
    assert seen.positions == before + after
    assert [message.payload for message in seen.messages] == [str(n).encode() for n in range(20)] * 2


@pytest.mark.parametrize("skip", [0, 1, 7, 9, 10])
async def test_following_may_start_anywhere(journal: Journal, skip: int) -> None:
    stored = positions(await journal.append([item(command(str(n)), "x", body=b"B") for n in range(10)]))
    seen = Seen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.follow, stored[skip - 1] if skip else 0, seen.handle)
        stored += positions(await journal.append([item(command("end"), "x")]))
        await seen.wait_for(stored[-1])
        nursery.cancel_scope.cancel()
    assert seen.positions == stored[skip:]


async def test_followers_see_the_writes_of_others(pair: Pair) -> None:
    here, there = Seen(), Seen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.here.follow, 0, here.handle)
        nursery.start_soon(pair.there.follow, 0, there.handle)
        stored = []
        for number in range(10):
            journal = pair.here if number % 2 else pair.there
            stored += positions(await journal.append([item(command(str(number)), "x")]))
        await here.wait_for(stored[-1])
        await there.wait_for(stored[-1])
        nursery.cancel_scope.cancel()
    assert here.positions == there.positions == stored


async def test_an_error_of_the_handler_ends_following(journal: Journal) -> None:
    await journal.append([item(command("a"), "one"), item(command("b"), "two")])
    calls = 0

    def handle(position: int, key: Key, payload: bytes) -> None:
        nonlocal calls
        calls += 1
        raise ZeroDivisionError(payload)

    with trio.fail_after(10), pytest.raises(ZeroDivisionError):
        await journal.follow(0, handle)
    assert calls == 1


async def test_a_long_replay_lets_other_tasks_run(journal: Journal) -> None:
    last = 0
    for piece in range(5):
        last = positions(await journal.append([item(command(f"{piece}-{n}"), "x" * 300) for n in range(1000)]))[-1]
    seen = Seen()
    turns = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.follow, 0, seen.handle)
        while not seen.messages or seen.positions[-1] < last:
            turns += 1
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert len(seen.messages) == 5000
    assert turns > 5


async def test_a_reachable_journal_is_available(journal: Journal) -> None:
    await journal.end()
    assert journal.available


# --- room


async def test_new_commands_stop_before_the_journal_is_full(small: Journal) -> None:
    at = 0
    while small.spacious:
        (at,) = positions(await small.append([item(command("a"), f"{at:1000}", at)]))
    taken = 0
    while isinstance(outcome := (await small.append([item(command("a"), f"{at:1000}", at)]))[0], int):
        at, taken = outcome, taken + 1
    assert isinstance(outcome, JournalFull)
    assert taken >= 10, "the head-room: a tenth of the limit, less what is uncertain"
    assert not small.spacious
    assert await small.end() == at


async def test_room_is_kept_for_the_live(small: Journal) -> None:
    assert small.spacious
    small.reserve_for(lambda: 1_000)
    assert not small.spacious
    small.reserve_for(lambda: 0)
    assert small.spacious


# --- purge


async def test_what_is_purged_is_gone_and_the_version_stays(journal: Journal) -> None:
    """Only one history loses anything, and its id stays taken."""
    mine, other = command("a"), command("b")
    (first,) = positions(await journal.append([item(mine, "one", body=b"beside 1")]))
    (kept,) = positions(await journal.append([item(other, "one", body=b"beside 2")]))
    (second,) = positions(await journal.append([item(mine, "two", first)]))
    (third,) = positions(await journal.append([item(mine, "three", second, body=b"beside 3")]))
    for _ in range(2):
        await journal.purge(mine, third)
        assert [message.position for message in await journal.history(mine)] == [third]
        assert await journal.read([first - 1, first, second, third - 1, third, kept - 1, kept]) == [
            None,
            None,
            None,
            None,
            b"three",
            b"beside 2",
            b"one",
        ]
    assert [message.position for message in await journal.page(0, 10, 1 << 20)] == [kept, third]
    assert isinstance((await journal.append([item(mine, "one")]))[0], Conflict)
    assert isinstance((await journal.append([item(mine, "two", first)]))[0], Conflict)
    (fourth,) = positions(await journal.append([item(mine, "four", third)]))
    seen = Seen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.follow, 0, seen.handle)
        await seen.wait_for(fourth)
        nursery.cancel_scope.cancel()
    assert seen.positions == [kept, third, fourth]
