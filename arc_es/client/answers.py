"""Reading what came back: the object, the server's clock, or the error."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx2
import orjson

from arc_es.client.errors import ArcError, BadAnswer, Refused, Unavailable, is_temporary
from arc_es.client.lease import JsonObject

_MESSAGE_CHARS_MAX: Final = 300


def origin(url: httpx2.URL) -> str:
    """Scheme, host and port: the rest may hold a signature."""
    return f"{url.scheme}://{url.netloc.decode()}"


def reason_of(error: BaseException) -> str:
    """What the system said, if it said something; it is below several layers."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno and cause.strerror:
            return cause.strerror if isinstance(cause, socket.gaierror) else os.strerror(cause.errno)
        if isinstance(cause, BaseExceptionGroup):
            return reason_of(cause.exceptions[0])
        cause = cause.__cause__ or cause.__context__
    return str(error).rstrip(".") or type(error).__name__


def date_of(response: httpx2.Response) -> datetime:
    """The server's clock, to the second; ours if it did not say."""
    try:
        return parsedate_to_datetime(response.headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return datetime.now(UTC)


def object_of(response: httpx2.Response, *fields: str) -> JsonObject:
    """The JSON object of a good answer.

    Raises:
        BadAnswer: it is none, or lacks one of the fields.
    """
    try:
        answer = orjson.loads(response.content)
    except orjson.JSONDecodeError as error:
        raise BadAnswer(f"{origin(response.url)} did not answer with JSON", status=response.status_code) from error
    if not isinstance(answer, dict) or not all(field in answer for field in fields):
        message = f"{origin(response.url)} did not answer with the expected object"
        raise BadAnswer(message, status=response.status_code)
    return answer


def error_of(response: httpx2.Response) -> ArcError:
    """What an answer outside 2xx means."""
    status = response.status_code
    try:
        problem = orjson.loads(response.content)
        code, message, retryable = problem["code"], problem["message"], problem["retryable"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message = f"{origin(response.url)} answered {status} {response.reason_phrase}, not as this service does"
        return BadAnswer(message, status=status, retryable=is_temporary(status))
    details = problem.get("details")
    kind = Unavailable if retryable else Refused
    return kind(
        str(message)[:_MESSAGE_CHARS_MAX],
        status=status,
        code=str(code),
        retryable=bool(retryable),
        details=details[:_MESSAGE_CHARS_MAX] if isinstance(details, str) else None,
        retry_after_seconds=_retry_after_seconds(response),
    )


def _retry_after_seconds(response: httpx2.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None
