"""Signed body URLs: uploads and downloads, streamed in both directions (`arc.v1` 2.10)."""

from __future__ import annotations

import binascii
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from types import TracebackType

from quart import Blueprint, Request, Response
from quart.wrappers.response import ResponseBody

from arc_es.bodies import Inline
from arc_es.http.api import Api
from arc_es.http.connection import body_chunks
from arc_es.http.problems import Refusal
from arc_es.ports import Slot
from arc_es.signing import Method

OCTETS = "application/octet-stream"


def bodies_blueprint(api: Api, storage_bytes_max: int) -> Blueprint:
    """PUT and GET /storage/arc/commands/{commandId}/{params|response}. storage_bytes_max: the largest upload."""
    blueprint = Blueprint("bodies", __name__)
    service = api.service

    def signed_slot(request: Request, command_id: str, kind: str) -> Slot:
        """What a URL names, if its signature is good. A bearer token is not looked at."""
        slot = Slot(command_id, "params" if kind == "params" else "response")
        method: Method = "PUT" if request.method == "PUT" else "GET"
        given = request.args.get("signature", ""), request.args.get("expires", "")
        if not api.signer.storage_valid(method, slot.path, *given, now=service.now()):
            raise Refusal("FORBIDDEN", "The signature of this URL is wrong or has expired")
        return slot

    @blueprint.put("/storage/arc/commands/<command_id>/<any(params, response):kind>")
    async def upload(request: Request, command_id: str, kind: str) -> Response:
        slot = signed_slot(request, command_id, kind)
        counts = await service.expects_upload(slot)
        async with aclosing(body_chunks(request, storage_bytes_max)) as chunks:
            if counts:
                await service.store.upload(slot, chunks, storage_bytes_max)
            else:
                async for _ in chunks:  # the client may not take an answer before it has sent everything
                    pass
        return Response(b"")

    @blueprint.get("/storage/arc/commands/<command_id>/<any(params, response):kind>")
    async def download(request: Request, command_id: str, kind: str) -> Response:
        found = await service.download(signed_slot(request, command_id, kind))
        if isinstance(found, Inline):
            return Response(binascii.a2b_base64(found.base64), content_type=OCTETS)
        opened = AsyncExitStack()
        reader = await opened.enter_async_context(service.store.read(found))
        response = Response(b"", content_type=OCTETS)
        response.response = StoredBody(opened, reader.chunks)
        response.content_length = reader.size
        return response

    return blueprint


class StoredBody(ResponseBody):
    """An answer's bytes as they come from the store, which is read no faster than the client takes them."""

    def __init__(self, opened: AsyncExitStack, chunks: AsyncIterator[bytes]) -> None:
        self._opened = opened
        self._chunks = chunks

    async def __aenter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.aclose()
