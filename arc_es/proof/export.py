"""Making an export: messages as they are stored, with the proof that each is in the log. See `format`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from arc_es.codec import decode
from arc_es.domain.checkpoints import SignedCheckpoint
from arc_es.domain.errors import Rejected
from arc_es.domain.events import Body
from arc_es.domain.ids import Micros
from arc_es.domain.recorded import CommandKey
from arc_es.ports import BodyMissing, BodyStore, Journal, JournalUnavailable, Message
from arc_es.proof.checkpoints import Checkpoints
from arc_es.proof.format import BODY_FIELDS, BODY_PART_BYTES, FORMAT, Tally, line
from arc_es.proof.log import PAGE, PAGE_BYTES, LogTree
from arc_es.proof.notes import Checkpoint, parse_checkpoint, parse_note, sign, to_base64
from arc_es.summaries import CommandIndex, Find
from arc_es.views import CheckpointsView

KEYS_PAGE: Final = 1_000
"""Commands of a deployment that are known at a time."""


@dataclass(frozen=True, slots=True)
class Commands:
    """Whole histories of commands."""

    keys: Sequence[CommandKey]


@dataclass(frozen=True, slots=True)
class OfDeployment:
    """Whole histories of all commands of a deployment."""

    deployment_id: str


@dataclass(frozen=True, slots=True)
class Period:
    """Everything that was decided from `since` on and before `until`; None: no bound."""

    since: Micros | None = None
    until: Micros | None = None


Wanted = Commands | OfDeployment | Period


class NoCheckpoint(Rejected):
    """Nothing was signed yet, or this node does not sign."""

    code = "CHECKPOINT_NOT_FOUND"


class OldCheckpointTooLarge(Rejected):
    """The older checkpoint to compare with covers more than this log has."""


class Exports:
    """Makes exports, one call each."""

    def __init__(
        self,
        journal: Journal,
        index: CommandIndex,
        view: CheckpointsView,
        checkpoints: Checkpoints,
        tree: LogTree,
        store: BodyStore,
    ) -> None:
        self._journal = journal
        self._index = index
        self._view = view
        self._checkpoints = checkpoints
        self.tree = tree
        self._store = store

    def latest_note(self) -> str:
        """The latest checkpoint. Raises NoCheckpoint."""
        if self._view.latest is None:
            raise NoCheckpoint
        return self._view.latest.note

    async def make(
        self, wanted: Wanted, *, with_bodies: bool = False, old_size: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The lines of an export, the first one made already; a checkpoint is signed if what is wanted has none.

        old_size: of an older checkpoint whose tree this one must begin with.

        Raises:
            NoCheckpoint, OldCheckpointTooLarge: there is nothing to prove it with.
            JournalError, Overloaded, LogChanged: also while the lines are made.
        """
        stored = await self._checkpoint(wanted)
        if old_size is not None and old_size > stored.size:
            raise OldCheckpointTooLarge(f"The older checkpoint covers {old_size} messages, this one {stored.size}")
        signed = parse_checkpoint(parse_note(stored.note))
        scope = await self._scope(wanted, signed)
        if isinstance(wanted, OfDeployment):
            await self._index.reached(stored.covered)
        return self._lines(wanted, stored, signed, scope, with_bodies=with_bodies, old_size=old_size)

    async def _checkpoint(self, wanted: Wanted) -> SignedCheckpoint:
        await self.tree.catch_up()
        if self._checkpoints.signer() is None:
            raise NoCheckpoint
        if not isinstance(wanted, Commands):
            return await self._checkpoints.covering(None)
        last = [await self._journal.last(key) for key in wanted.keys]
        await self.tree.catch_up()
        end = max((message.position for message in last if message is not None), default=0)
        return await self._checkpoints.covering(self.tree.index_of(end) + 1)

    async def _scope(self, wanted: Wanted, signed: Checkpoint) -> list[str]:
        match wanted:
            case Commands():
                return [f"history {self.tree.subject_of(key)}" for key in wanted.keys]
            case OfDeployment():
                return [f"deployment {wanted.deployment_id}"]
            case Period():
                first = 0 if wanted.since is None else await self._first_at(wanted.since, signed.size)
                end = signed.size if wanted.until is None else await self._first_at(wanted.until, signed.size)
                return [f"range {first} {max(first, end)}"]

    async def _first_at(self, at: Micros, size: int) -> int:
        """The index of the first message that was decided at this time or later, as far as clocks only go on."""
        low, high = 0, size
        while low < high:
            middle = (low + high) // 2
            (payload,) = await self._journal.read([self.tree.position_of(middle)])
            if payload is None:
                raise JournalUnavailable("A message of the log is not in the journal any more")
            if decode(payload).at < at:
                low = middle + 1
            else:
                high = middle
        return low

    async def _lines(
        self,
        wanted: Wanted,
        stored: SignedCheckpoint,
        signed: Checkpoint,
        scope: Sequence[str],
        *,
        with_bodies: bool,
        old_size: int | None,
    ) -> AsyncGenerator[bytes, None]:
        yield line({"format": FORMAT, "scope": scope, "keys": list(self._view.key_notes), "checkpoint": stored.note})
        if old_size is not None:
            path = self.tree.consistency(old_size, signed)
            root = to_base64(self.tree.root(old_size))
            yield line({"consistency": {"size": old_size, "root": root, "proof": list(map(to_base64, path))}})
        tally = Tally()
        async with aclosing(self._messages(wanted, stored, scope)) as messages:
            async for message in messages:
                yield self._message_line(message, signed, tally)
                if with_bodies:
                    async for part in self._bodies(message, tally):
                        yield part
        signer = self._checkpoints.signer()
        assert signer is not None, "the key was announced before"
        manifest = tally.manifest(signed.origin, signed.size, scope, with_bodies=with_bodies)
        yield line({"manifest": sign(manifest, signer)})

    def _message_line(self, message: Message, signed: Checkpoint, tally: Tally) -> bytes:
        index, path = self.tree.inclusion(message, signed)
        tally.message(self.tree.leaf(message))
        return line(
            {
                "position": message.position,
                "subject": self.tree.subject_of(message.key),
                "index": index,
                "payload": to_base64(message.payload),
                "proof": list(map(to_base64, path)),
            }
        )

    # --- which messages

    async def _messages(
        self, wanted: Wanted, stored: SignedCheckpoint, scope: Sequence[str]
    ) -> AsyncGenerator[Message, None]:
        if isinstance(wanted, Period):
            async for message in self._between(*self._span(scope)):
                yield message
            return
        async with aclosing(self._keys(wanted, stored.covered)) as keys:
            async for key in keys:
                for message in await self._journal.history(key):
                    if message.position <= stored.covered:
                        yield message

    async def _keys(self, wanted: Commands | OfDeployment, end: int) -> AsyncGenerator[CommandKey, None]:
        """Whose histories are wanted; of a deployment the index knows them, so nothing else is looked at."""
        if isinstance(wanted, Commands):
            for key in wanted.keys:
                yield key
            return
        find: Find | None = Find(deployment_id=wanted.deployment_id, order="asc", limit=KEYS_PAGE, as_of=end)
        while find is not None:
            page = await self._index.find(find)
            for summary in page.commands:
                yield CommandKey(wanted.deployment_id, summary.command_id)
            find = None if page.behind is None else find.behind(page.behind)

    def _span(self, scope: Sequence[str]) -> tuple[int, int]:
        """The position after which to read, and the last one."""
        first, end = map(int, scope[0].split()[1:])
        if first == end:
            return 0, 0
        return self.tree.position_of(first) - 1, self.tree.position_of(end - 1)

    async def _between(self, after: int, last: int) -> AsyncIterator[Message]:
        while after < last:
            page = await self._journal.page(after, PAGE, PAGE_BYTES)
            if not page:
                raise JournalUnavailable("The journal does not give what it has stored")
            for message in page:
                if message.position <= last:
                    yield message
            after = page[-1].position

    # --- bodies

    async def _bodies(self, message: Message, tally: Tally) -> AsyncIterator[bytes]:
        """The bodies that the events of a message refer to and that lie elsewhere, as far as they are still there."""
        decision = decode(message.payload)
        for number, event in enumerate(() if decision.is_erased else decision.events):
            for field in BODY_FIELDS:
                body = getattr(event, field, None)
                if not isinstance(body, Body) or body.place == "event":
                    continue
                is_there = False
                async with aclosing(self._parts(message, body)) as parts:
                    async for part in parts:
                        is_there = True
                        where = {"position": message.position, "event": number, "field": field}
                        yield line({"body": {**where, "base64": to_base64(part)}})
                tally.bodies += is_there

    async def _parts(self, message: Message, body: Body) -> AsyncGenerator[bytes, None]:
        if body.place == "message":
            (raw,) = await self._journal.read([message.position - 1])
            if raw is not None:
                yield raw
        elif body.ref is not None:
            try:
                async with self._store.read(body.ref) as reader:
                    held = bytearray()
                    async for chunk in reader.chunks:
                        held += chunk
                        if len(held) >= BODY_PART_BYTES:
                            yield bytes(held)
                            held.clear()
                    if held or reader.size == 0:
                        yield bytes(held)
            except BodyMissing:
                return
