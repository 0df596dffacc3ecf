"""`arc-es snapshot`: take, list and check snapshots of all projections."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cyclopts import App

from arc_es.cli.offline import Attached, DataDir, NatsUrl, Settings, journal_of, run, settings_of
from arc_es.cli.options import EXIT_FAILED, Json
from arc_es.cli.output import complain, print_json, print_table
from arc_es.cli.progress import bar

if TYPE_CHECKING:  # slow to import
    from arc_es.config import Config
    from arc_es.snapshots.file import Header

_COLUMNS: Final = ("file", "position", "at", "events", "commands", "bytes", "usable")

snapshot: Final = App(
    name="snapshot",
    help="Take, list and check snapshots. Without one a start replays the whole journal.",
    help_epilogue="",
)


@snapshot.command(help_epilogue="")
def take(
    *, data_dir: DataDir = None, nats_url: NatsUrl = None, config: Settings = None, attached: Attached = False
) -> int:
    """Write a snapshot of the present, while the service runs or not. The service does the same now and then.

    For example:

        arc-es snapshot take --data-dir /var/lib/arc

    Args:
        data_dir: As for arc-es serve.
        nats_url: As for arc-es serve.
        config: As for arc-es serve.
        attached: For the service.
    """
    header = run(_take, settings_of(data_dir, nats_url, config), attached, attached=attached)
    if header is None:
        print("nothing has happened since the newest snapshot")
    else:
        print(f"snapshot of position {header.position:,}: {header.commands:,} commands, {header.events:,} events")
    return 0


async def _take(settings: Config, attached: bool) -> Header | None:  # noqa: FBT001 - run by position
    from arc_es.bootstrap import empty_models
    from arc_es.snapshots import fold
    from arc_es.snapshots.folder import FOLDER

    async with journal_of(settings, attached=attached) as journal:
        make = partial(empty_models, settings.finished_in_memory_max)
        header = await fold.take(journal, settings.data_dir / FOLDER, make, bar("folding"))
    if settings.nats_url is not None and settings.snapshot_shared:
        await _share(settings)
    return header


async def _share(settings: Config) -> None:
    """Offer the newest snapshot to other nodes. What goes wrong is told, and no reason to fail."""
    from arc_es.sharing import TROUBLES, share
    from arc_es.snapshots.folder import FOLDER, paths
    from arc_es.storage.shelf import open_shelf

    found = paths(settings.data_dir / FOLDER)
    if not found:
        return
    try:
        async with open_shelf(settings) as shelf:
            offer = await share(shelf, found[0], settings.data_dir / "index")
    except* TROUBLES as group:
        why = group.exceptions[0]
        while isinstance(why, BaseExceptionGroup):
            why = why.exceptions[0]
        complain(f"the snapshot is not shared: {why}")
    else:
        if offer is not None:
            print(f"shared the snapshot of position {offer.position:,}")


@snapshot.command(name="list", help_epilogue="")
def list_(*, data_dir: DataDir = None, config: Settings = None, json: Json = False) -> int:
    """List the snapshots, newest first, and say of each whether a start could use it.

    Whether the journal still is the one that it was taken of, only arc-es snapshot check says.

    For example:

        arc-es snapshot list --data-dir /var/lib/arc

    Args:
        data_dir: As for arc-es serve.
        config: As for arc-es serve.
        json: Print JSON.
    """
    from arc_es.snapshots.folder import FOLDER, paths

    found = [_entry(path) for path in paths(settings_of(data_dir, None, config).data_dir / FOLDER)]
    if json:
        print_json({"snapshots": found})
    else:
        rows = ([str(entry.get(name, "")) for name in _COLUMNS] for entry in found)
        print_table(_COLUMNS, rows, empty="There is no snapshot.", wrap=("usable",))
    return 0


def _entry(path: Path) -> dict[str, Any]:
    from arc_es.snapshots import file
    from arc_es.wire import format_time

    entry: dict[str, Any] = {"file": path.name, "bytes": path.stat().st_size, "usable": "yes"}
    try:
        header = file.check(path)
        entry |= {"position": header.position, "at": format_time(header.at)}
        entry |= {"events": header.events, "commands": header.commands}
    except file.SnapshotUnusable as error:
        entry["usable"] = f"no: {error}"
    return entry


@snapshot.command(help_epilogue="")
def check(*, data_dir: DataDir = None, nats_url: NatsUrl = None, config: Settings = None) -> int:
    """See whether a start could use the snapshots: whole, of this version, of this journal. Exit status 1 if not all.

    For example:

        arc-es snapshot check --data-dir /var/lib/arc

    Args:
        data_dir: As for arc-es serve.
        nats_url: As for arc-es serve.
        config: As for arc-es serve.
    """
    troubles = run(_check, settings_of(data_dir, nats_url, config))
    for name, trouble in troubles.items():
        print(f"{name}: {trouble or 'ok'}", file=sys.stderr if trouble else sys.stdout)
    return EXIT_FAILED if any(troubles.values()) else 0


async def _check(settings: Config) -> dict[str, str | None]:
    from arc_es.snapshots import file
    from arc_es.snapshots.folder import FOLDER, mismatch, paths

    troubles: dict[str, str | None] = {}
    async with journal_of(settings) as journal:
        for path in paths(settings.data_dir / FOLDER):
            try:
                troubles[path.name] = await mismatch(journal, file.check(path))
            except file.SnapshotUnusable as error:
                troubles[path.name] = str(error)
    return troubles
