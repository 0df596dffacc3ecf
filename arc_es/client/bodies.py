"""Bodies of commands: inline or stored, down and up."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

from arc_es.client.errors import BadAnswer
from arc_es.client.files import FileBody, Sink
from arc_es.client.lease import JsonObject
from arc_es.client.transport import Transport

INLINE_BYTES_MAX: Final = 150_000
"""Larger bodies are uploaded (`arc.v1` section 0): a request may have 2 MiB, and they would be stored apart anyway."""


class Bodies:
    """The part of `ArcClient` that moves bodies."""

    _http: Transport

    async def body(self, spec: Mapping[str, Any]) -> bytes:
        """The bytes of a BodySpec (`arc.v1` 3.2), downloaded if they are in storage."""
        if spec.get("mode") == "inline":
            try:
                return base64.b64decode(spec["inlineBase64"], validate=True)
            except (KeyError, TypeError, binascii.Error) as error:
                raise BadAnswer("An inline body is not base64", status=200) from error
        async with self._http.exchange_presigned(_get_request_of(spec)) as response:
            return await response.aread()

    async def save(self, spec: Mapping[str, Any], sink: Sink) -> None:
        """Write the bytes of a BodySpec to a sink; repeated with the same sink it goes on where it broke off.

        Raises OSError when the sink cannot take them.
        """
        if spec.get("mode") == "inline":
            await sink.take(_once(await self.body(spec)))
            return
        async with self._http.exchange_presigned(_get_request_of(spec)) as response:
            size = await sink.take(response.aiter_bytes())
        if size != sink.size:
            raise BadAnswer(f"A stored body had {sink.size} bytes, and now {size}", status=200)

    async def put_object(self, request: Mapping[str, Any], content: bytes | FileBody) -> None:
        """Upload a body by a PresignedRequest, with exactly its method, URL and headers. Safe to repeat."""
        async with self._http.exchange_presigned(request, content) as response:
            await response.aread()


def size_of(body: bytes | FileBody) -> int:
    """Its length in bytes."""
    return body.size if isinstance(body, FileBody) else len(body)


def spec_of(body: bytes | FileBody) -> JsonObject:
    """The BodySpec to send for it: inline, or announced for an upload."""
    size = size_of(body)
    if isinstance(body, FileBody) or size > INLINE_BYTES_MAX:
        return {"mode": "storage", "size": size}
    return {"mode": "inline", "inlineBase64": base64.b64encode(body).decode()}


def _get_request_of(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    request: Mapping[str, Any] | None = spec.get("storageGetRequest")
    if not request:
        raise BadAnswer("A stored body comes without a download request", status=200)
    return request


async def _once(content: bytes) -> AsyncGenerator[bytes, None]:
    yield content
