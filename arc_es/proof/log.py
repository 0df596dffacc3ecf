"""The tree over all event messages of the journal, read on when somebody needs it.

The live service pays nothing for it: no message is hashed on its way to the projections. A page of messages is read
from the journal again and hashed when a checkpoint or a proof is due, which is cheap because it is many at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from arc_es.codec import digest
from arc_es.domain.errors import Rejected
from arc_es.domain.merkle import consistency_proof, includes, inclusion_proof, leaf_data, leaf_hash
from arc_es.domain.recorded import Key
from arc_es.ports import Journal, JournalError, Message
from arc_es.proof.notes import Checkpoint, parse_checkpoint, parse_note
from arc_es.proof.tiles import Tiles
from arc_es.views import CheckpointsView

PAGE: Final = 256
"""Messages hashed between two turns of the event loop: about a millisecond."""
PAGE_BYTES: Final = 4 * 1024**2

log = logging.getLogger("arc_es.proof")


class LogChanged(Rejected):
    """What is stored is not what a checkpoint was signed over: the history was changed, or messages are missing."""

    code = "LOG_CHANGED"


class TreeUnavailable(JournalError):
    """The files of hashes cannot be written, or are damaged and will be made again. Try again."""


class LogTree:
    """The tree, in `tiles`. subject_of: where a history is stored."""

    def __init__(
        self, journal: Journal, checkpoints: CheckpointsView, tiles: Tiles, subject_of: Callable[[Key], str]
    ) -> None:
        self._journal = journal
        self._checkpoints = checkpoints
        self._tiles = tiles
        self.subject_of = subject_of
        self._believed = False
        self._turn = trio.Lock()

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._tiles.size

    @property
    def position(self) -> int:
        """Where the last leaf is in the stream, 0 if there is none."""
        return self._tiles.position

    def leaf(self, message: Message) -> bytes:
        """The hash of the leaf of a message."""
        return leaf_hash(leaf_data(message.position, self.subject_of(message.key), digest(message.payload)))

    def root(self, size: int) -> bytes:
        """The root over the first `size` leaves; they must be there."""
        return self._tiles.root(size)

    async def catch_up(self) -> None:
        """Read on to the end of the journal.

        Raises:
            JournalUnavailable: it cannot be read now.
            LogChanged: it contradicts the latest checkpoint.
            TreeUnavailable: the files cannot be written.
        """
        async with self._turn:
            try:
                if not self._believed:
                    await self._begin()
                    self._believed = True
                await self._read_on()
            except OSError as error:
                self._believed = False
                raise TreeUnavailable(f"The files of the log's tree cannot be written: {error.strerror}") from error

    async def _begin(self) -> None:
        """Believe of the files what the latest checkpoint confirms, and make the rest again."""
        latest = self._latest()
        self._tiles.truncate(0 if latest is None else min(latest.size, self._tiles.size))
        if latest is None:
            return
        had = self._tiles.size
        await self._read_on()
        if not self._confirms(latest) and had:
            log.warning("The files of the log's tree are not as signed; they are made again from the journal")
            self._tiles.truncate(0)
            await self._read_on()
        self.must_confirm()

    async def _read_on(self) -> None:
        end = await self._journal.end()
        while self._tiles.position < end:
            page = await self._journal.page(self._tiles.position, PAGE, PAGE_BYTES)
            if not page:
                break
            self._tiles.extend([(message.position, self.leaf(message)) for message in page])

    def _latest(self) -> Checkpoint | None:
        stored = self._checkpoints.latest
        return None if stored is None else parse_checkpoint(parse_note(stored.note))

    def _confirms(self, checkpoint: Checkpoint) -> bool:
        return self._tiles.size >= checkpoint.size and self._tiles.root(checkpoint.size) == checkpoint.root

    def must_confirm(self) -> None:
        """See that the tree still begins with what was signed last. Raises LogChanged."""
        latest = self._latest()
        if latest is not None and not self._confirms(latest):
            raise LogChanged(f"The journal is not what the checkpoint over {latest.size} messages was signed over")

    # --- proofs

    def index_of(self, position: int) -> int:
        """How many messages lie before this position: the index of the leaf there, if there is one."""
        return self._tiles.index_of(position)

    def position_of(self, index: int) -> int:
        """Where a leaf is in the stream."""
        return self._tiles.position_of(index)

    def inclusion(self, message: Message, checkpoint: Checkpoint) -> tuple[int, list[bytes]]:
        """Index and proof that a message is in the tree of a checkpoint.

        Raises:
            TreeUnavailable: the files do not give a proof that holds.
        """
        index = self.index_of(message.position)
        try:
            path = inclusion_proof(index, checkpoint.size, self._tiles.node)
        except (ValueError, IndexError) as error:
            raise TreeUnavailable("The hashes of the log are being made again") from error
        if not includes(self.leaf(message), index, checkpoint.size, checkpoint.root, path):
            self._believed = False
            self._tiles.truncate(0)
            raise TreeUnavailable(
                "The files of the log's tree are damaged, or the journal was changed; see arc-es verify"
            )
        return index, path

    def consistency(self, old_size: int, checkpoint: Checkpoint) -> list[bytes]:
        """The proof that the tree of a checkpoint begins with its first `old_size` leaves."""
        return consistency_proof(old_size, checkpoint.size, self._tiles.node)

    async def sync(self) -> None:
        """Have the files on disk. Raises TreeUnavailable."""
        try:
            await trio.to_thread.run_sync(self._tiles.sync)
        except OSError as error:
            raise TreeUnavailable(f"The files of the log's tree cannot be written: {error.strerror}") from error
