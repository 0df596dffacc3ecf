"""One leased command in a worker: its budget, its run, and the answer that comes of it.

All times are of the event loop's own clock. What the service says is turned into spans by the Date of its answer, so a
wrong clock on this machine does no harm; and a lease never counts for longer than was asked for.
"""

from __future__ import annotations

import base64
import logging
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, Final, Literal, TypeAlias, cast

import anyio

from arc_es.client.client import ArcClient
from arc_es.client.context import CommandError, GiveBack
from arc_es.client.errors import ArcError
from arc_es.client.files import FileBody, Sink
from arc_es.client.handlers import Handler, call
from arc_es.client.lease import JsonObject, Lease
from arc_es.client.notes import Notes
from arc_es.client.retry import retrying
from arc_es.client.values import Unfit, decode, encode
from arc_es.client.watching import Watch

MARGIN_SECONDS_MAX: Final = 5.0
"""Left of a lease when a handler is stopped: to end it and to answer (`arc.v1` 5.3). Less of short leases."""
UPLOAD_SECONDS_MAX: Final = 300.0
MESSAGE_CHARS_MAX: Final = 10_000
HELD_BYTES_MAX: Final = 1_000_000
"""Params for a handler that wants a file stay in memory up to this size."""

Stop: TypeAlias = Literal["cancelled", "lost", "drained"]
"""Why a run is stopped without an answer: nobody wants it; somebody else may have it; we are leaving."""

log = logging.getLogger("arc_es.client")


