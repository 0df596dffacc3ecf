"""`Caller`: ask that commands run elsewhere, and get their results."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import anyio
from anyio.abc import TaskGroup
from httpx2 import AsyncBaseTransport

from arc_es import __version__
from arc_es.client.batching import Creates
from arc_es.client.bodies import INLINE_BYTES_MAX, size_of
from arc_es.client.client import ArcClient, create_request
from arc_es.client.errors import ArcError, BadAnswer, NoResultYet, UrlRefused, ending_of
from arc_es.client.files import FileBody, Sink
from arc_es.client.lease import JsonObject
from arc_es.client.retry import Backoff, retrying
from arc_es.client.values import decode, encode

TERMINAL: Final = ("SUCCEEDED", "FAILED", "EXPIRED")
WAIT_SECONDS_MAX: Final = 60
CALL_SECONDS: Final = 60.0
"""How long `call` waits if nothing else is said."""
WAITERS_MAX: Final = 64
"""Long-polls at a time; more calls take turns, so that creates always find a connection."""
_CROWDED_SECONDS: Final = 1
_QUICK_SECONDS: Final = 1.0
"""An answer that came sooner than this was not waited for: the service does not know waitSeconds."""
_PAUSE: Final = Backoff(initial_seconds=0.5, factor=1.5, max_seconds=5.0)

T = TypeVar("T")
OnTrouble = Callable[[ArcError], None]


class Caller:
    """Creates commands and waits for their results; an async context manager, for trio and asyncio.

    Trouble on the way (no connection, 429, 5xx) is waited out with growing, random rests; the idempotency key that
    every create has makes that safe. Creates that come faster than the service answers leave in batches.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        on_trouble: OnTrouble | None = None,
        user_agent: str = f"arc-es-caller/{__version__}",
        transport: AsyncBaseTransport | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: of the service.
            token: bearer token with the scope sender.
            on_trouble: told of each error that is about to be retried.
            user_agent: recorded in the history of every command.
            transport: instead of the network; see `arc_es.testing`.

        Raises:
            ValueError: the URL is none, or the token cannot be sent.
        """
        self._client = ArcClient(url, token, user_agent=user_agent, transport=transport)
        self._on_trouble = on_trouble or (lambda _: None)
        self._closing = AsyncExitStack()
        self._waiters: anyio.CapacityLimiter | None = None
        self._creates: Creates | None = None

    async def __aenter__(self) -> Self:
        """Ready to use."""
        await self._closing.enter_async_context(self._client)
        group = await anyio.create_task_group().__aenter__()
        self._closing.push_async_exit(partial(_end, group))
        self._waiters = anyio.CapacityLimiter(WAITERS_MAX)
        self._creates = Creates(self._client)
        self._creates.begin(group)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        await self._closing.__aexit__(kind, error, trace)  # noqa: ASYNC102 - closing does not wait for the network

    async def call(
        self,
        deployment: str,
        command: str,
        params: Any = None,
        *,
        target: str | None = None,
        timeout: float | None = CALL_SECONDS,  # noqa: ASYNC109 - the command lives on: the error must tell its id
        returns: Any = Any,
        key: str | None = None,
        **options: Any,
    ) -> Any:
        """Run a command somewhere else and return its result.

        Args:
            deployment: whose environment it runs in.
            command: its name.
            params: anything that can be JSON: plain values, dataclasses, pydantic models, msgspec structs; bytes and
                `FileBody` are sent as they are. Large ones are uploaded.
            target: which resource of the deployment; needed when there are several.
            timeout: seconds to wait for the result, None for ever.
            returns: the type that the result is read as; `bytes` for what came.
            key: idempotency key; a second call with the same one and equal params joins the first. Default: random.
            options: see `create`.

        Raises:
            NoResultYet: the time is up; the command lives on.
            CommandFailed, CommandExpired: it ended without a result.
            Unfit: the result does not fit `returns`.
            ArcError: the service refuses.
        """
        key = key if key is not None else str(uuid.uuid4())
        made: Command | None = None
        with anyio.move_on_after(timeout):
            made = await self.create(deployment, command, params, target=target, key=key, **options)
            return await made.result(returns, timeout=None)
        raise NoResultYet(made.id if made else None, key, timeout or 0.0)

    async def create(  # noqa: PLR0913 - one parameter a field of the request
        self,
        deployment: str,
        command: str,
        params: Any = None,
        *,
        target: str | None = None,
        key: str | None = None,
        deadline: datetime | None = None,
        priority: int | None = None,
        not_before: datetime | None = None,
        max_attempts: int | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Command:
        """Create a command and do not wait for its result; repeated until the service has it.

        Args:
            deployment: see `call`.
            command: see `call`.
            params: see `call`.
            target: see `call`.
            key: see `call`.
            deadline: when it expires if nobody has answered.
            priority: -100 to 100; higher ones are delivered first.
            not_before: nobody gets it earlier.
            max_attempts: how often it is delivered at most.
            labels: for finding it.

        Raises:
            ArcError: the service refuses.
        """
        body = params if isinstance(params, FileBody) else encode({} if params is None else params)
        request = create_request(
            deployment,
            command,
            body,
            target_id=target,
            deadline=deadline,
            idempotency_key=key if key is not None else str(uuid.uuid4()),
            priority=priority,
            notBefore=None if not_before is None else not_before.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            maxAttempts=max_attempts,
            labels=None if labels is None else dict(labels),
        )
        created = await self._retried(lambda: self._created(request, body))
        return Command(self, created["commandId"], created)

    async def _created(self, request: JsonObject, body: bytes | FileBody) -> JsonObject:
        if self._creates is None:
            raise RuntimeError("use it as `async with Caller(…) as arc:`")
        if isinstance(body, FileBody) or size_of(body) > INLINE_BYTES_MAX:
            return await self._client.send_create(request, body)
        return await self._creates.create(request)

    def command(self, command_id: str) -> Command:
        """A command that was created earlier, or by somebody else."""
        return Command(self, command_id, {})

    async def _retried(self, operation: Callable[[], Awaitable[T]]) -> T:
        return await retrying(operation, on_retry=lambda error, _: self._on_trouble(error))

    async def _status(self, command_id: str, *, wait: bool) -> JsonObject:
        """Its status, at once or when it has ended, waited for about as long as the service allows."""
        assert self._waiters is not None, "use it as `async with Caller(…) as arc:`"
        status: Callable[..., Awaitable[JsonObject]] = partial(self._client.status, command_id)
        if not wait:
            return await self._retried(status)
        async with self._waiters:
            crowded = self._waiters.statistics().tasks_waiting > 0
            seconds = _CROWDED_SECONDS if crowded else WAIT_SECONDS_MAX
            return await self._retried(partial(status, wait_seconds=seconds))


async def _end(
    group: TaskGroup, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> None:
    """End the tasks of a caller. An error of the block above passes by them, or it would come out in a group."""
    group.cancel_scope.cancel()
    if isinstance(error, Exception):
        kind = error = trace = None
    await group.__aexit__(kind, error, trace)


class Command:
    """A command that was created. id: its id; status: the last one known."""

    def __init__(self, caller: Caller, command_id: str, status: JsonObject) -> None:
        self._caller = caller
        self.id = command_id
        self.status = status

    @property
    def state(self) -> str:
        """`PENDING`, `DISPATCHED`, `SUCCEEDED` and so on, as of the last status; `unknown` before the first."""
        return str(self.status.get("state", "unknown"))

    async def refresh(self) -> JsonObject:
        """Ask for the status now. Raises ArcError."""
        self.status = await self._caller._status(self.id, wait=False)  # noqa: SLF001 - its other half
        return self.status

    async def ended(self) -> JsonObject:
        """Wait until the command has ended, however; its status. Raises ArcError."""
        early = 0
        while self.state not in TERMINAL or "attempt" not in self.status:
            asked_at = anyio.current_time()
            self.status = await self._caller._status(self.id, wait=True)  # noqa: SLF001
            if self.state not in TERMINAL and anyio.current_time() - asked_at < _QUICK_SECONDS:
                early += 1
                await anyio.sleep(_PAUSE.delay_seconds(early))
        return self.status

    async def result(self, returns: Any = Any, *, timeout: float | None = CALL_SECONDS) -> Any:  # noqa: ASYNC109
        """Wait for the result. Arguments and errors are those of `Caller.call`."""
        with anyio.move_on_after(timeout):
            return decode(await self._body(), returns, "result")
        raise NoResultYet(self.id, None, timeout or 0.0)

    async def _body(self) -> bytes:
        await self.succeeded()
        try:
            return await self._caller._retried(self._download)  # noqa: SLF001
        except UrlRefused:  # it lives for an hour, which retries can outlast; the next status brings a fresh one
            await self.refresh()
            return await self._caller._retried(self._download)  # noqa: SLF001

    async def _download(self) -> bytes:
        return await self._caller._client.body(self._spec)  # noqa: SLF001

    async def succeeded(self) -> JsonObject:
        """Wait for success; the status. Raises CommandFailed, CommandExpired, ArcError."""
        status = await self.ended()
        if self.state != "SUCCEEDED":
            raise ending_of(self.id, self.state, status.get("response"))
        return status

    async def save(self, sink: Sink) -> None:
        """Wait for the result and write it to a sink, a piece at a time. Raises like `result`, and OSError."""
        await self.succeeded()

        async def move() -> None:
            await self._caller._client.save(self._spec, sink)  # noqa: SLF001

        try:
            await self._caller._retried(move)  # noqa: SLF001
        except UrlRefused:
            await self.refresh()
            await self._caller._retried(move)  # noqa: SLF001

    @property
    def _spec(self) -> JsonObject:
        try:
            spec: JsonObject = self.status["response"]["response"]
        except (KeyError, TypeError) as error:
            raise BadAnswer("A succeeded command comes without its result", status=200) from error
        return spec

    @property
    def result_size(self) -> int | None:
        """Bytes of a stored result; None if it is inline, or nobody said."""
        size: int | None = self._spec.get("size")
        return size

    async def cancel(self, reason: str | None = None) -> JsonObject:
        """Ask that nobody work on it any more; its status, FAILED unless it had ended before. Raises ArcError."""
        self.status = await self._caller._retried(  # noqa: SLF001
            lambda: self._caller._client.cancel(self.id, reason)  # noqa: SLF001
        )
        return self.status
