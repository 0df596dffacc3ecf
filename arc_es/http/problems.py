"""Every error as JSON (`arc.v1` 1.6): the one table from what went wrong to what is answered."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from wsgiref.handlers import format_date_time

import orjson
from quart import Response
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from arc_es.actors.waiters import TargetOverloaded
from arc_es.domain.errors import Rejected
from arc_es.domain.limits import ECHO_CHARS_MAX, HEAD_BYTES_MAX
from arc_es.ports import BodyMissing, BodyStoreError, BodyStoreFull, BodyTooLarge, JournalError, JournalFull, Overloaded
from arc_es.wire import WireError, problem

RETRY_AFTER_SECONDS: Final = 1
UNAUTHORIZED: Final = 401
JSON: Final = "application/json"

log = logging.getLogger("arc_es.http")

STATUS_OF_CODE: Final[Mapping[str, int]] = {
    "INVALID_COMMAND": 400,
    "INVALID_STATE_TRANSITION": 400,
    "COMMAND_TARGET_ID_INVALID": 400,
    "UNAUTHORIZED": 401,
    "FORBIDDEN": 403,
    "COMMAND_NOT_FOUND": 404,
    "COMMAND_TARGET_NOT_FOUND": 404,
    "LEASE_NOT_FOUND": 404,
    "OBJECT_NOT_FOUND": 404,
    "DEPLOYMENT_NOT_FOUND": 404,
    "TOKEN_NOT_FOUND": 404,
    "CHECKPOINT_NOT_FOUND": 404,
    "ROUTE_NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "REQUEST_TIMEOUT": 408,
    "COMMAND_TARGET_AMBIGUOUS": 409,
    "CONFLICT": 409,
    "PAYLOAD_TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "REQUEST_HEADER_TOO_LARGE": 431,
    "NO_COMMAND_TARGETS": 422,
    "GENERIC_ERROR": 500,
    "STORAGE_OPERATION_FAILED": 500,
    "LOG_CHANGED": 500,
    "NOT_READY": 503,
    "JOURNAL_UNAVAILABLE": 503,
    "OVERLOADED": 503,
    "JOURNAL_FULL": 507,
}
RETRYABLE: Final = {
    "REQUEST_TIMEOUT",
    "GENERIC_ERROR",
    "STORAGE_OPERATION_FAILED",
    "NOT_READY",
    "JOURNAL_UNAVAILABLE",
    "OVERLOADED",
    "JOURNAL_FULL",
}


class Refusal(Exception):
    """A request that the edge itself refuses, by a code of the table."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def json_response(data: object, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(data), status, content_type=JSON)


def problem_response(status: int, code: str, message: str, details: str | None = None) -> Response:
    """An error answer, with Retry-After where waiting helps, and WWW-Authenticate where a token does (RFC 9110)."""
    retryable = code in RETRYABLE
    said = None if details is None else details[:ECHO_CHARS_MAX]
    response = json_response(problem(code, message[:ECHO_CHARS_MAX], retryable=retryable, details=said), status)
    if retryable:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if status == UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


UNREAD: Final[Mapping[int, tuple[str, str]]] = {
    400: ("INVALID_REQUEST", "This is not an HTTP/1.1 request"),
    408: ("REQUEST_TIMEOUT", "The request came too slowly"),
    431: ("REQUEST_HEADER_TOO_LARGE", f"The request line and the headers are larger than {HEAD_BYTES_MAX} bytes"),
    503: ("OVERLOADED", "Too many connections are open"),
}
"""What is answered where no request could be read."""


def raw_problem(status: int) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of the answer where no request could be read; it ends the connection.

    Any status that is not in `UNREAD` counts as 400: what a client sends is no fault of the service.
    """
    status = status if status in UNREAD else 400
    code, message = UNREAD[status]
    body = orjson.dumps(problem(code, message, retryable=code in RETRYABLE))
    headers = [
        (b"content-type", JSON.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"date", format_date_time(time.time()).encode()),
        (b"connection", b"close"),
    ]
    if code in RETRYABLE:
        headers.append((b"retry-after", str(RETRY_AFTER_SECONDS).encode()))
    return status, headers, body


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is said of an error."""

    status: int
    code: str
    message: str
    details: str | None = None


def trouble_of(error: Exception) -> Trouble:  # noqa: PLR0911 - one return a family of errors
    """What is said of a request, or of one entry of it, that ended in `error`."""
    match error:
        case WireError():
            return Trouble(error.status, error.code, error.message, error.details)
        case Refusal():
            return Trouble(STATUS_OF_CODE[error.code], error.code, error.message)
        case Rejected():
            return Trouble(STATUS_OF_CODE[error.code], error.code, error.message, error.details)
        case TargetOverloaded():
            return Trouble(429, "OVERLOADED", str(error))
        case Overloaded():
            return Trouble(503, "OVERLOADED", str(error))
        case JournalFull() | BodyStoreFull():
            return Trouble(507, "JOURNAL_FULL", "There is no room for this now")
        case BodyMissing():
            return Trouble(404, "OBJECT_NOT_FOUND", "There is nothing stored here")
        case BodyTooLarge():
            return Trouble(413, "PAYLOAD_TOO_LARGE", "The upload is larger than this service takes")
        case BodyStoreError():
            log.warning("The body store could not be used: %s", error)
            return Trouble(500, "STORAGE_OPERATION_FAILED", "The body store cannot be used now; try again")
        case JournalError():
            log.warning("The journal could not be used: %s", error)
            return Trouble(503, "JOURNAL_UNAVAILABLE", "The journal cannot be reached now; try again")
        case _:
            log.error("A request failed because of a bug", exc_info=error)
            return Trouble(500, "GENERIC_ERROR", "Internal server error")


def entry_error(error: Exception) -> dict[str, str]:
    """What is said of one entry of a request."""
    trouble = trouble_of(error)
    return {"code": trouble.code, "message": trouble.message[:ECHO_CHARS_MAX]}


def response_of(error: Exception) -> Response:
    """The answer to a request that ended in `error`."""
    match error:
        case MethodNotAllowed():
            response = problem_response(405, "METHOD_NOT_ALLOWED", "This path does not have this method")
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
            return response
        case NotFound():
            return problem_response(404, "ROUTE_NOT_FOUND", "There is nothing at this path")
        case HTTPException():
            return problem_response(400, "INVALID_REQUEST", error.description or "The request cannot be read")
        case _:
            trouble = trouble_of(error)
            return problem_response(trouble.status, trouble.code, trouble.message, trouble.details)
