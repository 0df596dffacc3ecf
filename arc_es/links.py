"""Requests that a URL alone allows: downloads and uploads of bodies, answers to commands (`arc.v1` 2.6, 2.10, 3.4)."""

from __future__ import annotations

from typing import Any, Final

from arc_es.bodies import Announced, Answer, Found, Inline
from arc_es.domain.ids import Micros
from arc_es.domain.limits import SECOND
from arc_es.ports import BodyStore, Slot
from arc_es.signing import Method, Signer
from arc_es.wire import ErrorResponse, error_response, format_time, inline_body, storage_body, success_response

TRANSFER_SECONDS: Final = 3_600
"""How long a params upload URL and a download URL live (`arc.v1` section 0)."""


class Links:
    """Mints requests for one answer.

    base: `{base}` for absolute URLs, None for URLs relative to the lease endpoint. URLs straight to a body store are
    absolute anyway.
    """

    def __init__(self, signer: Signer, store: BodyStore, base: str | None, now: Micros) -> None:
        self._signer = signer
        self._store = store
        self._commands = "" if base is None else f"{base}/commands/"
        self._storage = "../storage/" if base is None else f"{base}/storage/"
        self._now_seconds = now // SECOND

    def respond_url(self, command_id: str, seconds: int) -> str:
        """Where to answer a command."""
        expires = self._now_seconds + seconds
        token = self._signer.response_token(command_id, expires)
        return f"{self._commands}{command_id}/response?response_token={token}&expires={expires}"

    def upload(self, slot: Slot, seconds: int) -> dict[str, Any]:
        """The request to upload params or a response."""
        return self._request("PUT", slot, self._store.upload_url(slot, seconds), seconds)

    def storage_upload(self, command_id: str) -> dict[str, Any]:
        """A StorageUpload (`arc.v1` 3.5): how to upload the params of a new command."""
        request = self.upload(Slot(command_id, "params"), TRANSFER_SECONDS)
        return {"putRequest": request, "expiresAt": request["expiration"]}

    def body(self, slot: Slot, found: Found, seconds: int = TRANSFER_SECONDS) -> dict[str, Any]:
        """A BodySpec, with a fresh download request if the body is in the store (`arc.v1` 4.3)."""
        if isinstance(found, Inline):
            return inline_body(found.base64)
        if isinstance(found, Announced):
            return storage_body(found.size)
        request = self._request("GET", slot, self._store.download_url(found.ref, seconds), seconds)
        return {**storage_body(found.size), "storageGetRequest": request, "storagePutUsed": True}

    def answer(self, command_id: str, answer: Answer) -> dict[str, Any]:
        """A CommandResponse (`arc.v1` 3.3)."""
        if isinstance(answer, ErrorResponse):
            return error_response(answer.code, answer.message, answer.details)
        return success_response(self.body(Slot(command_id, "response"), answer))

    def _request(self, method: Method, slot: Slot, straight: str | None, seconds: int) -> dict[str, Any]:
        """A PresignedRequest (`arc.v1` 3.4)."""
        expires = self._now_seconds + seconds
        if straight is None:
            signature = self._signer.storage_signature(method, slot.path, expires)
            straight = f"{self._storage}{slot.path}?expires={expires}&signature={signature}"
        return {
            "backend": {"type": "http", "url": straight, "method": method, "headers": {}},
            "expiration": format_time(expires * SECOND),
            "operation": method.lower(),
            "path": slot.path,
        }
