"""`arc-es call`: create a command, wait for its answer, print it."""

from __future__ import annotations

import json as json_text
import sys
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final

from cyclopts import Parameter
from cyclopts.validators import Number

from arc_es.cli.files import params_file, result_file
from arc_es.cli.options import (
    DEFAULT_SERVER,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_TIMEOUT,
    CommandFailure,
    Json,
    Server,
    failure_of,
    parse_deadline,
    run_trio,
)
from arc_es.cli.output import complain, print_json, printable
from arc_es.cli.transfers import Bars

if TYPE_CHECKING:
    import trio

    from arc_es.client import ArcError, Caller, Command
    from arc_es.client.files import Moved

_TERMINAL: Final = ("SUCCEEDED", "FAILED", "EXPIRED")
_TIMEOUT_SECONDS: Final = 60.0


@dataclass(slots=True)
class _Order:
    """What was asked, and how far it came."""

    deployment: str
    command: str
    params: BinaryIO
    target: str | None
    deadline: datetime | None
    key: str
    timeout_seconds: float
    wait: bool
    held: BytesIO | None
    """Where the result is kept until it is printed; None: it is written to `output` as it comes."""
    output: Path | None
    scope: trio.CancelScope | None = None
    made: Command | None = None
    result_bytes: int | None = None
    """Size of the result, once it is here."""
    last_error: ArcError | None = None
    doubt: bool = True
    """Whether the command may have been created although nobody told us."""

    @property
    def command_id(self) -> str | None:
        """Its id, once we know that it was created."""
        return self.made.id if self.made else None

    @property
    def state(self) -> str:
        """As of the last status."""
        return self.made.state if self.made else "unknown"

    @property
    def answer(self) -> dict[str, Any]:
        """The last status."""
        return self.made.status if self.made else {}

    @contextmanager
    def transfer(self, what: str, size: int | None) -> Iterator[Moved]:
        """Shows a transfer on a terminal. While it moves, the time is not up."""
        import trio

        with Bars().bar(what, size) as shown:

            def moved(count: int) -> None:
                shown(count)
                if self.scope is not None:
                    self.scope.deadline = max(self.scope.deadline, trio.current_time() + self.timeout_seconds)

            yield moved


def call(  # noqa: PLR0913 - one parameter an option
    deployment: str,
    command: str,
    params: Annotated[str, Parameter(allow_leading_hyphen=True)] = "{}",
    /,
    *,
    target: str | None = None,
    timeout: Annotated[float, Parameter(validator=Number(gt=0))] = _TIMEOUT_SECONDS,
    key: str | None = None,
    deadline: str | None = None,
    no_wait: Annotated[bool, Parameter(name="--no-wait", negative="")] = False,
    output: Path | None = None,
    json: Json = False,
    server: Server = DEFAULT_SERVER,
) -> int:
    """Ask that a command run, wait, print its result.

    The result goes to stdout byte for byte (indented JSON on a terminal); an error answer goes to stderr, exit
    status 1. When the time is up the command lives on: exit status 3, and its id is told. Trouble on the way is
    retried; the idempotency key makes that safe, also when you repeat the whole call with the same --key. Params above
    150 000 bytes are uploaded, large results downloaded, both as streams.

    For example:

        arc-es call demo greet '{"name":"ada"}' --target greeter

        arc-es call demo report/build @params.json --timeout 600 --deadline 15m

        ./report.sh | arc-es call demo import - --key nightly-2026-03-01 > receipt.json

        arc-es call demo video/scale @film.mp4 --timeout 3600 --output small.mp4

        id=$(arc-es call demo greet --no-wait); arc-es history $id

    Args:
        deployment: Whose environment the command runs in.
        command: Name of the command; no colon.
        params: JSON text, - for standard input, or @FILE; the last two are sent as they are.
        target: Which resource of the deployment; needed when there are several.
        timeout: Seconds to wait; the time in which a large body moves does not count.
        key: Idempotency key; a second call with the same key and params joins the first. Default: a random one.
        deadline: When the command expires if unanswered: 90s, 15m, 2h, 1d, or 2026-03-01T10:05:00Z.
        no_wait: Print the command id and leave.
        output: File for the result, replaced once all of it has come. Default: standard output.
        json: Print one JSON object: commandId, state, attempt, and result, resultBase64, resultBytes or error.
        server: Which service.
    """
    from arc_es.client import ArcError

    with params_file(params) as file:
        order = _Order(
            deployment=deployment,
            command=command,
            params=file,
            target=target,
            deadline=parse_deadline(deadline, datetime.now(UTC)) if deadline else None,
            key=key if key is not None else str(uuid.uuid4()),
            timeout_seconds=timeout,
            wait=not no_wait,
            held=BytesIO() if output is None and (json or sys.stdout.isatty()) else None,
            output=output,
        )
        try:
            run_trio(_run, order, server)
        except ArcError as error:
            raise failure_of(error) from error
        except KeyboardInterrupt:
            complain("interrupted", advice=_later(order) if order.command_id else "")
            return EXIT_INTERRUPTED
        return _report(order, as_json=json)


