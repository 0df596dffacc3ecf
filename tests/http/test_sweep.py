"""Collecting bodies that nothing refers to."""

from __future__ import annotations

import trio

from arc_es.bodies import YOUNG_SECONDS
from arc_es.ports import Slot
from arc_es.storage.memory import MemoryBodyStore
from arc_es.wire import InlineBody
from tests.http.driver import Clock, inline, serving
from tests.http.test_storage import LARGE, all_names, complete, downloaded, follow, stored, uploaded, waiting_for_upload


async def test_the_sweep_takes_only_what_nothing_needs() -> None:
    clock = Clock()
    store = MemoryBodyStore(clock)
    async with serving(store=store, clock=clock, orphan_seconds_min=3_600) as served:
        params = await uploaded(served, LARGE)
        (lease,) = await served.lease()
        await follow(served, lease["envelope"]["responseHandling"]["storageUploadRequest"], LARGE[::-1])
        await served.respond(params, stored(len(LARGE)))
        waiting = await waiting_for_upload(served)
        await follow(served, waiting["storageUpload"]["putRequest"], LARGE)
        await served.client.put("/v1/commands/demo/payload", {"params": inline(LARGE)})
        orphan = await store.keep(Slot("cmd_never", "params"), LARGE)
        assert await served.node.sweep.once() == 0  # all of it is young
        clock.advance(3_600)
        young = await store.keep(Slot("cmd_never", "response"), LARGE)
        before = await all_names(store)
        assert await served.node.sweep.once() > 0
        after = await all_names(store)
        assert orphan.ref in before - after
        assert young.ref in after
        assert await served.node.sweep.once() == 0
        payload = (await served.client.get(f"/v1/commands/{params}/payload")).ok()
        assert await downloaded(served, payload["params"]) == LARGE
        assert await downloaded(served, payload["response"]["response"]) == LARGE[::-1]
        demo = (await served.client.get("/v1/commands/demo/payload")).ok()
        assert await downloaded(served, demo["params"]) == LARGE
        (await complete(served, waiting["commandId"], len(LARGE))).ok()
        (again,) = await served.lease()
        assert await downloaded(served, again["envelope"]["params"]) == LARGE


async def test_a_clock_that_jumps_makes_nothing_old() -> None:
    """What this process stored a moment ago may still be on its way to the journal."""
    clock = Clock()
    store = MemoryBodyStore(clock)
    async with serving(store=store, clock=clock) as served:
        await served.node.service._bodies.stored(Slot("cmd_soon", "params"), InlineBody(LARGE, ""))
        clock.advance(100 * 86_400)
        assert await served.node.sweep.once() == 0
        await trio.sleep(YOUNG_SECONDS + 1)  # in no time: the tests' own clock
        assert await served.node.sweep.once() == 1


async def test_the_sweep_takes_the_uploads_of_what_has_ended() -> None:
    clock = Clock()
    store = MemoryBodyStore(clock)
    async with serving(store=store, clock=clock) as served:
        created = await waiting_for_upload(served)
        await follow(served, created["storageUpload"]["putRequest"], LARGE)
        clock.advance(2 * 86_400)
        assert (await served.status(created["commandId"]))["state"] == "EXPIRED"
        assert await served.node.sweep.once() == 1  # that it was an upload
        assert await served.node.sweep.once() == 1  # and what was uploaded
        assert await all_names(store) == set()
