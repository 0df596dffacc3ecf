"""The composition root: the only place that knows every part, and wires them into a node."""

from __future__ import annotations

import logging
import secrets
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import trio

from arc_es import __version__
from arc_es.actors.follower import Follower
from arc_es.actors.messages import Messages
from arc_es.actors.peers import Peers
from arc_es.actors.ticker import Ticker
from arc_es.actors.turns import Turns
from arc_es.actors.waiters import Waiters
from arc_es.archive.archive import Archive
from arc_es.archive.eraser import GRACE_SECONDS, Eraser
from arc_es.archive.journal import ArchivedJournal
from arc_es.archive.segment import ArchiveDamaged
from arc_es.asof import AsOf, QueuesThen, in_child, queues_of
from arc_es.bodies import Bodies
from arc_es.config import Config
from arc_es.dispatch.null import NullPusher
from arc_es.domain.recorded import CommandKey
from arc_es.envelopes import Envelopes
from arc_es.garbage import no_garbage_collection
from arc_es.http.accepting import ALONE, Neighbours
from arc_es.http.api import Api
from arc_es.http.app import ArcApp
from arc_es.index import Index
from arc_es.keyring import KEY_BYTES, KeyRing
from arc_es.links import Links
from arc_es.lookup import Lookup
from arc_es.offering import Offering
from arc_es.payloads import Payloads
from arc_es.ports import (
    BodyStore,
    Clock,
    Journal,
    JournalError,
    JournalUnavailable,
    Overloaded,
    Pusher,
    SystemClock,
)
from arc_es.proof.checkpoints import Checkpoints
from arc_es.proof.proving import Proving
from arc_es.pushing import Pushing, Sending
from arc_es.service import Service
from arc_es.snapshots.child import Aside
from arc_es.snapshots.fold import models_at
from arc_es.snapshots.folder import Snapshots
from arc_es.snapshots.moment import Moment
from arc_es.snapshots.writer import SnapshotWriter
from arc_es.storage.memory import MemoryBodyStore
from arc_es.stores import CONNECT_RETRY_SECONDS
from arc_es.sweep import Sweep
from arc_es.views import ReadModels
from projections import Projections

RESEAL_RETRY_SECONDS: Final = 5.0
LEARN_SECONDS: Final = 1.0
"""Well below `eraser.GRACE_SECONDS`."""

log = logging.getLogger("arc_es")


