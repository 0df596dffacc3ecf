"""What the sub-commands share: exit statuses, the error that becomes one line, options, and how values are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, cast, get_args

from cyclopts import Group, Parameter

from arc_es.domain.ids import ResourceType, Target

if TYPE_CHECKING:  # the HTTP client takes 0.1 s to import, which `--help` and `serve` need not wait for
    from arc_es.client import ArcClient, ArcError, Caller, Worker

T = TypeVar("T")

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_TIMEOUT: Final = 3
EXIT_INTERRUPTED: Final = 130

DEFAULT_URL: Final = "http://127.0.0.1:8420"
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")
_UNIT_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class CommandFailure(Exception):
    """The sub-command could not do what it was asked; the message is for the user, one line, without a traceback."""

    def __init__(self, message: str, *, advice: str = "", exit_status: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice
        self.exit_status = exit_status


_SERVER_GROUP: Final = Group("Server", sort_key=90)


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Server:
    """Which service to talk to, and as whom."""

    url: Annotated[
        str, Parameter(help="URL of the service.", env_var="ARC_URL", group=_SERVER_GROUP, allow_leading_hyphen=False)
    ] = DEFAULT_URL
    token: Annotated[
        str | None,
        Parameter(
            help="Bearer token. Other users of this machine can read options: prefer the environment.",
            env_var="ARC_TOKEN",
            group=_SERVER_GROUP,
        ),
    ] = None

    def client(self, role: str) -> ArcClient:
        """A client for this service; `role` is recorded as user agent.

        Raises:
            CommandFailure: the URL is not one.
        """
        from arc_es.client import ArcClient

        return self._made(ArcClient, role)

    def caller(self, role: str, **options: Any) -> Caller:
        """A caller for this service. Raises CommandFailure like `client`."""
        from arc_es.client import Caller

        return self._made(Caller, role, **options)

    def worker(self, role: str, **options: Any) -> Worker:
        """A worker for this service. Raises CommandFailure like `client`."""
        from arc_es.client import Worker

        return self._made(Worker, role, **options)

    def _made(self, kind: Callable[..., T], role: str, **options: Any) -> T:
        from arc_es import __version__

        try:
            return kind(self.url, self.token, user_agent=f"arc-es-{role}/{__version__}", **options)
        except ValueError as error:
            advice = "see --url, --token, ARC_URL and ARC_TOKEN"
            raise CommandFailure(str(error), advice=advice, exit_status=EXIT_USAGE) from error


DEFAULT_SERVER: Final = Server()
Json = Annotated[bool, Parameter(negative="")]


def run_trio(main: Callable[..., Coroutine[Any, Any, T]], *arguments: object) -> T:
    """`trio.run`, with Ctrl-C as a plain KeyboardInterrupt, also when it hit a task of a nursery."""
    import trio

    try:
        return trio.run(main, *arguments)
    except BaseExceptionGroup as group:
        if group.split(KeyboardInterrupt)[1] is None:
            raise KeyboardInterrupt from group
        raise


def ask(server: Server, role: str, question: Callable[[ArcClient], Coroutine[Any, Any, T]]) -> T:
    """Ask the service once, from synchronous code.

    Raises:
        CommandFailure: it did not answer, or refused.
    """
    from arc_es.client import ArcError

    async def main() -> T:
        async with server.client(role) as client:
            return await question(client)

    try:
        return run_trio(main)
    except ArcError as error:
        raise failure_of(error) from error


def failure_of(error: ArcError) -> CommandFailure:
    """An error of the service as a user should see it, with what to do."""
    return CommandFailure(str(error), advice=_advice(error))


def _advice(error: ArcError) -> str:
    by_code = {
        "UNREACHABLE": "is `arc-es serve` running there? see --url and ARC_URL",
        "BAD_ANSWER": "does --url (ARC_URL) name an arc-es service?",
        "UNAUTHORIZED": "give a token that the service knows, with ARC_TOKEN or --token",
        "FORBIDDEN": "this token lacks the right; ask for another one and give it with ARC_TOKEN",
        "NOT_READY": "the service is still starting; try again soon",
        "COMMAND_TARGET_AMBIGUOUS": "name one with --target",
    }
    return by_code.get(error.code, "")


def parse_target(text: str) -> Target:
    """A target from `ID` or `ID:TYPE`; the type is `daemon` if not given.

    Raises:
        CommandFailure: the type is unknown, or the id empty.
    """
    name, _, kind = text.partition(":")
    kind = kind or "daemon"
    if not name or kind not in get_args(ResourceType):
        raise CommandFailure(
            f"{text!r} is not a target",
            advice="write ID or ID:TYPE, with the type worker, container or daemon",
            exit_status=EXIT_USAGE,
        )
    return Target(name, cast("ResourceType", kind))


def parse_seconds(text: str) -> int:
    """Whole seconds, 1 or more, from a duration such as `90s`, `15m`, `2h`, `1d`.

    Raises:
        CommandFailure: it is none.
    """
    match = _DURATION.fullmatch(text)
    seconds = round(float(match[1]) * _UNIT_SECONDS[match[2]]) if match else 0
    if seconds < 1:
        raise CommandFailure(
            f"{text!r} is not a duration", advice="write it as 90s, 15m, 12h or 30d", exit_status=EXIT_USAGE
        )
    return seconds


def parse_deadline(text: str, now: datetime) -> datetime:
    """A moment from an RFC 3339 timestamp with zone, or from a duration such as `90s`, `15m`, `2h`, `1d`.

    Raises:
        CommandFailure: it is neither, or it has passed.
    """
    moment: datetime | None = None
    with suppress(ValueError, OverflowError):
        match = _DURATION.fullmatch(text)
        seconds = float(match[1]) * _UNIT_SECONDS[match[2]] if match else 0.0
        moment = now + timedelta(seconds=seconds) if match else datetime.fromisoformat(text)
        moment = moment.astimezone(UTC) if moment.tzinfo else None
    if moment is None:
        raise CommandFailure(
            f"{text!r} is not a deadline",
            advice="write a duration such as 15m, or a time with zone such as 2026-03-01T10:05:00Z",
            exit_status=EXIT_USAGE,
        )
    if moment <= now:
        raise CommandFailure(f"the deadline {text} has passed", exit_status=EXIT_USAGE)
    return moment
