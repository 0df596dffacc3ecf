"""Signing the state of the log, regularly and when somebody asks for a proof.

Every node may sign; the expected version of the day's history decides who did, and whoever finds a checkpoint that is
young enough signs none.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import trio

from arc_es.actors.turns import Turns
from arc_es.domain.checkpoints import SignedCheckpoint
from arc_es.domain.events import CheckpointKeyAdded, CheckpointSigned
from arc_es.domain.ids import Micros
from arc_es.domain.limits import SECOND
from arc_es.keyring import CheckpointSeeds
from arc_es.ports import Clock, JournalError, JournalUnavailable, Overloaded
from arc_es.proof.log import LogChanged, LogTree
from arc_es.proof.notes import Checkpoint, NoteSigner, Verifier, announced_key, key_note, parse_note, sign
from arc_es.views import CheckpointsView

ASKED_SECONDS_MIN: Final = 1.0
"""Between two checkpoints that callers ask for: each is an event."""
SHARE_OF_PERIOD: Final = 0.5
"""A node signs no checkpoint as long as there is one that is younger than this share of the period."""
KEYS: Final = "keys"

log = logging.getLogger("arc_es.proof")


class Checkpoints:
    """The signer of one node."""

    def __init__(
        self,
        *,
        view: CheckpointsView,
        turns: Turns,
        clock: Clock,
        tree: LogTree,
        seeds: CheckpointSeeds,
        every_seconds: float,
        has_room: Callable[[], bool],
    ) -> None:
        self._view = view
        self._turns = turns
        self._clock = clock
        self._tree = tree
        self._seeds = seeds
        self._every_seconds = every_seconds
        self._has_room = has_room
        self._turn = trio.Lock()
        self._asked_at = float("-inf")

    async def run(self) -> None:
        """Announce the key, then sign for ever, every so often; what fails now is done the next time."""
        while True:
            try:
                await self.announce()
                await trio.sleep(self._every_seconds)
                await self.sign(round(self._every_seconds * SHARE_OF_PERIOD * SECOND))
            except (JournalError, Overloaded, OSError) as trouble:
                log.warning("Cannot sign a checkpoint now, will try again: %s", trouble)
                await trio.sleep(self._every_seconds)
            except LogChanged as change:
                log.critical("%s. No more checkpoints are signed. Run arc-es verify", change)
                return

    async def last(self) -> None:
        """Sign what is not signed yet, at the end of the service; never raises but for bugs."""
        try:
            await self.sign()
        except (JournalError, Overloaded, LogChanged) as trouble:
            log.warning("The last checkpoint could not be signed: %s", trouble)

    # --- keys

    @property
    def verifiers(self) -> list[Verifier]:
        """All keys of the log, in order."""
        found: list[Verifier] = []
        for note in self._view.key_notes:
            found.append(announced_key(note, found)[0])
        return found

    def signer(self) -> NoteSigner | None:
        """What signs in the name of the log, None as long as the key is not announced."""
        if self._view.origin is None:
            return None
        signer = NoteSigner(self._view.origin, self._seeds.current)
        return signer if signer.verifier in self.verifiers else None

    async def announce(self) -> None:
        """See to it that the key is in the log. Raises JournalError, Overloaded, OSError."""
        new_origin = f"arc-es/{secrets.token_hex(16)}"

        def next_of(now: Micros) -> CheckpointKeyAdded | None:
            origin, known = self._view.origin or new_origin, self.verifiers
            signer = NoteSigner(origin, self._seeds.current)
            if signer.verifier in known:
                return None
            old = None if self._seeds.old is None else NoteSigner(origin, self._seeds.old)
            if old is not None and old.verifier not in known:
                log.warning("The old checkpoint key never signed for this log; it cannot vouch for the new one")
                old = None
            return CheckpointKeyAdded(origin=origin, public_key=str(signer.verifier), note=key_note(signer, old))

        if self.signer() is None:
            await self._turns.perform_log(KEYS, next_of)
        self._seeds.forget_old()

    # --- checkpoints

    async def covering(self, size: int | None) -> SignedCheckpoint:
        """A checkpoint of our own over at least the first `size` messages (None: over all news), signed now if need be.

        Raises:
            JournalUnavailable: none could be signed now.
            JournalError, Overloaded, LogChanged: as `sign`.
        """
        async with self._turn:
            if not self._covers(size, by_us=True):
                await trio.sleep_until(self._asked_at + ASKED_SECONDS_MIN)
                self._asked_at = trio.current_time()
                await self.sign(by_us=True)
        latest = self._view.latest
        if latest is None or (size is not None and latest.size < size):
            raise JournalUnavailable("No checkpoint could be signed now")
        return latest

    def _covers(self, size: int | None, *, by_us: bool = False) -> bool:
        """Whether the latest checkpoint does; it need not cover itself. by_us: it must be signed with our key."""
        latest, signer = self._view.latest, self.signer()
        if latest is None or signer is None:
            return False
        if by_us and not parse_note(latest.note).signed_by([signer.verifier]):
            return False
        return latest.position >= self._tree.position if size is None else latest.size >= size

    async def sign(self, age_min: Micros = 0, *, by_us: bool = False) -> None:
        """Sign a checkpoint over everything, unless nothing is new or the latest is younger than `age_min`.

        by_us: a checkpoint that another key has signed is news.

        Raises:
            JournalError, Overloaded: it could not be stored.
            LogChanged: the journal contradicts the latest checkpoint.
        """
        await self._tree.catch_up()
        signer = self.signer()
        if signer is None or self._covers(None, by_us=by_us) or not self._has_room():
            return
        self._tree.must_confirm()
        size, position = self._tree.size, self._tree.position
        note = sign(Checkpoint(signer.name, size, self._tree.root(size)).text, signer)
        await self._tree.sync()

        def next_of(now: Micros) -> CheckpointSigned | None:
            newest = self._view.latest
            if newest is not None and (newest.size >= size or now < newest.at + age_min):
                return None
            return CheckpointSigned(size=size, position=position, note=note)

        day = datetime.fromtimestamp(self._clock.now() / SECOND, UTC).date().isoformat()
        await self._turns.perform_log(day, next_of)
