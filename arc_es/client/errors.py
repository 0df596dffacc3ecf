"""What can go wrong between a client and the service, named by whose fault it is.

ArcError
├── Refused               the service understood and said no; repeating the same does not help
├── Unavailable           the service cannot do it now
├── ServerUnreachable     nobody answered
├── BadAnswer             somebody else answered
├── UrlRefused            a signed storage URL has expired
└── CommandEnded          the command came to an end without a result
    ├── CommandFailed     its agent, or the service, answered with an error
    │   └── CommandCancelled
    └── CommandExpired    its deadline passed
NoResultYet               the caller's patience ended; the command lives on
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

NO_STATUS: Final = 0
"""The status of an error that no server answered."""
CANCELLED: Final = "CANCELLED"
_TEMPORARY: Final = {408, 429}
_NOT_IMPLEMENTED: Final = 501
_TEMPORARY_CODES: Final = {
    "GENERIC_ERROR",
    "JOURNAL_FULL",
    "JOURNAL_UNAVAILABLE",
    "NOT_READY",
    "OVERLOADED",
    "REQUEST_TIMEOUT",
    "STORAGE_OPERATION_FAILED",
}
"""Codes of entries that are worth another try; only whole answers say so themselves (`arc.v1` 1.6)."""


class ArcError(Exception):
    """Anything that went wrong with the service or a command.

    status: HTTP status, 0 if there was no answer. code: stable, see `arc.v1` 1.6. retryable: the same request may
    succeed later. retry_after_seconds: how long the service asked to wait.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = NO_STATUS,
        code: str = "UNKNOWN",
        retryable: bool = False,
        details: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.retryable = retryable
        self.details = details
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        """One line: message, code and status."""
        where = f" ({self.code}, HTTP {self.status})" if self.status else ""
        more = f": {self.details}" if self.details else ""
        return f"{self.message}{more}{where}"


class Refused(ArcError):
    """The service understood the request and said no. Change the request, the token or the target; see `code`."""


class Unavailable(ArcError):
    """The service cannot do it now, and nothing says that it was done. Repeat later; the SDK has already tried."""


class ServerUnreachable(ArcError):
    """There was no answer: nobody listens, or the connection broke or took too long.

    connected: the request may have been sent, so whether it took effect is unknown. Else it was not.
    """

    def __init__(self, message: str, *, connected: bool = True) -> None:
        super().__init__(message, code="UNREACHABLE", retryable=True)
        self.connected = connected


class BadAnswer(ArcError):
    """Something answered, but not as this service does; check the URL."""

    def __init__(self, message: str, *, status: int, retryable: bool = False) -> None:
        super().__init__(message, status=status, code="BAD_ANSWER", retryable=retryable)


class UrlRefused(ArcError):
    """A signed storage URL was refused: it has expired, or it was changed on its way. Ask for a fresh one."""

    def __init__(self, where: str) -> None:
        super().__init__(f"{where} refused the signed URL of a body", status=403, code="URL_REFUSED")


class CommandEnded(ArcError):
    """A command came to an end without a result. command_id: which."""

    def __init__(self, command_id: str, message: str, *, code: str, details: str | None = None) -> None:
        super().__init__(message, code=code, details=details)
        self.command_id = command_id


class CommandFailed(CommandEnded):
    """The agent answered with an error, or the service did in its place; `code`, `message` and `details` are theirs."""


class CommandCancelled(CommandFailed):
    """Somebody cancelled the command."""


class CommandExpired(CommandEnded):
    """The deadline of the command passed before anybody had answered."""


class NoResultYet(TimeoutError):
    """The time that the caller gave is up. The command lives on: wait for `command_id` again, or cancel it.

    command_id is None if it is not known whether the command was created: call again with the same `key`.
    """

    def __init__(self, command_id: str | None, key: str | None, seconds: float) -> None:
        what = f"command {command_id}" if command_id else f"the create with key {key}"
        super().__init__(f"No result of {what} within {seconds:g} s; it lives on")
        self.command_id = command_id
        self.key = key


def ending_of(command_id: str, state: str, response: Mapping[str, Any] | None) -> CommandEnded:
    """Why a command that has ended has no result."""
    if state == "EXPIRED":
        return CommandExpired(command_id, f"Command {command_id} expired before an answer came", code="COMMAND_EXPIRED")
    error = response or {}
    code, details = str(error.get("code", "UNKNOWN")), error.get("details")
    kind = CommandCancelled if code == CANCELLED else CommandFailed
    return kind(command_id, str(error.get("message", "")), code=code, details=details)


def entry_error(entry: Mapping[str, Any]) -> ArcError | None:
    """What is wrong with one entry of an answer about many, None if nothing is."""
    if "error" not in entry:
        return None
    code, message = str(entry["error"]["code"]), str(entry["error"]["message"])
    retryable = code in _TEMPORARY_CODES
    return (Unavailable if retryable else Refused)(message, code=code, retryable=retryable)


def is_temporary(status: int) -> bool:
    """Whether a status of unknown origin (a proxy, say) is worth another try."""
    return status in _TEMPORARY or (status >= 500 and status != _NOT_IMPLEMENTED)  # noqa: PLR2004 - the 5xx class
