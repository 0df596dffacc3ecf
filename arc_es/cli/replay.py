"""`arc-es replay`: fold the journal again, to look into the past, to check snapshots, to compare two versions."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from arc_es.cli.comparing import compare, save_digests, show_differences
from arc_es.cli.offline import Attached, DataDir, NatsUrl, Settings, journal_of, run, settings_of
from arc_es.cli.options import EXIT_FAILED, EXIT_USAGE, CommandFailure, Json
from arc_es.cli.output import print_json
from arc_es.cli.progress import bar
from arc_es.cli.queues import show_then

if TYPE_CHECKING:  # slow to import
    from arc_es.config import Config
    from arc_es.ports import Journal
    from arc_es.snapshots.fold import Folded
    from arc_es.snapshots.moment import Moment


def replay(  # noqa: PLR0913 - one parameter an option
    *,
    at: str | None = None,
    queues: Annotated[bool, Parameter(negative="")] = False,
    verify: Annotated[bool, Parameter(negative="")] = False,
    save: Path | None = None,
    diff: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    messages_max: int | None = None,
    json: Json = False,
    data_dir: DataDir = None,
    nats_url: NatsUrl = None,
    config: Settings = None,
    attached: Attached = False,
) -> int:
    """Fold the journal and say what it comes to: counts, and a digest of everything. Nothing is changed.

    The service may run meanwhile. With --verify the whole journal is folded from its beginning and from each snapshot,
    and all must agree. With --diff two versions are compared; each is given as its program, or as what that saved.

    For example:

        arc-es replay --at 2026-11-17T14:02:00Z --queues

        arc-es replay --verify --data-dir /var/lib/arc

        arc-es replay --save before.digests

        arc-es replay --diff before.digests

        arc-es replay --diff /opt/arc-es/bin/arc-es /opt/arc-es-next/bin/arc-es

    Args:
        at: Sequence or RFC 3339 time up to which to fold; the present if not given.
        queues: Say what was in the queues, and who held what, too.
        verify: Compare the snapshots with a fold of the whole journal; exit status 1 if one differs.
        save: Write digests of what is said about each command to this file.
        diff: OLD, or OLD NEW: compare what they say as of the position of OLD; exit status 1 if anything differs. Each
            is such a file, or the arc-es program of an installed version; without NEW it is this program.
        messages_max: Exit status 4 if more messages than this lie between the nearest snapshot and the moment.
        json: Print JSON.
        data_dir: As for arc-es serve.
        nats_url: As for arc-es serve.
        config: As for arc-es serve.
        attached: For the service.
    """
    if sum((verify, save is not None, diff is not None, queues)) > 1 or (at is not None and (verify or diff)):
        raise CommandFailure("choose one of --queues, --verify, --save and --diff", exit_status=EXIT_USAGE)
    settings, moment = settings_of(data_dir, nats_url, config), _moment(at)
    if verify:
        return _show_verified(run(_verify, settings), json=json)
    if diff is not None:
        return show_differences(*compare(settings, diff, config), json=json)
    if save is not None:
        found = run(save_digests, settings, moment, save)
        print(f"saved {len(found.entries):,} digests as of position {found.position:,} to {save}")
        return 0
    look = partial(_look, messages_max=messages_max, queues=queues, json=json or attached, attached=attached)
    return run(look, settings, moment, attached=attached)


def _moment(at: str | None) -> Moment:
    from arc_es.asof import parse_as_of
    from arc_es.snapshots.moment import PRESENT
    from arc_es.wire import WireError

    try:
        return PRESENT if at is None else parse_as_of(at)
    except WireError:
        advice = "write a sequence number, or a time such as 2026-11-17T14:02:00Z"
        raise CommandFailure(f"--at {at} is no moment", advice=advice, exit_status=EXIT_USAGE) from None


# --- looking


async def _look(
    settings: Config, moment: Moment, *, messages_max: int | None, queues: bool, json: bool, attached: bool
) -> int:
    from arc_es.asof import EXIT_TOO_FAR, queues_of, to_json
    from arc_es.bootstrap import empty_models
    from arc_es.snapshots.fold import TooFar, models_at
    from arc_es.snapshots.folder import FOLDER

    folder, make = settings.data_dir / FOLDER, partial(empty_models, settings.finished_in_memory_max)
    async with journal_of(settings, attached=attached) as journal:
        try:
            folded = await models_at(journal, folder, make, moment, messages_max=messages_max, progress=bar("folding"))
        except TooFar:
            message = f"more than {messages_max} messages lie between the nearest snapshot and that moment"
            raise CommandFailure(message, exit_status=EXIT_TOO_FAR) from None
    if not queues:
        _show(_summary(folded), json=json)
    elif json:
        print(to_json(queues_of(folded, moment)).decode(), flush=True)
    else:
        from arc_es.http.past import queue_json

        then = queues_of(folded, moment)
        _show(_summary(folded), json=False)
        show_then([queue_json(queue, then.now) for queue in then.queues])
    return 0


def _summary(folded: Folded) -> dict[str, Any]:
    from arc_es.snapshots.file import digest_of
    from arc_es.wire import format_time

    models = folded.models
    rate = folded.events / folded.seconds if folded.seconds else 0.0
    return {
        "position": folded.position,
        "at": format_time(folded.at) if folded.at else None,
        "messages": models.stats.messages,
        "events": models.stats.events,
        "commands": len(models.status),
        "states": models.stats.by_state(),
        "digest": digest_of(models.dump()),
        "foldedEvents": folded.events,
        "seconds": round(folded.seconds, 3),
        "eventsPerSecond": round(rate),
    }


def _show(summary: dict[str, Any], *, json: bool) -> None:
    if json:
        print_json(summary)
        return
    states = ", ".join(f"{name} {count:,}" for name, count in summary["states"].items())
    print(f"position {summary['position']:,}, {summary['at'] or 'empty'}")
    print(f"{summary['commands']:,} commands, {summary['events']:,} events in {summary['messages']:,} messages")
    print(states)
    print(f"folded {summary['foldedEvents']:,} events in {summary['seconds']} s, {summary['eventsPerSecond']:,}/s")
    print(f"digest {summary['digest']}")


# --- verifying


async def _verify(settings: Config) -> list[dict[str, Any]]:
    """What a fold of everything comes to, then what each snapshot and its tail come to."""
    from arc_es.bootstrap import empty_models
    from arc_es.snapshots.file import digest_of
    from arc_es.snapshots.fold import begun, fold
    from arc_es.snapshots.folder import FOLDER, Loaded, load

    make = partial(empty_models, settings.finished_in_memory_max)
    digests: dict[int, str] = {}
    async with journal_of(settings) as journal:
        usable, unusable = await _snapshots(journal, settings.data_dir / FOLDER)
        whole = begun(Loaded(make()))
        for position in sorted(usable):
            await fold(journal, whole, position, progress=bar("all of it"))
            digests[position] = digest_of(whole.models.dump())
        await fold(journal, whole, await journal.end(), progress=bar("all of it"))
        entries = [{"name": "the whole journal", **_summary(whole)}, *unusable]
        for position, path in usable.items():
            loaded = load(path, make)
            same = digest_of(loaded.models.dump()) == digests[position]
            again = _summary(await fold(journal, begun(loaded), whole.position, progress=bar(path.name)))
            entries.append({"name": path.name, "equal": same and again["digest"] == entries[0]["digest"], **again})
    return entries


async def _snapshots(journal: Journal, folder: Path) -> tuple[dict[int, Path], list[dict[str, Any]]]:
    """The snapshots of this journal by position, and what is to be said about the others."""
    from arc_es.snapshots import file
    from arc_es.snapshots.folder import mismatch, paths

    usable: dict[int, Path] = {}
    unusable: list[dict[str, Any]] = []
    for path in paths(folder):
        try:
            header = file.check(path)
            why = await mismatch(journal, header)
        except file.SnapshotUnusable as error:
            why = str(error)
        if why is None:
            usable[header.position] = path
        else:
            unusable.append({"name": path.name, "unusable": why})
    return usable, unusable


def _show_verified(entries: list[dict[str, Any]], *, json: bool) -> int:
    if json:
        print_json({"replays": entries})
    else:
        for entry in entries:
            if "unusable" in entry:
                print(f"{entry['name']}: not usable, {entry['unusable']}")
                continue
            verdict = {None: "", True: " - equal", False: " - DIFFERENT"}[entry.get("equal")]
            speed = f"{entry['foldedEvents']:,} events, {entry['eventsPerSecond']:,}/s"
            print(f"{entry['name']}: position {entry['position']:,}, {speed}, digest {entry['digest'][:16]}{verdict}")
    return EXIT_FAILED if any(entry.get("equal") is False for entry in entries) else 0
