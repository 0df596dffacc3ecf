"""Handlers: functions that do commands, and how they are called."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, get_type_hints

import anyio
import anyio.from_thread
from anyio.lowlevel import EventLoopToken, current_token

from arc_es.client.context import Context, Running, SyncContext
from arc_es.client.notes import Notes

_PARAMETERS_MAX = 2


@dataclass(frozen=True, slots=True)
class Handler:
    """A function for one command. timeout_seconds: None for no limit but the deadline.

    params_type: what its first parameter wants: bytes, BinaryIO for a file, or anything that JSON can be built into.
    """

    function: Callable[..., Any]
    params_type: Any
    parameters: int
    timeout_seconds: float | None

    @property
    def in_thread(self) -> bool:
        """A plain function: it would stop everything else in the event loop."""
        return not inspect.iscoroutinefunction(self.function)

    @property
    def wants_file(self) -> bool:
        """Its params are written to a temporary file, and never whole in memory."""
        return self.params_type is BinaryIO


def handler_of(function: Callable[..., Any], timeout_seconds: float | None) -> Handler:
    """A handler from a function `(params, ctx)`, `(params)` or `()`.

    Raises:
        TypeError: it takes something else, or its annotations cannot be read.
    """
    parameters = list(inspect.signature(function).parameters.values())
    name = getattr(function, "__qualname__", repr(function))
    if len(parameters) > _PARAMETERS_MAX or any(one.kind is one.KEYWORD_ONLY for one in parameters):
        raise TypeError(f"{name} must take (params, ctx), (params) or nothing")
    try:
        hints = get_type_hints(function)
    except NameError as error:
        raise TypeError(f"the annotations of {name} name what its module does not know: {error}") from error
    wanted = hints.get(parameters[0].name, Any) if parameters else bytes
    return Handler(function, wanted, len(parameters), timeout_seconds)


async def call(handler: Handler, params: Any, running: Running, notes: Notes, on_thread_end: Callable[[], None]) -> Any:
    """Run a handler; its result or exception. A cancelled plain one goes on in its thread until `on_thread_end`."""
    if not handler.in_thread:
        try:
            return await handler.function(*(params, Context(running, notes))[: handler.parameters])
        finally:
            on_thread_end()
    token = current_token()
    context = SyncContext(running, notes, token)
    return await _in_thread(handler, (params, context)[: handler.parameters], token, on_thread_end)


async def _in_thread(
    handler: Handler, arguments: tuple[Any, ...], token: EventLoopToken, on_thread_end: Callable[[], None]
) -> Any:
    """In a daemon thread: one that hangs must not keep the process from ending."""
    ended = anyio.Event()
    outcome: list[Any] = []

    def tell() -> None:
        on_thread_end()
        ended.set()

    def body() -> None:
        try:
            outcome[:] = [handler.function(*arguments), None]
        except BaseException as error:  # noqa: BLE001, ASYNC103 - raised again in the loop
            outcome[:] = [None, error]
        with suppress(anyio.RunFinishedError):
            anyio.from_thread.run_sync(tell, token=token)

    threading.Thread(target=body, name=f"arc-es handler {handler.function.__name__}", daemon=True).start()
    await ended.wait()
    result, error = outcome
    if error is not None:
        raise error
    return result
