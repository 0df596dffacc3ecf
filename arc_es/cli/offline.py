"""Working on the journal itself, whether the service runs or not: what `replay` and `snapshot` share."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from cyclopts import Group, Parameter

from arc_es.cli.backup import connected
from arc_es.cli.options import EXIT_USAGE, CommandFailure, run_trio
from arc_es.cli.progress import progress_end

if TYPE_CHECKING:  # slow to import
    from arc_es.archive.journal import ArchivedJournal
    from arc_es.config import Config
    from arc_es.nats_bridge import Bridge

T = TypeVar("T")

_GROUP: Final = Group("Where the journal is", sort_key=90)
DataDir = Annotated[Path | None, Parameter(help="As for arc-es serve.", group=_GROUP)]
NatsUrl = Annotated[str | None, Parameter(help="As for arc-es serve.", group=_GROUP)]
Settings = Annotated[Path | None, Parameter(help="As for arc-es serve.", group=_GROUP)]
Attached = Annotated[bool, Parameter(help="End when stdin ends.", show=False, negative="")]


def settings_of(data_dir: Path | None, nats_url: str | None, config: Path | None) -> Config:
    """The settings of a service. Raises CommandFailure."""
    from arc_es.config import ConfigError, load

    try:
        return load({"data_dir": data_dir, "nats_url": nats_url}, toml=config)
    except ConfigError as error:
        raise CommandFailure(str(error), exit_status=EXIT_USAGE) from error


@asynccontextmanager
async def journal_of(settings: Config, *, attached: bool = False) -> AsyncIterator[ArchivedJournal]:
    """The journal with its archive, on the server of the running service or on one of our own. It is only read.

    attached: never on one of our own. When the service has gone, the next one wants the data directory for itself.
    """
    from arc_es.archive.journal import with_archive
    from arc_es.journal.jetstream import open_journal

    bridge_to = _beside(settings) if attached else connected(settings.data_dir, settings.nats_url)
    async with (
        bridge_to as bridge,
        open_journal(bridge) as stream,
        with_archive(stream, settings.data_dir) as journal,
    ):
        yield journal


@asynccontextmanager
async def _beside(settings: Config) -> AsyncIterator[Bridge]:
    from arc_es.journal.server_files import recorded_access
    from arc_es.nats_access import Access
    from arc_es.nats_bridge import open_bridge

    access = Access([settings.nats_url]) if settings.nats_url is not None else recorded_access(settings.data_dir)
    if access is None:
        raise CommandFailure(f"no service runs on {settings.data_dir}")
    async with open_bridge(access) as bridge:
        await bridge.wait_available()
        yield bridge


def run(main: Callable[..., Coroutine[Any, Any, T]], *arguments: object, attached: bool = False) -> T:
    """Run without garbage collection, with every expected failure as one line; attached: only as long as stdin."""
    from arc_es.journal.server import ServerError
    from arc_es.ports import JournalError

    gc.disable()
    try:
        return run_trio(_attached, main, arguments) if attached else run_trio(main, *arguments)
    except* CommandFailure as group:
        failure: BaseException = group
    except* (JournalError, ServerError, OSError) as group:
        failure = group
    finally:
        progress_end()
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    if isinstance(failure, CommandFailure):
        raise failure
    raise CommandFailure(str(failure)) from failure


async def _attached(main: Callable[..., Coroutine[Any, Any, T]], arguments: tuple[object, ...]) -> T:
    import trio

    results: list[T] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_until_stdin_ends, nursery.cancel_scope)
        results.append(await main(*arguments))
        nursery.cancel_scope.cancel()
    if not results:
        raise CommandFailure("the service that asked for this has gone")
    return results[0]


async def _until_stdin_ends(everything: Any) -> None:
    import os

    import trio

    async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
        while await stdin.receive_some(1024):
            pass
    everything.cancel()
