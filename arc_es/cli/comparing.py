"""Comparing what two versions say about one journal, the gate before an upgrade: `arc-es replay --save`, `--diff`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from arc_es import __version__
from arc_es.cli.offline import journal_of, run
from arc_es.cli.options import EXIT_FAILED, EXIT_USAGE, CommandFailure
from arc_es.cli.output import print_json
from arc_es.cli.progress import bar

if TYPE_CHECKING:  # slow to import
    from arc_es.config import Config
    from arc_es.snapshots.moment import Moment
    from arc_es.snapshots.public import Digests

_SIDES_MAX: Final = 2


async def save_digests(settings: Config, moment: Moment, path: Path) -> Digests:
    """Write what this version says about everything, as digests."""
    from arc_es.snapshots.public import save

    found = await _digests(settings, moment)
    save(path, found)
    return found


async def _digests(settings: Config, moment: Moment) -> Digests:
    from arc_es.bootstrap import empty_models
    from arc_es.snapshots.fold import models_at
    from arc_es.snapshots.public import Digests, digests

    async with journal_of(settings) as journal:
        folded = await models_at(journal, None, partial(empty_models, None), moment, progress=bar("folding"))
        return Digests(await journal.identity(), folded.position, __version__, digests(folded.models))


def compare(settings: Config, sides: Sequence[str], config: Path | None) -> tuple[Digests, Digests]:
    """What two versions say as of one position.

    sides: OLD, or OLD and NEW; each a digest file, or the arc-es program of an installed version. Without NEW this
    program is asked. config: the settings file that such a program is to read, too.

    Raises:
        CommandFailure: a side cannot be used, or they are not about the same.
    """
    from arc_es.snapshots.moment import Moment

    if len(sides) > _SIDES_MAX:
        raise CommandFailure("--diff takes OLD, or OLD and NEW", exit_status=EXIT_USAGE)
    old, *new = sides
    before = _of_side(settings, old, config, position=None)
    if new:
        after = _of_side(settings, new[0], config, position=before.position)
    else:
        after = run(_digests, settings, Moment(position=before.position))
    if (before.stream, before.position) != (after.stream, after.position):
        raise CommandFailure(f"{old} was made of another journal, or of one that had more in it")
    return before, after


def _of_side(settings: Config, side: str, config: Path | None, *, position: int | None) -> Digests:
    from arc_es.snapshots.public import DigestFileUnusable, saved

    path = Path(side)
    try:
        if not (path.is_file() and os.access(path, os.X_OK)):
            return saved(path)
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, "digests")
            _have_saved(settings, path, target, config, position)
            return saved(target)
    except DigestFileUnusable as error:
        advice = "name a file written by arc-es replay --save, or the arc-es program of an installed version"
        raise CommandFailure(str(error), advice=advice) from error


def _have_saved(settings: Config, program: Path, target: Path, config: Path | None, position: int | None) -> None:
    """Have another installed version fold the same journal. What it says on its way is shown."""
    asked = [str(program.absolute()), "replay", "--save", str(target), "--data-dir", str(settings.data_dir)]
    asked += [] if settings.nats_url is None else ["--nats-url", settings.nats_url]
    asked += [] if config is None else ["--config", str(config)]
    asked += [] if position is None else ["--at", str(position)]
    try:
        done = subprocess.run(asked, stdout=sys.stderr, check=False)
    except OSError as error:
        raise CommandFailure(f"cannot run {program}: {error.strerror}") from error
    if done.returncode:
        raise CommandFailure(f"{program} could not fold the journal: exit status {done.returncode}")


def show_differences(before: Digests, after: Digests, *, json: bool) -> int:
    """Print all differences; the exit status says whether there are any."""
    from arc_es.snapshots.public import differences

    found = list(differences(before.entries, after.entries))
    if json:
        print_json(
            {
                "position": after.position,
                "versions": [before.version, after.version],
                "compared": len(before.entries),
                "differences": [{"name": name, "what": what} for name, what in found],
            }
        )
    else:
        sys.stdout.writelines(_lines(found))
        print(
            f"{len(found):,} differences in {len(before.entries):,} things as of position {after.position:,}"
            f" between versions {before.version} and {after.version}"
        )
    return EXIT_FAILED if found else 0


def _lines(found: list[tuple[str, str]]) -> Iterator[str]:
    return (f"{what}: {name}\n" for name, what in found)
