"""`arc-es export`: what happened, as one file that proves itself."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, BinaryIO, Final

from cyclopts import Parameter

from arc_es.cli.options import DEFAULT_SERVER, EXIT_USAGE, CommandFailure, Server, ask
from arc_es.cli.progress import Bar, progress_end

_RANGE: Final = re.compile(rb'"scope":\["range ([0-9]+) ([0-9]+)"\]')
Query = Mapping[str, str | Sequence[str]]


def export(
    *commands: str,
    deployment: str | None = None,
    since: str | None = None,
    until: str | None = None,
    output: Path,
    bodies: Annotated[bool, Parameter(negative="")] = False,
    checkpoint: Path | None = None,
    server: Server = DEFAULT_SERVER,
) -> int:
    """Write the events of commands, of a deployment or of a time into one file, with the proof of each.

    The file holds the events as they are stored, their place in the signed log, and the public keys. arc-es verify
    checks it anywhere, without a server. A time takes an admin token, the others an auditor's.

    For example:

        arc-es export cmd_3b1f6a52-6c1d-4f0e-9a55-0d3a1f2b7c11 --output incident.jsonl

        arc-es export --deployment dep-7 --bodies --output dep-7.jsonl

        arc-es export --since 2026-11-17T00:00:00Z --until 2026-11-18T00:00:00Z --output tuesday.jsonl

    Args:
        commands: Command ids.
        deployment: All commands of this deployment.
        since: Everything from this RFC 3339 time on.
        until: Everything before this RFC 3339 time.
        output: File to write; replaced when the export is complete.
        bodies: With the bytes of params and answers that lie beside the events.
        checkpoint: A checkpoint that was kept: prove that the log went on from it.
        server: Which service.
    """
    chosen = bool(commands) + (deployment is not None) + (since is not None or until is not None)
    if chosen != 1:
        advice = "name commands, or give --deployment, or --since and --until"
        raise CommandFailure("say what to export", advice=advice, exit_status=EXIT_USAGE)
    given = {"deploymentId": deployment, "since": since, "until": until, "bodies": "true" if bodies else None}
    query: dict[str, str | Sequence[str]] = {name: value for name, value in given.items() if value is not None}
    if commands:
        query["commandId"] = list(commands)
    if checkpoint is not None:
        query["from"] = str(_size_of(checkpoint))
    return _written(server, query, output)


def _size_of(checkpoint: Path) -> int:
    from arc_es.proof.notes import NoteError, parse_checkpoint, parse_note

    try:
        return parse_checkpoint(parse_note(checkpoint.read_text("utf-8"))).size
    except (OSError, UnicodeDecodeError, NoteError) as error:
        raise CommandFailure(f"{checkpoint} is no checkpoint: {error}", exit_status=EXIT_USAGE) from error


def _written(server: Server, query: Query, output: Path) -> int:
    """Write the file, whole or not at all, and check it as `arc-es verify` does."""
    from arc_es.cli.verify import show, watched
    from arc_es.proof.verify import verify_export

    draft = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            _download(server, query, file)
        with draft.open("rb") as raw:
            report = verify_export(watched(raw, draft))
        draft.rename(output)
    except OSError as error:
        raise CommandFailure(f"{output} cannot be written: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
    return show(report, str(output))


def _download(server: Server, query: Query, file: BinaryIO) -> None:
    try:
        ask(server, "export", lambda client: client.export(query, _Shown(file)))
    finally:
        progress_end()


class _Shown:
    """A file, with a bar of how many messages were written to it; of a time the header says how many it will be."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._bar = Bar("export", "messages")
        self._count = 0
        self._total: int | None = None

    def write(self, chunk: bytes) -> int:
        """Write some of it."""
        if not self._count and (found := _RANGE.search(chunk)):
            self._total = int(found[2]) - int(found[1])
        self._count += chunk.count(b'"payload":')
        self._bar.show(self._count, self._total, self._count)
        return self._file.write(chunk)
