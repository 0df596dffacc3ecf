"""A stream that takes appends but lets nobody follow: somebody is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from arc_es.journal.jetstream import open_journal
from arc_es.journal.stream import api, ensure_stream
from tests.contract.story import Seen, command, item
from tests.faults.test_journal_limits import served

LIMITED = {"max_consumers": 1}
A_CONSUMER = {"stream_name": "ARC", "config": {"name": "other", "ack_policy": "none", "mem_storage": True}}


async def test_a_follower_that_gets_no_consumer_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(20):
        async with served(tmp_path) as bridge:
            await ensure_stream(bridge)
            config = (await api(bridge, "STREAM.INFO.ARC"))["config"]
            await api(bridge, "STREAM.DELETE.ARC")
            assert "error" not in await api(bridge, "STREAM.CREATE.ARC", config | LIMITED)
            assert "error" not in await api(bridge, "CONSUMER.CREATE.ARC.other", A_CONSUMER | {"action": "create"})
            async with open_journal(bridge) as journal, trio.open_nursery() as nursery:
                seen = Seen()
                nursery.start_soon(journal.follow, 0, seen.handle)
                (position,) = await journal.append([item(command("1"), "x")])
                assert isinstance(position, int)
                while not caplog.records:
                    await api(bridge, "STREAM.INFO.ARC")  # a turn of the server's; the follower's refusal comes first
                assert not journal.available  # it takes appends, but nobody would ever see them applied
                await api(bridge, "CONSUMER.DELETE.ARC.other")
                await seen.wait_for(position)
                while not journal.available:  # a message may come before the answer that there is a consumer
                    await api(bridge, "STREAM.INFO.ARC")
                nursery.cancel_scope.cancel()
    told = [record.message for record in caplog.records if "Cannot follow the stream" in record.message]
    assert len(told) == 1
    assert "maximum consumers" in told[0]