async def _run(order: _Order, server: Server) -> None:
    """Create and wait, for as long as was asked; `order` tells how far it came."""
    import trio

    async with server.caller("call", on_trouble=partial(_note, order)) as arc:
        with trio.move_on_after(order.timeout_seconds) as order.scope:
            order.made = await _create(order, arc)
            if order.wait:
                with _spinner(order):
                    await order.made.ended()
                if order.state == "SUCCEEDED":
                    await _fetch(order, order.made)


async def _create(order: _Order, arc: Caller) -> Command:
    from arc_es.client import FileBody
    from arc_es.client.bodies import INLINE_BYTES_MAX

    size = FileBody(order.params).size
    with order.transfer("uploading the params", size) as moved:
        return await arc.create(
            order.deployment,
            order.command,
            order.params.read() if size <= INLINE_BYTES_MAX else FileBody(order.params, moved),
            target=order.target,
            deadline=order.deadline,
            key=order.key,
        )


async def _fetch(order: _Order, made: Command) -> None:
    """Write the result where it belongs."""
    from arc_es.client import Sink

    with (
        nullcontext(order.held) if order.held is not None else result_file(order.output) as file,
        order.transfer("downloading the result", made.result_size) as moved,
    ):
        sink = Sink(file, moved)
        await made.save(sink)
    order.result_bytes = sink.size


def _note(order: _Order, error: ArcError) -> None:
    """Say once that it takes longer, not at every attempt."""
    from arc_es.client import ServerUnreachable

    if order.last_error is None:
        complain(f"{error}; trying again for up to {order.timeout_seconds:g} s")
    unsent = isinstance(error, ServerUnreachable) and not error.connected
    order.doubt = not unsent or (order.doubt and order.last_error is not None)
    order.last_error = error


def _spinner(order: _Order) -> AbstractContextManager[object]:
    if not (order.wait and sys.stderr.isatty()):
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(f"waiting for {printable(order.command)}")


def _report(order: _Order, *, as_json: bool) -> int:
    """Print what came of it; the exit status."""
    if order.command_id is None:
        if order.last_error and not order.doubt:
            raise failure_of(order.last_error)
        why = str(order.last_error or f"the service did not answer within {order.timeout_seconds:g} s")
        advice = f"it may have been created all the same: repeat with --key {order.key} to be safe"
        raise CommandFailure(why, advice=advice)
    if as_json:
        print_json(_summary(order))
    if not order.wait:
        if not as_json:
            print(order.command_id)
        return 0
    if order.state == "SUCCEEDED":
        if order.result_bytes is None:
            advice = f"fetch it with the same call and --key {order.key}"
            complain(f"command {order.command_id} succeeded, but its result did not come in time", advice=advice)
            return EXIT_TIMEOUT
        if order.held is not None and not as_json:
            _print_result(order.held.getvalue())
        return 0
    if order.state not in _TERMINAL:
        message = f"no result within {order.timeout_seconds:g} s: command {order.command_id} is {order.state}"
        complain(message, advice=_later(order))
        return EXIT_TIMEOUT
    complain(_failure(order))
    return EXIT_FAILED


def _later(order: _Order) -> str:
    return f"it lives on; look later with: arc-es history {order.command_id}"


def _failure(order: _Order) -> str:
    if order.state == "EXPIRED":
        return f"command {order.command_id} expired before an answer came"
    error = order.answer.get("response") or {}
    details = f" ({error['details']})" if error.get("details") else ""
    return printable(f"command {order.command_id} failed: {error.get('code')}: {error.get('message')}{details}")


def _summary(order: _Order) -> dict[str, Any]:
    summary: dict[str, Any] = {"commandId": order.command_id, "state": order.state}
    if "attempt" in order.answer:
        summary["attempt"] = order.answer["attempt"]
    response = order.answer.get("response") or {}
    if response.get("status") == "error":
        summary["error"] = {name: response[name] for name in ("code", "message", "details") if response.get(name)}
    elif order.state == "SUCCEEDED":
        summary |= {"resultBytes": order.result_bytes} if order.held is None else _result_fields(order.held.getvalue())
    return summary


def _result_fields(result: bytes) -> dict[str, Any]:
    import base64

    try:
        return {"result": json_text.loads(result)}
    except ValueError:
        return {"resultBase64": base64.b64encode(result).decode()}


def _print_result(result: bytes) -> None:
    """On a terminal."""
    try:
        print_json(json_text.loads(result))
    except ValueError:
        print(printable(result.decode(errors="replace")))
