"""What strict clients demand of an answer (`arc.v1` 5.1, 5.3, section 3): one wrong field fails the whole answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Check: TypeAlias = Callable[[Any, str], None]
STATES = ("PENDING_UPLOAD", "PENDING", "DISPATCHED", "SUCCEEDED", "FAILED", "EXPIRED")
TERMINAL = STATES[3:]


class Undecodable(Exception):
    """This is not what the client was promised."""


def _demand(fulfilled: bool, what: str, value: Any) -> None:  # noqa: FBT001 - a condition, not a flag
    if not fulfilled:
        raise Undecodable(f"{what}: {value!r}"[:300])


def string(value: Any, where: str) -> None:
    _demand(isinstance(value, str), where, value)


def filled(value: Any, where: str) -> None:
    _demand(isinstance(value, str) and value != "", where, value)


def flag(value: Any, where: str) -> None:
    _demand(isinstance(value, bool), where, value)


def timestamp(value: Any, where: str) -> None:
    form = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"
    _demand(isinstance(value, str) and re.fullmatch(form, value) is not None, where, value)


def integer(least: int) -> Check:
    """`1.0` passes, `1.5`, `true` and `"1"` do not."""

    def check(value: Any, where: str) -> None:
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and value == int(value)
        _demand(number and value >= least, where, value)

    return check


def one_of(*allowed: str) -> Check:
    def check(value: Any, where: str) -> None:
        _demand(value in allowed, where, value)

    return check


def strings(value: Any, where: str) -> None:
    _demand(isinstance(value, dict) and all(isinstance(one, str) for one in value.values()), where, value)


def list_of(inner: Check) -> Check:
    def check(value: Any, where: str) -> None:
        _demand(isinstance(value, list), where, value)
        for number, one in enumerate(value):
            inner(one, f"{where}[{number}]")

    return check


def fields(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object; optional fields may be absent or null, unknown ones pass."""

    def check(value: Any, where: str) -> None:
        _demand(isinstance(value, dict), where, value)
        for name, inner in required.items():
            _demand(name in value, f"{where}.{name} is missing from", value)
            inner(value[name], f"{where}.{name}")
        for name, inner in (optional or {}).items():
            if value.get(name) is not None:
                inner(value[name], f"{where}.{name}")

    return check


def tagged(tag: str, variants: Mapping[str, Check]) -> Check:
    def check(value: Any, where: str) -> None:
        _demand(isinstance(value, dict) and value.get(tag) in variants, f"{where}.{tag}", value)
        variants[value[tag]](value, where)

    return check


target = fields({"resourceId": string, "resourceType": one_of("worker", "container", "daemon")})
backend = tagged(
    "type",
    {
        "http": fields({"url": filled, "method": one_of("PUT", "GET", "DELETE"), "headers": strings}),
        "local": fields({"filePath": filled, "operation": one_of("put", "get", "delete")}),
    },
)
presigned = fields(
    {"backend": backend, "expiration": timestamp, "operation": one_of("put", "get", "delete"), "path": string}
)
body = tagged(
    "mode",
    {
        "inline": fields({"inlineBase64": string}),
        "storage": fields({}, {"size": integer(0), "storageGetRequest": presigned, "storagePutUsed": flag}),
    },
)
response = tagged(
    "status",
    {
        "success": fields({"response": body}),
        "error": fields({"code": string, "message": string}, {"details": string}),
    },
)
create_answer = fields(
    {"commandId": filled, "state": one_of(*STATES), "inlineAllowedUpTo": integer(0), "next": string},
    {"storageUpload": fields({"putRequest": presigned, "expiresAt": timestamp})},
)
status_answer = fields(
    {"commandId": filled, "state": one_of(*STATES), "attempt": integer(0), "target": target}, {"response": response}
)
envelope = fields(
    {
        "protocol": one_of("arc.v1"),
        "deploymentId": filled,
        "target": target,
        "commandId": filled,
        "attempt": integer(1),
        "command": filled,
        "params": body,
        "responseHandling": fields(
            {"maxInlineBytes": integer(0), "submitResponseUrl": filled, "storageUploadRequest": presigned}
        ),
    },
    {"deadline": timestamp, "traceContext": fields({"traceparent": filled}, {"tracestate": string})},
)
lease_answer = fields(
    {
        "leases": list_of(
            fields(
                {
                    "leaseId": filled,
                    "leaseExpiresAt": timestamp,
                    "commandId": filled,
                    "attempt": integer(1),
                    "envelope": envelope,
                }
            )
        )
    }
)
sender_connection = fields({"managerUrl": filled, "token": filled, "expiresAt": timestamp})
receiver_connection = fields(
    {
        "managerUrl": filled,
        "token": filled,
        "expiresAt": timestamp,
        "target": fields({"resourceId": filled, "resourceType": one_of("container", "daemon")}),
    }
)
