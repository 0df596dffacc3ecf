"""The public JSON of `arc.v1`: reading requests strictly, writing answers as the strictest clients need them.

Nothing here knows the service; times are microseconds since the epoch, as everywhere.
"""

from __future__ import annotations

import binascii
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Literal, TypeVar

from arc_es.domain.ids import Micros, ResourceType, Target
from arc_es.domain.limits import (
    ATTEMPTS_MAX,
    CANCEL_REASON_BYTES_MAX,
    ERASE_REASON_BYTES_MAX,
    ERROR_TEXT_BYTES_MAX,
    INLINE_BYTES_MAX,
    LABEL_KEY_BYTES_MAX,
    LABEL_VALUE_BYTES_MAX,
    LABELS_MAX,
    NAME_BYTES_MAX,
    PRIORITY_MAX,
    SECOND,
    WAIT_SECONDS_MAX,
)

PROTOCOL: Final = "arc.v1"
CANCELLED_MESSAGE: Final = "The command was cancelled"
RESOURCE_TYPES: Final = ("worker", "container", "daemon")
_INT_MAX: Final = 2**62
_TIME_MAX: Final = 253_402_300_799_999_999
"""The last microsecond of the year 9999: later times cannot be written as RFC 3339."""
_TIME_MIN: Final = -62_135_596_800_000_000
"""The beginning of the year 1: earlier times cannot be written either."""


