"""What can go wrong between a client and the service, named by whose fault it is."""

from __future__ import annotations

from typing import Final

NO_STATUS: Final = 0
"""The status of an error that no server answered."""
_TEMPORARY: Final = {408, 429}
_NOT_IMPLEMENTED: Final = 501


class ArcError(Exception):
    """The service refused a request or could not do it.

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


def is_temporary(status: int) -> bool:
    """Whether a status of unknown origin (a proxy, say) is worth another try."""
    return status in _TEMPORARY or (status >= 500 and status != _NOT_IMPLEMENTED)  # noqa: PLR2004 - the 5xx class