@dataclass(frozen=True, slots=True)
class Node:
    """One assembled service with its loops, not running yet.

    leads: whether it does what one process of a data dir does for all of them.
    """

    service: Service
    follower: Follower
    ticker: Ticker
    pushing: Pushing
    sweep: Sweep
    models: ReadModels
    keys: KeyRing
    index: Index
    journal: ArchivedJournal
    eraser: Eraser
    turns: Turns
    peers: Peers
    offering: Offering
    checkpoints: Checkpoints | None = None
    snapshots: Snapshots | None = None
    writer: SnapshotWriter | None = None
    leads: bool = True

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Replay the journal, then follow it, tick and push, for ever; started when the replay is done."""
        async with trio.open_nursery() as nursery:
            with no_garbage_collection():
                await self._until_available(ArchivedJournal.prepare)
                await self._until_available(self.index.prepare)
                await self._until_available(self._restore)
                nursery.start_soon(self.index.run)
                nursery.start_soon(self.follower.run)
                await self._replayed()
            nursery.start_soon(self.eraser.run)
            nursery.start_soon(self.peers.run)
            nursery.start_soon(self.offering.pulls.run)
            nursery.start_soon(self.offering.pushes.run)
            nursery.start_soon(self.ticker.run)
            nursery.start_soon(self.pushing.run)
            if self.leads:
                self._lead(nursery)
            task_status.started()

    async def _replayed(self) -> None:
        """Wait until the replay is done; meanwhile take notice of what other nodes erase."""
        while not self.follower.ready:
            with trio.move_on_after(LEARN_SECONDS):
                await self.follower.wait_ready()
                return
            await self._until_available(ArchivedJournal.prepare)

    def _lead(self, nursery: trio.Nursery) -> None:
        nursery.start_soon(self.sweep.run)
        nursery.start_soon(self._reseal)
        if self.checkpoints is not None:
            nursery.start_soon(self.checkpoints.run)
        if self.writer is not None:
            nursery.start_soon(self.writer.run)

    async def _restore(self, journal: ArchivedJournal) -> None:
        """Begin with the newest snapshot that can be used."""
        if self.snapshots is None:
            return
        header = await self.snapshots.restore(journal, self.models, self.index.position)
        if header is not None:
            self.follower.resume(header.position)
            if self.writer is not None:
                self.writer.started_from(header.events)

    async def _until_available(self, step: Callable[[ArchivedJournal], Awaitable[None]]) -> None:
        """Take a step of the start; a journal that is away now gets the time to come back."""
        while True:
            try:
                await step(self.journal)
            except ArchiveDamaged:
                raise
            except JournalUnavailable:
                await trio.sleep(CONNECT_RETRY_SECONDS)
            else:
                return

    async def _reseal(self) -> None:
        """See to it that the push tokens are sealed under the current key."""
        while True:
            try:
                await self.service.reseal(self.keys.sealer())
            except (JournalError, Overloaded) as error:
                log.warning("Push tokens are not sealed under the current key yet: %s", error)
                await trio.sleep(RESEAL_RETRY_SECONDS)
            else:
                return


def empty_models(finished_max: int | None) -> Projections:
    """Projections of nothing, for a fold beside the service: all but so many ended commands leave them at once."""
    models = Projections(finished_max)
    models.findable(sys.maxsize)
    return models


def assemble(  # noqa: PLR0913 - whatever a test replaces
    journal: Journal,
    config: Config,
    *,
    store: BodyStore | None = None,
    models: Projections | None = None,
    clock: Clock | None = None,
    keys: KeyRing | None = None,
    pusher: Pusher | None = None,
    index_dir: Path | None = None,
    erased_file: Path | None = None,
    proving: Proving | None = None,
    snapshots: Snapshots | None = None,
    aside: Aside | None = None,
    leads: bool = True,
    neighbours: Neighbours = ALONE,
) -> Node:
    """All parts of a service on a journal, wired together.

    keys: without them, one that is forgotten at the end. index_dir: without it, the index is in memory. erased_file:
    what `Eraser` keeps. proving: without it nothing is signed. snapshots: what to start from. aside: runs `arc-es` in a
    process of its own; without it no snapshots are written, and the past is folded here. leads: see `Node`. neighbours:
    the processes that serve together with this one.
    """
    models = models or Projections(config.finished_in_memory_max)
    keys = keys or KeyRing(secrets.token_bytes(KEY_BYTES))
    clock = clock or SystemClock()
    journal = journal if isinstance(journal, ArchivedJournal) else ArchivedJournal(journal, Archive(None))
    messages = Messages(journal, config.cache_bytes_max)
    follower = Follower(journal, models, messages)
    index = _index(index_dir, follower, models)
    turns = _turns(config, journal, models, follower, messages, clock)
    journal.reserve_for(models.stats.live)
    waiters = Waiters(models.pending, models.status, clock, config.waiters_max, config.waiters_per_target_max)
    bodies = Bodies(messages, store or MemoryBodyStore())
    lookup = Lookup(journal, models, follower, turns, clock, index)
    pushing = _pushing(config, models, turns, bodies, clock, keys, pusher or NullPusher())
    parts_of = _nothing_proved if proving is None else proving.parts
    checkpoints, exports = parts_of(
        journal, index, models.checkpoints, turns, clock, bodies.store, config.checkpoint_seconds
    )
    peers, offering, ticker = _offering(models, waiters, pushing, turns, clock, follower)
    follower.on_applied = partial(_applied, follower, ticker, neighbours)
    eraser = _eraser(config, journal, bodies.store, index, follower, clock, erased_file, leads=leads)
    service = Service(
        journal=journal,
        models=models,
        follower=follower,
        turns=turns,
        waiters=waiters,
        ticker=ticker,
        clock=clock,
        bodies=bodies,
        pushing=pushing,
        lookup=lookup,
        index=index,
        eraser=eraser,
        exports=exports,
        applied_by_others=lambda: neighbours.applied_max,
        peers=peers,
        as_of=_as_of(aside, journal, lookup, follower, index, clock, config),
    )
    models.on_cancelled = service.cancellations.note
    sweep = _sweep(config, models, follower, bodies, turns, lookup, clock)
    writer = None if aside is None else SnapshotWriter(models, aside, config)
    _forget_erased(models, messages, index, service, eraser, writer)
    parts = service, follower, ticker, pushing, sweep, models, keys, index, journal, eraser, turns, peers, offering
    return Node(*parts, checkpoints, snapshots, writer, leads)


def _offering(
    models: Projections, waiters: Waiters, pushing: Pushing, turns: Turns, clock: Clock, follower: Follower
) -> tuple[Peers, Offering, Ticker]:
    """What hands out commands that may be delivered, told of them by events and by time."""
    peers = Peers()
    waiters.on_change = peers.waits
    offering = Offering(models, waiters, pushing, peers, turns.directory)
    ticker = Ticker(turns, models, clock, peers)
    ticker.on_leasable = offering.by_time
    follower.on_leasable = offering.by_event
    models.on_controlled = offering.reopened
    return peers, offering, ticker


def _nothing_proved(*_: object) -> tuple[None, None]:
    """No checkpoints, and no exports."""
    return None, None


def _eraser(
    config: Config,
    journal: ArchivedJournal,
    store: BodyStore,
    index: Index,
    follower: Follower,
    clock: Clock,
    done: Path | None,
    *,
    leads: bool,
) -> Eraser:
    return Eraser(
        journal,
        store,
        index,
        follower,
        clock,
        append_seconds_max=config.append_seconds_max,
        done=done,
        leads=leads,
        grace_seconds=0.0 if config.nats_url is None else GRACE_SECONDS,
    )


def _turns(
    config: Config, journal: Journal, models: Projections, follower: Follower, messages: Messages, clock: Clock
) -> Turns:
    return Turns(
        journal,
        models,
        follower,
        messages,
        clock,
        actors_max=config.actors_max,
        append_seconds_max=config.append_seconds_max,
    )


def _forget_erased(
    models: Projections,
    messages: Messages,
    index: Index,
    service: Service,
    eraser: Eraser,
    writer: SnapshotWriter | None,
) -> None:
    """Tell everybody who may hold what is private about a command when that is to be known no more."""

    def erased(key: CommandKey, position: int) -> None:
        messages.clear()
        index.note_erased(key, position)
        service.feed.erase(key)
        eraser.wake()

    models.on_erased = erased
    if writer is not None:
        eraser.forget_snapshots = writer.forget_before


def _applied(follower: Follower, ticker: Ticker, neighbours: Neighbours) -> None:
    """A message was applied, and what waits for it has not been told yet."""
    neighbours.applied(follower.applied)
    ticker.nudge()


def _as_of(
    aside: Aside | None,
    journal: Journal,
    lookup: Lookup,
    follower: Follower,
    index: Index,
    clock: Clock,
    config: Config,
) -> AsOf:
    """What answers about the past."""

    async def fold_here(moment: Moment) -> QueuesThen:
        make = partial(empty_models, config.finished_in_memory_max)
        folded = await models_at(journal, None, make, moment, messages_max=config.as_of_messages_max)
        return queues_of(folded, moment)

    fold = fold_here if aside is None else in_child(aside, config.as_of_messages_max)
    return AsOf(journal=journal, lookup=lookup, follower=follower, index=index, clock=clock, fold_queues=fold)


def _index(folder: Path | None, follower: Follower, models: Projections) -> Index:
    """The index of all commands, told of what is applied and telling what need not stay in memory."""
    index = Index(folder)
    index.tip = lambda: (follower.applied, follower.tip)
    index.on_committed = models.findable
    models.on_change = index.note
    models.on_late = index.note_late
    follower.on_stored = index.applied
    return index


def _pushing(
    config: Config, models: ReadModels, turns: Turns, bodies: Bodies, clock: Clock, keys: KeyRing, pusher: Pusher
) -> Pushing:
    return Pushing(
        models=models,
        turns=turns,
        bodies=bodies,
        sending=_sending(config, keys, bodies.store, clock, pusher),
        clock=clock,
        per_target_max=config.pushes_per_target_max,
        pushes_max=config.pushes_max,
    )


def _sweep(
    config: Config,
    models: ReadModels,
    follower: Follower,
    bodies: Bodies,
    turns: Turns,
    lookup: Lookup,
    clock: Clock,
) -> Sweep:
    return Sweep(
        models,
        follower,
        bodies,
        Payloads(models, turns, bodies, lookup),
        lookup,
        clock,
        every_seconds=config.sweep_seconds,
        orphan_seconds_min=config.orphan_seconds_min,
    )


def _sending(config: Config, keys: KeyRing, store: BodyStore, clock: Clock, pusher: Pusher) -> Sending | None:
    """How commands are pushed; not at all without a public base URL, which their envelopes need (`arc.v1` 1.8)."""
    base, signer = public_base(config), keys.signer()
    if base is None:
        return None

    def envelopes(lease_seconds: int) -> Envelopes:
        return Envelopes(Links(signer, store, base, clock.now()), lease_seconds)

    return Sending(pusher, envelopes, keys.sealer().token_of)


def public_base(config: Config) -> str | None:
    """The configured `{base}` of all own URLs."""
    return config.public_url.rstrip("/") if config.public_url else None


def build_app(service: Service, config: Config, keys: KeyRing) -> ArcApp:
    """The web application of a service."""
    api = Api(
        service,
        keys.signer(),
        keys.sealer(),
        config.admin_token,
        public_base(config),
        __version__,
        trust_forwarded=config.trust_forwarded,
    )
    return ArcApp(
        api,
        body_bytes_max=config.request_body_bytes_max,
        batch_bytes_max=config.batch_body_bytes_max,
        slow_seconds_max=config.slow_request_seconds_max,
        bodies_bytes_max=config.request_bodies_bytes_max,
        storage_bytes_max=config.storage_bytes_max,
    )
