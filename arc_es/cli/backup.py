"""`arc-es backup` and `arc-es restore`: a copy of everything while the service runs, and a service from a copy."""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from arc_es.cli.options import EXIT_USAGE, CommandFailure, run_trio

if TYPE_CHECKING:  # slow to import
    from arc_es.config import Config
    from arc_es.journal.backup import Manifest
    from arc_es.nats_bridge import Bridge

_CONNECT_SECONDS_MAX: Final = 10.0
_MIB: Final = 1024**2


def backup(
    directory: Path, /, *, data_dir: Path | None = None, nats_url: str | None = None, config: Path | None = None
) -> int:
    """Copy the journal, the bodies and the keys into a new directory, while the service runs or not.

    Give it the options and the environment of arc-es serve. The directory appears when it is complete. It holds
    everybody's data and the keys: it is made for its owner only, keep it so.

    For example:

        arc-es backup /backup/arc-$(date +%F) --data-dir /var/lib/arc

    Args:
        directory: Where to put it; must not exist.
        data_dir: As for arc-es serve.
        nats_url: As for arc-es serve.
        config: As for arc-es serve.
    """
    settings = _settings(data_dir, nats_url, config)
    manifest = _run(_backup, directory, settings)
    print(f"backed up to {directory}: {_summary(manifest)}")
    return 0


def restore(directory: Path, /, *, data_dir: Path, nats_url: str | None = None, replicas: int = 1) -> int:
    """Make a data directory from a backup. Nothing of it is started.

    For example:

        arc-es restore /backup/arc-2026-11-21 --data-dir /var/lib/arc-restored

    Args:
        directory: What arc-es backup made.
        data_dir: Folder to restore into; must be empty or missing.
        nats_url: NATS server to restore the streams into, which it must not have; without it the streams go into the
            data directory, too.
        replicas: Copies of each stream, 1 or 3; 3 with --nats-url.
    """
    if replicas not in (1, 3) or (replicas > 1 and nats_url is None):
        raise CommandFailure("--replicas is 1, or 3 with --nats-url", exit_status=EXIT_USAGE)
    if data_dir.exists() and (not data_dir.is_dir() or any(data_dir.iterdir())):
        raise CommandFailure(f"{data_dir} is not empty", advice="restore into a new directory")
    manifest = _run(_restore, directory, data_dir, nats_url, replicas)
    print(f"restored from {manifest.made_at}: {_summary(manifest)}")
    print(f"now start it: arc-es serve --data-dir {data_dir}" + (" --nats-url …" if nats_url else ""))
    print("never beside the original: both would hand out the same commands")
    return 0


def _settings(data_dir: Path | None, nats_url: str | None, toml: Path | None) -> Config:
    from arc_es.config import ConfigError, load

    try:
        return load({"data_dir": data_dir, "nats_url": nats_url}, toml=toml)
    except ConfigError as error:
        raise CommandFailure(str(error), exit_status=EXIT_USAGE) from error


def _summary(manifest: Manifest) -> str:
    return (
        f"the journal up to position {manifest.events_end}, {len(manifest.parts)} parts, "
        f"{manifest.size_bytes / _MIB:.1f} MiB"
    )


def _run(main: object, *arguments: object) -> Manifest:
    """Run one of the two, with every expected failure as one line."""
    from arc_es.journal.backup import BackupError
    from arc_es.journal.server import ServerError
    from arc_es.journal.snapshot import SnapshotError
    from arc_es.ports import JournalError

    failures: list[BaseException] = []
    try:
        manifest: Manifest = run_trio(main, *arguments)  # type: ignore[arg-type]
    except* (BackupError, SnapshotError, ServerError, JournalError, OSError) as group:
        failures.append(group)
    finally:
        _progress_end()
    for failure in failures:
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]  # noqa: PLW2901 - the first leaf says enough
        raise CommandFailure(str(failure)) from failure
    return manifest


async def _backup(directory: Path, settings: Config) -> Manifest:
    from arc_es.journal.backup import make_backup

    async with connected(settings.data_dir, settings.nats_url) as bridge:
        return await make_backup(bridge, directory, settings.data_dir, _progress)


async def _restore(directory: Path, data_dir: Path, nats_url: str | None, replicas: int) -> Manifest:
    import trio

    from arc_es.journal.backup import read_backup, restore_keys, restore_streams

    manifest = await trio.to_thread.run_sync(read_backup, directory, _progress)
    with _whole_or_empty(data_dir):
        async with connected(data_dir, nats_url, new=True) as bridge:
            await restore_streams(bridge, directory, manifest, _progress, replicas=replicas)
        restore_keys(directory, manifest, data_dir)
    return manifest


@contextmanager
def _whole_or_empty(data_dir: Path) -> Iterator[None]:
    """A directory that was empty is so again if the body fails."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for path in data_dir.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        raise


@asynccontextmanager
async def connected(data_dir: Path, nats_url: str | None, *, new: bool = False) -> AsyncIterator[Bridge]:
    """A bridge to the NATS server that was named, to the one of the running service, or to one of our own."""
    import trio

    from arc_es.journal.data_lock import lock_holder
    from arc_es.journal.server import run_server
    from arc_es.journal.server_files import is_data_dir, recorded_access
    from arc_es.nats_access import Access
    from arc_es.nats_bridge import open_bridge

    if nats_url is not None or (not new and lock_holder(data_dir) is not None):
        access = Access([nats_url]) if nats_url is not None else recorded_access(data_dir)
        if access is None:
            raise CommandFailure(f"{data_dir} is in use, and nats.env does not say where", advice="try again soon")
        async with open_bridge(access) as bridge:
            with trio.move_on_after(_CONNECT_SECONDS_MAX):
                await bridge.wait_available()
            yield bridge
        return
    if not new and not is_data_dir(data_dir):
        raise CommandFailure(f"{data_dir} is no data directory", advice="see --data-dir")
    async with run_server(data_dir, unsynced=new) as server:
        access = Access([server.endpoint.url], server.endpoint.user, server.endpoint.password)
        async with open_bridge(access) as bridge:
            await bridge.wait_available()
            yield bridge


def _progress(part: str, done_bytes: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{part}: {done_bytes / _MIB:.1f} MiB\033[K", end="", file=sys.stderr, flush=True)


def _progress_end() -> None:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
