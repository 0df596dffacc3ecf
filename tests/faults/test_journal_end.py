"""The end of the journal is its last event, whatever an operator has deleted."""

from __future__ import annotations

from pathlib import Path

import trio

from arc_es.journal.jetstream import open_journal
from arc_es.journal.stream import api, ensure_stream
from tests.contract.story import command, item
from tests.faults.test_journal_limits import served


async def test_the_end_is_an_event_even_where_a_body_is_last(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with served(tmp_path) as bridge:
            await ensure_stream(bridge)
            async with open_journal(bridge) as journal:
                assert await journal.end() == 0
                await journal.append([item(command("1"), "x")])
                assert await journal.end() == 1
                await journal.append([item(command("2"), "x", body=b"x" * 5_000)])
                assert await journal.end() == 3
                assert "error" not in await api(bridge, "STREAM.MSG.DELETE.ARC", {"seq": 3})
                assert await journal.end() == 1
