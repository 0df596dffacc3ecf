"""One leased command as a worker sees it: all URLs absolute, all times by the server's clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias
from urllib.parse import urljoin

JsonObject: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A command and the exclusive right to work on it until `expires_at`.

    server_time: the server's clock when it answered; budgets count from there, so a wrong local clock does no harm.
    params: BodySpec. submit_url: signed, needs no token. upload_request: where a large result goes (PresignedRequest).
    """

    lease_id: str
    expires_at: datetime
    server_time: datetime
    command_id: str
    attempt: int
    deployment_id: str
    command: str
    deadline: datetime | None
    params: JsonObject
    submit_url: str
    inline_bytes_max: int
    upload_request: JsonObject
    envelope: Mapping[str, Any]


def parse_lease(info: Mapping[str, Any], endpoint: str, server_time: datetime) -> Lease:
    """A LeaseInfo (`arc.v1` 3.11) as a `Lease`.

    Args:
        info: one entry of the answer.
        endpoint: the exact URL that the lease request was posted to, without query; relative URLs resolve against it.
        server_time: the Date of the answer.

    Raises:
        KeyError, TypeError, ValueError: it is no LeaseInfo.
    """
    envelope = info["envelope"]
    handling = envelope["responseHandling"]
    deadline = envelope.get("deadline")
    return Lease(
        lease_id=info["leaseId"],
        expires_at=datetime.fromisoformat(info["leaseExpiresAt"]),
        server_time=server_time,
        command_id=info["commandId"],
        attempt=int(info["attempt"]),
        deployment_id=envelope["deploymentId"],
        command=envelope["command"],
        deadline=datetime.fromisoformat(deadline) if deadline else None,
        params=_resolved_body(envelope["params"], endpoint),
        submit_url=urljoin(endpoint, handling["submitResponseUrl"]),
        inline_bytes_max=int(handling["maxInlineBytes"]),
        upload_request=_resolved_request(handling["storageUploadRequest"], endpoint),
        envelope=envelope,
    )


def _resolved_body(spec: JsonObject, endpoint: str) -> JsonObject:
    request = spec.get("storageGetRequest")
    return spec if request is None else {**spec, "storageGetRequest": _resolved_request(request, endpoint)}


def _resolved_request(request: JsonObject, endpoint: str) -> JsonObject:
    backend = request["backend"]
    if "url" not in backend:
        return request
    return {**request, "backend": {**backend, "url": urljoin(endpoint, backend["url"])}}