class Job:
    """A run of a handler for one lease, with the lease's end as far as we know it."""

    def __init__(
        self,
        lease: Lease,
        handler: Handler | None,
        *,
        lease_seconds: int,
        received_at: float,
        on_life: Callable[[], None],
    ) -> None:
        """on_life: told of the first sign of life since the last renewal."""
        server_seconds = (lease.expires_at - lease.server_time).total_seconds()
        self.lease = lease
        self.handler = handler
        self.started_at = received_at
        self.until_answered = ExitStack()
        self.stop: Stop | None = None
        self.lease_seconds = lease_seconds
        self.lease_ends_at = received_at + min(server_seconds, lease_seconds)
        self.renewable = True
        self.handler_ended = False
        self._margin_seconds = margin_seconds(lease_seconds)
        self._renewed_at = received_at
        self._lived_at = received_at
        self._on_life = on_life
        self._own_end_at = self._own_end(received_at)
        self._scope = anyio.CancelScope(deadline=self.budget_ends_at)
        self._whole = anyio.CancelScope()

    def _own_end(self, received_at: float) -> float:
        """When the handler must be done, however long the lease is."""
        ends_at = math.inf
        if self.handler is not None and self.handler.timeout_seconds is not None:
            ends_at = received_at + self.handler.timeout_seconds
        if self.lease.deadline is not None:
            ends_at = min(ends_at, received_at + (self.lease.deadline - self.lease.server_time).total_seconds())
        return ends_at

    # --- budget and lease; called by the agent loop

    @property
    def budget_ends_at(self) -> float:
        """When the handler is stopped if nothing changes."""
        return min(self._own_end_at, self.lease_ends_at - self._margin_seconds)

    @property
    def renew_at(self) -> float:
        """When the lease should be renewed; never, if the run will be over, or does not show that it lives."""
        long_enough = self._own_end_at <= self.lease_ends_at - self._margin_seconds
        if not self.renewable or self.stop or ((long_enough or self._silent) and not self.handler_ended):
            return math.inf
        return self.lease_ends_at - self.lease_seconds * 2 / 3

    @property
    def _silent(self) -> bool:
        """Whether it is a thread that has not said that it lives since the last renewal."""
        return self.handler is not None and self.handler.in_thread and self._lived_at <= self._renewed_at

    def renewed(self, asked_at: float) -> None:
        """The lease holds for its whole length again, counted from when we asked."""
        self._renewed_at = anyio.current_time()
        self.lease_ends_at = max(self.lease_ends_at, asked_at + self.lease_seconds)
        self._scope.deadline = self.budget_ends_at

    def end(self, stop: Stop) -> None:
        """Stop the run; no answer will come of it."""
        self.stop = self.stop or stop
        self._whole.cancel()

    # --- called by the handler through its context, in the event loop

    def remaining_seconds(self) -> float:
        """Seconds until the handler is stopped."""
        return max(0.0, self.budget_ends_at - anyio.current_time())

    def alive(self) -> bool:
        """Note a sign of life; whether the result is still wanted."""
        was_silent, self._lived_at = self._silent, anyio.current_time()
        if was_silent:
            self._on_life()
        return not (self._scope.cancel_called or self._whole.cancel_called)

    # --- the run

    async def run(
        self, client: ArcClient, notes: Notes, watch: Watch, on_end: Callable[[], None]
    ) -> JsonObject | GiveBack | None:
        """The answer; None if there is none because the run was stopped. on_end: the handler has let go."""
        with self._whole:
            result = await self._handled(client, notes, watch, on_end)
            self.handler_ended = True
            if isinstance(result, _Result):
                return await self._success(client, result.body, watch)
            if self.stop is None:
                return result
        return None

    async def _handled(
        self, client: ArcClient, notes: Notes, watch: Watch, on_end: Callable[[], None]
    ) -> JsonObject | GiveBack | _Result | None:
        """What came of the handler within its budget: a result, an answer, or None if the lease was lost."""
        ended = _Once(on_end)
        with self._scope:
            try:
                return await self._tried(client, notes, watch, ended)
            finally:
                if not ended.handed_over:
                    ended()
        now = anyio.current_time()
        not_renewed = self.renewable and not self._silent and now < self._own_end_at
        if not_renewed or now >= self.lease_ends_at:  # out of reach, or this process did not run: others may have it
            self.stop = "lost"
            return None
        limit = "showed no sign of life" if self._silent else "did not end"
        return error_answer("HANDLER_TIMEOUT", f"The handler {limit} in time")

    async def _tried(
        self, client: ArcClient, notes: Notes, watch: Watch, ended: _Once
    ) -> JsonObject | GiveBack | _Result:
        handler, lease = self.handler, self.lease
        if handler is None:
            return error_answer("UNKNOWN_COMMAND", f"This agent does not know the command {lease.command}")
        try:
            params = await self._params(client, handler, watch)
        except Unfit as error:
            return error_answer("INVALID_ENVELOPE", str(error))
        except ArcError as error:
            inline = lease.params.get("mode") == "inline"
            return error_answer("INVALID_ENVELOPE" if inline else "STORAGE_OPERATION_FAILED", str(error))
        try:
            ended.handed_over = True
            result = await call(handler, params, self, notes, ended)
            return _Result(result if isinstance(result, FileBody) else encode(result))
        except Exception as error:  # noqa: BLE001 - a handler may raise anything, and its command must be answered
            return self._failed(_alone(error))

    def _failed(self, error: Exception) -> JsonObject | GiveBack:
        """What an exception of the handler means."""
        if isinstance(error, GiveBack):
            return error
        if isinstance(error, CommandError):
            return error_answer(error.code, error.message, error.details)
        log.warning("%s %s failed", self.lease.command, self.lease.command_id, exc_info=error)
        return error_answer("HANDLER_ERROR", f"{type(error).__name__}: {error}")

    async def _params(self, client: ArcClient, handler: Handler, watch: Watch) -> Any:
        spec = self.lease.params
        if not handler.wants_file:
            return decode(await retrying(lambda: client.body(spec)), handler.params_type)
        spooled = SpooledTemporaryFile(max_size=HELD_BYTES_MAX)  # noqa: SIM115 - closed with the stack
        file = cast("BinaryIO", self.until_answered.enter_context(spooled))
        with watch(f"params of {self.lease.command_id}", spec.get("size")) as moved:
            sink = Sink(file, moved)
            await retrying(lambda: client.save(spec, sink))
        file.seek(0)
        return file

    async def _success(self, client: ArcClient, result: bytes | FileBody, watch: Watch) -> JsonObject:
        """A result as an answer: inline, or uploaded first. Meanwhile the lease is renewed."""
        size = result.size if isinstance(result, FileBody) else len(result)
        if size <= self.lease.inline_bytes_max:
            raw = await result.read() if isinstance(result, FileBody) else result
            body: JsonObject = {"mode": "inline", "inlineBase64": base64.b64encode(raw).decode()}
            return {"status": "success", "response": body}
        last: list[Exception] = []
        with anyio.move_on_after(UPLOAD_SECONDS_MAX), watch(f"result of {self.lease.command_id}", size) as moved:
            if isinstance(result, FileBody):
                result.moved = moved
            try:
                request = self.lease.upload_request
                await retrying(lambda: client.put_object(request, result), on_retry=lambda error, _: last.append(error))
            except (ArcError, OSError) as error:
                return error_answer("STORAGE_OPERATION_FAILED", f"The result of {size} bytes was not taken: {error}")
            return {"status": "success", "response": {"mode": "storage", "size": size, "storagePutUsed": True}}
        why = last[-1] if last else "it took too long"
        return error_answer("STORAGE_OPERATION_FAILED", f"The result of {size} bytes was not taken: {why}")


@dataclass(frozen=True, slots=True)
class _Result:
    """What a handler returned."""

    body: bytes | FileBody


def _alone(error: Exception) -> Exception:
    """The one exception inside a group of one, which a task group in a handler makes of it."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


class _Once:
    """Called at the end of a handler; by the handler's own thread if it was handed over to one."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end: Callable[[], None] | None = on_end
        self.handed_over = False

    def __call__(self) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()


def margin_seconds(lease_seconds: int) -> float:
    """How long before the end of a lease a handler is stopped."""
    return min(MARGIN_SECONDS_MAX, lease_seconds / 4)


def error_answer(code: str, message: str, details: str | None = None) -> JsonObject:
    """An error as a CommandResponse, short enough, and without what UTF-8 cannot say."""
    told = {"code": code, "message": message} | ({} if details is None else {"details": details})
    return {"status": "error"} | {name: _sendable(text) for name, text in told.items()}


def _sendable(text: str) -> str:
    return str(text)[:MESSAGE_CHARS_MAX].encode("utf-8", "replace").decode()
