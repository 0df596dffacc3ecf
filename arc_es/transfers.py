"""Bodies that come and go by URLs of their own (`arc.v1` 2.3, 2.10)."""

from __future__ import annotations

from arc_es.actors.turns import Ask, Turns
from arc_es.bodies import Answer, Bodies, Inline, InStore
from arc_es.domain.errors import InvalidCommand, InvalidStateTransition, UploadNotExpected
from arc_es.domain.intents import CompleteUpload
from arc_es.domain.recorded import Principal
from arc_es.domain.state import TERMINAL, PendingUpload
from arc_es.lookup import Lookup
from arc_es.payloads import Payloads
from arc_es.ports import BodyMissing, Slot
from arc_es.views import ReadModels, Row


class Transfers:
    """What may be uploaded, when it is complete, and what is downloaded."""

    def __init__(self, lookup: Lookup, models: ReadModels, turns: Turns, bodies: Bodies, payloads: Payloads) -> None:
        self._lookup = lookup
        self._models = models
        self._turns = turns
        self._bodies = bodies
        self._payloads = payloads

    async def complete_upload(self, command_id: str, size: int, by: Principal) -> Row:
        """The params are uploaded, all `size` bytes of them: fix them, and let the command be delivered.

        Raises:
            CommandNotFound: unknown id.
            InvalidStateTransition: the command does not wait for an upload (any more).
            InvalidCommand: nothing was uploaded, or another number of bytes; the command goes on waiting.
            BodyStoreError: the store cannot be read now.
        """
        row = await self._lookup.current(command_id)
        if not isinstance(row.state, PendingUpload):
            raise InvalidStateTransition("The command is not waiting for an upload")
        kept = await self._bodies.store.seal(Slot(command_id, "params"))
        if kept is None:
            raise InvalidCommand("No params were uploaded")
        if kept.size != size:
            raise InvalidCommand("The uploaded params have another size", details=str(kept.size))
        deployment_id = row.state.facts.route.deployment_id
        body, beside = await self._bodies.taken(kept)
        intent = CompleteUpload(params=body)
        return await self._turns.perform(Ask(command_id, deployment_id, intent, by, beside, "params"))

    async def expects_upload(self, slot: Slot) -> bool:
        """Whether an upload counts (`arc.v1` 2.10); a response for a command that has ended is only acknowledged.

        Raises:
            CommandNotFound: unknown id.
            UploadNotExpected: params for a command that does not wait for them.
        """
        state = (await self._lookup.current(slot.command_id)).state
        if slot.kind == "params" and not isinstance(state, PendingUpload):
            raise UploadNotExpected
        return not isinstance(state, TERMINAL)

    async def download(self, slot: Slot) -> Inline | str:
        """The params or the accepted response, else what was last uploaded: as bytes, or by name in the store.

        Raises:
            BodyMissing: there is nothing.
        """
        row = self._models.status.get(slot.command_id)
        found = await self._found(slot, row)
        if not isinstance(found, Inline | InStore):
            row = await self._lookup.latest(slot.command_id)  # another node may have fixed it a moment ago
            found = await self._found(slot, row)
        if isinstance(found, Inline):
            return found
        if isinstance(found, InStore):
            return found.ref
        if row is None or isinstance(row.state, TERMINAL):
            raise BodyMissing
        return slot.path

    async def _found(self, slot: Slot, row: Row | None) -> Answer | None:
        if row is not None:
            return await (self._bodies.params(row) if slot.kind == "params" else self._bodies.answer(row))
        if self._models.payloads.get(slot.command_id) is None:
            return None
        payloads = self._payloads
        return await (payloads.params if slot.kind == "params" else payloads.answer)(slot.command_id)