class WireError(Exception):
    """A request that cannot be read or is not acceptable; nothing was done."""

    def __init__(self, status: int, code: str, message: str, details: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details


def wrong_shape(message: str, details: str | None = None) -> WireError:
    """Well-formed JSON of the wrong shape: 422."""
    return WireError(422, "INVALID_REQUEST", message, details)


def _invalid(message: str, details: str | None = None) -> WireError:
    return WireError(400, "INVALID_COMMAND", message, details)


# --- times

_TIME: Final = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?(?:([Zz])|([+-])(\d{2}):(\d{2}))", re.ASCII
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LEAP_SECOND: Final = 60


def parse_time(text: object, name: str) -> Micros:
    """Microseconds of an RFC 3339 time; digits beyond microseconds are cut off (`arc.v1` 1.3).

    Raises:
        WireError: 422, it is none, or has no zone.
    """
    match = _TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise wrong_shape(f"{name} must be an RFC 3339 time with a zone, such as 2026-03-01T10:05:00Z")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    leap = second == _LEAP_SECOND
    try:
        moment = datetime(year, month, day, hour, minute, 59 if leap else second, tzinfo=UTC)
        offset = timedelta(hours=int(match[10] or 0), minutes=int(match[11] or 0))
        if int(match[11] or 0) > 59 or int(match[10] or 0) > 23:  # noqa: PLR2004 - minutes and hours of a day
            raise ValueError
    except ValueError:
        raise wrong_shape(f"{name} is not a time that exists") from None
    since = (moment - _EPOCH) // timedelta(microseconds=1) + (SECOND if leap else 0)
    since += int((match[7] or "0").ljust(6, "0")[:6])
    since += (1 if match[9] == "-" else -1) * (offset // timedelta(microseconds=1))
    if not _TIME_MIN <= since <= _TIME_MAX:
        raise wrong_shape(f"{name} is not between the years 1 and 9999")
    return since


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()


def format_time(at: Micros) -> str:
    """RFC 3339 in UTC with `Z`; six digits of fraction, none when it is zero (`arc.v1` 1.3)."""
    seconds, micros = divmod(at, SECOND)
    return f"{_second(seconds)}.{micros:06d}Z" if micros else f"{_second(seconds)}Z"


# --- reading

T = TypeVar("T")
Json = Mapping[str, Any]


def parse_object(data: object) -> Json:
    """The request body as an object. Raises WireError 422."""
    if not isinstance(data, dict):
        raise wrong_shape("The request body must be a JSON object")
    return data


def required(data: Json, name: str, read: Callable[[object, str], T]) -> T:
    """A field that must be there and not null. Raises WireError 422."""
    value = data.get(name)
    if value is None:
        raise wrong_shape(f"{name} is missing")
    return read(value, name)


def optional(data: Json, name: str, read: Callable[[object, str], T]) -> T | None:
    """A field that may be absent or null; both mean "not given"."""
    value = data.get(name)
    return None if value is None else read(value, name)


def text(value: object, name: str) -> str:
    """A string. Raises WireError 422."""
    if not isinstance(value, str):
        raise wrong_shape(f"{name} must be a string")
    return value


def count(value: object, name: str) -> int:
    """A non-negative integer of any size (it is clamped later). Raises WireError 422."""
    number = integer(value, name)
    if number < 0:
        raise wrong_shape(f"{name} must not be negative")
    return number


def integer(value: object, name: str) -> int:
    """An integer of any size, cut to what arithmetic can bear. Raises WireError 422."""
    if isinstance(value, float) and abs(value) >= 2**63:  # the JSON reader gives huge integers as floats
        return int(math.copysign(_INT_MAX, value))
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_shape(f"{name} must be an integer")
    return max(-_INT_MAX, min(value, _INT_MAX))


def clamp(value: int | None, low: int, high: int, default: int) -> int:
    """`value` within the range, or the default if it was not given."""
    return default if value is None else max(low, min(value, high))


def name_text(value: object, name: str) -> str:
    """A string within the length limit of names. Raises WireError 422, or 400 if it is too long."""
    found = text(value, name)
    if len(found.encode()) > NAME_BYTES_MAX:
        raise _invalid(f"{name} is longer than {NAME_BYTES_MAX} bytes")
    return found


def parse_target(value: object, name: str = "target") -> Target:
    """A CommandTarget (`arc.v1` 3.6). Raises WireError 422."""
    data = parse_field_object(value, name)
    kind = required(data, "resourceType", text)
    if kind not in RESOURCE_TYPES:
        raise wrong_shape(f"{name}.resourceType must be one of {', '.join(RESOURCE_TYPES)}")
    resource_type: ResourceType = kind  # type: ignore[assignment]
    return Target(required(data, "resourceId", text), resource_type)


def parse_field_object(value: object, name: str) -> Json:
    """A field that is an object. Raises WireError 422."""
    if not isinstance(value, dict):
        raise wrong_shape(f"{name} must be an object")
    return value


def parse_list(value: object, name: str) -> list[Any]:
    """A field that is a list. Raises WireError 422."""
    if not isinstance(value, list):
        raise wrong_shape(f"{name} must be a list")
    return value


# --- bodies


@dataclass(frozen=True, slots=True)
class InlineBody:
    """Bytes that came in the request, with the text they came as."""

    raw: bytes
    base64: str


@dataclass(frozen=True, slots=True)
class StorageBody:
    """Bytes that are, or will be, in storage; size is what the caller says."""

    size: int | None


def parse_base64(value: str, name: str) -> InlineBody:
    """Standard, padded, canonical base64 (`arc.v1` 1.4). Raises WireError 400."""
    try:
        raw = binascii.a2b_base64(value.encode("ascii"), strict_mode=True)
    except (ValueError, UnicodeEncodeError):
        raw = None
    if raw is None or binascii.b2a_base64(raw, newline=False).decode() != value:
        raise WireError(400, "INVALID_REQUEST", f"{name} is not padded, canonical base64 without line breaks")
    return InlineBody(raw, value)


def parse_body(value: object, name: str) -> InlineBody | StorageBody:
    """A BodySpec (`arc.v1` 3.2); URLs in it are ignored. Raises WireError 422, or 400 for bad base64."""
    data = parse_field_object(value, name)
    mode = required(data, "mode", text)
    if mode == "inline":
        return parse_base64(required(data, "inlineBase64", text), f"{name}.inlineBase64")
    if mode == "storage":
        return StorageBody(optional(data, "size", count))
    raise wrong_shape(f"{name}.mode must be inline or storage")


def inline_body(base64: str) -> dict[str, Any]:
    """An inline BodySpec."""
    return {"mode": "inline", "inlineBase64": base64}


def storage_body(size: int | None) -> dict[str, Any]:
    """A storage BodySpec without a request; an unknown size is written as null (`arc.v1` 1.2)."""
    return {"mode": "storage", "size": size}


@dataclass(frozen=True, slots=True)
class SuccessResponse:
    """A result."""

    response: InlineBody | StorageBody


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """An error answer; long texts are already cut."""

    code: str
    message: str
    details: str | None


def parse_response(value: object) -> SuccessResponse | ErrorResponse:
    """A CommandResponse (`arc.v1` 3.3). Raises WireError 422, or 400 for bad base64."""
    data = parse_object(value)
    status = required(data, "status", text)
    if status == "success":
        return SuccessResponse(required(data, "response", parse_body))
    if status == "error":
        details = optional(data, "details", text)
        return ErrorResponse(
            cut(required(data, "code", text)),
            cut(required(data, "message", text)),
            None if details is None else cut(details),
        )
    raise wrong_shape("status must be success or error")


def cut(long_text: str, bytes_max: int = ERROR_TEXT_BYTES_MAX) -> str:
    """At most the first 150000 bytes, or so many, cut at a character boundary (`arc.v1` 3.3)."""
    data = long_text.encode()
    if len(data) <= bytes_max:
        return long_text
    return data[:bytes_max].decode(errors="ignore")


def error_response(code: str, message: str, details: str | None) -> dict[str, Any]:
    """An error CommandResponse."""
    answer = {"status": "error", "code": code, "message": message}
    if details is not None:
        answer["details"] = details
    return answer


def success_response(response: dict[str, Any]) -> dict[str, Any]:
    """A success CommandResponse."""
    return {"status": "success", "response": response}


# --- requests


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """POST /commands (`arc.v1` 2.1, extensions "Creating and waiting")."""

    deployment_id: str
    command: str
    params: InlineBody | StorageBody
    deadline: Micros | None
    idempotency_key: str | None
    target_id: str | None
    priority: int = 0
    not_before: Micros | None = None
    max_attempts: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    wait_seconds: int = 0


def parse_create(value: object, now: Micros, allow: Callable[[str, str | None, str], None]) -> CreateRequest:
    """Read a create request: first the shape (422), then the values in the order of `arc.v1` 2.1 (400).

    Between the two `allow` is told the deployment, the requested target and the command; it raises if the caller has no
    right to them (`arc.v1` 1.7).
    """
    data = parse_object(value)
    deployment_id = required(data, "deploymentId", text)
    command = required(data, "command", text)
    params = parse_field_object(data.get("params"), "params")
    deadline = optional(data, "deadline", parse_time)
    key = optional(data, "idempotencyKey", text)
    target_id = optional(data, "targetResourceId", text)
    priority = optional(data, "priority", integer) or 0
    if abs(priority) > PRIORITY_MAX:
        raise wrong_shape(f"priority must be between -{PRIORITY_MAX} and {PRIORITY_MAX}")
    max_attempts = optional(data, "maxAttempts", count)
    not_before = optional(data, "notBefore", parse_time)
    labels = optional(data, "labels", parse_labels) or {}
    wait_seconds = clamp(optional(data, "waitSeconds", count), 0, WAIT_SECONDS_MAX, 0)
    _body_shape(params)
    allow(deployment_id, target_id, command)
    if not command:
        raise _invalid("command is empty")
    if ":" in command:
        raise _invalid("command must not contain ':'")
    if not deployment_id:
        raise _invalid("deploymentId is empty")
    for name, given in (("deploymentId", deployment_id), ("command", command), ("idempotencyKey", key)):
        name_text(given or "", name)
    if deadline is not None and deadline <= now:
        raise _invalid("deadline is not in the future", format_time(deadline))
    return CreateRequest(
        deployment_id=deployment_id,
        command=command,
        params=parse_body(params, "params"),
        deadline=deadline,
        idempotency_key=key,
        target_id=target_id,
        priority=priority,
        not_before=not_before,
        max_attempts=None if max_attempts is None else clamp(max_attempts, 1, ATTEMPTS_MAX, 1),
        labels=labels_within_limits(labels),
        wait_seconds=wait_seconds,
    )


def _body_shape(data: Json) -> None:
    """Refuse a body of the wrong shape (422) before any value is judged (400)."""
    mode = required(data, "mode", text)
    if mode == "inline":
        required(data, "inlineBase64", text)
    elif mode == "storage":
        optional(data, "size", count)
    else:
        raise wrong_shape("params.mode must be inline or storage")


def parse_labels(value: object, name: str) -> dict[str, str]:
    """A field that is an object of strings. Raises WireError 422."""
    return {key: text(label, f"{name}.{key}") for key, label in parse_field_object(value, name).items()}


def labels_within_limits(labels: dict[str, str]) -> dict[str, str]:
    """The same labels. Raises WireError 400: too many, or too long."""
    if len(labels) > LABELS_MAX:
        raise _invalid(f"labels: at most {LABELS_MAX}")
    for key, label in labels.items():
        if len(key.encode()) > LABEL_KEY_BYTES_MAX:
            raise _invalid(f"labels: keys have at most {LABEL_KEY_BYTES_MAX} bytes")
        if len(label.encode()) > LABEL_VALUE_BYTES_MAX:
            raise _invalid(f"labels: values have at most {LABEL_VALUE_BYTES_MAX} bytes")
    return labels


def parse_cancel(value: object) -> str:
    """Why a command is cancelled; a body that says nothing is fine. Raises WireError 422."""
    reason = None if value is None else optional(parse_object(value), "reason", text)
    return CANCELLED_MESSAGE if reason is None else cut(reason, CANCEL_REASON_BYTES_MAX)


def parse_erase(value: object) -> str:
    """Why a command is erased. Raises WireError 422, also if nothing is said."""
    reason = required(parse_object(value), "reason", text).strip()
    if not reason:
        raise WireError(422, "INVALID_REQUEST", "reason must say why")
    return cut(reason, ERASE_REASON_BYTES_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapRequest:
    """POST /commands/bootstrap (`arc.v1` 2.9)."""

    deployment_id: str
    role: Literal["sender", "receiver"]
    target_id: str | None


def parse_bootstrap(value: object) -> BootstrapRequest:
    """Read a discovery request. Raises WireError 422."""
    data = parse_object(value)
    role = required(data, "role", text)
    if role not in ("sender", "receiver"):
        raise wrong_shape("role must be sender or receiver")
    found: Literal["sender", "receiver"] = role  # type: ignore[assignment]
    return BootstrapRequest(
        deployment_id=required(data, "deploymentId", name_text),
        role=found,
        target_id=required(data, "target", text) if role == "receiver" else None,
    )


def parse_wait(query_value: str | None) -> int:
    """`waitSeconds` of a query string, clamped to 0..60. Raises WireError 422 if it is no number."""
    if query_value is None:
        return 0
    if not query_value.isdecimal():
        raise wrong_shape("waitSeconds must be a non-negative integer")
    return WAIT_SECONDS_MAX if len(query_value) > 9 else min(int(query_value), WAIT_SECONDS_MAX)  # noqa: PLR2004


# --- trace context (W3C)

_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_TRACESTATE_CHARS_MAX: Final = 512


def valid_traceparent(header: str | None) -> str | None:
    """The header if it is valid by W3C Trace Context level 2, else None: invalid ones are ignored."""
    if header is None or _TRACEPARENT.fullmatch(header) is None:
        return None
    return None if header.startswith("00-") and len(header) != 55 else header  # noqa: PLR2004 - length of version 00


def valid_tracestate(header: str | None) -> str | None:
    """The header if it can be passed on, else None."""
    usable = header and len(header) <= _TRACESTATE_CHARS_MAX and header.isprintable() and "=" in header
    return header if usable else None


# --- answers


def target_json(target_id: str, target_type: ResourceType | None) -> dict[str, str]:
    """A CommandTarget; an unknown type is shown as worker (`arc.v1` 4.6)."""
    return {"resourceId": target_id, "resourceType": target_type or "worker"}


def create_answer(command_id: str, state: str) -> dict[str, Any]:
    """The answer to a create, without the upload request."""
    return {
        "commandId": command_id,
        "state": state,
        "inlineAllowedUpTo": INLINE_BYTES_MAX,
        "next": "upload" if state == "PENDING_UPLOAD" else "poll",
    }


def problem(code: str, message: str, *, retryable: bool = False, details: str | None = None) -> dict[str, Any]:
    """An error body (`arc.v1` 1.6)."""
    body: dict[str, Any] = {"code": code, "message": message, "retryable": retryable}
    if details is not None:
        body["details"] = details
    return body
