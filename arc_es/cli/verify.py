"""`arc-es verify`: an export without any server, or the whole log where it is stored."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from arc_es.cli.offline import DataDir, NatsUrl, Settings, journal_of, run, settings_of
from arc_es.cli.options import EXIT_FAILED, EXIT_USAGE, CommandFailure
from arc_es.cli.output import complain, printable
from arc_es.cli.progress import Bar, progress_end

if TYPE_CHECKING:  # slow to import
    from arc_es.config import Config
    from arc_es.domain.recorded import Key
    from arc_es.proof.audit import AuditReport
    from arc_es.proof.notes import Verifier
    from arc_es.proof.verify import Report

_PIECE: Final = 1_000


def verify(
    file: Path | None = None,
    /,
    *,
    key: str | None = None,
    checkpoint: Path | None = None,
    data_dir: DataDir = None,
    nats_url: NatsUrl = None,
    config: Settings = None,
) -> int:
    """Check that history is what was signed: an export, or, without a file, the whole log.

    An export is checked offline: every message is in the signed log, no history has a gap, every digest is right. The
    log is read from its first message on, while the service runs or not. Exit status 0 only if everything holds.

    For example:

        arc-es verify incident.jsonl --key "$(cat arc.pub)"

        arc-es verify incident.jsonl --checkpoint kept-last-month.txt

        arc-es verify --data-dir /var/lib/arc

    Args:
        file: What arc-es export wrote.
        key: The public key that you trust, as arc-es verify shows it. Without it only damage is found, no forger.
        checkpoint: A checkpoint that you kept: the log must have gone on from it.
        data_dir: As for arc-es serve.
        nats_url: As for arc-es serve.
        config: As for arc-es serve.
    """
    from arc_es.proof.notes import NoteError, parse_checkpoint, parse_note, parse_verifier

    try:
        verifier = None if key is None else parse_verifier(key.strip())
        kept = None if checkpoint is None else checkpoint.read_text("utf-8")
        if kept is not None:
            parse_checkpoint(parse_note(kept))
    except (NoteError, UnicodeDecodeError) as error:
        raise CommandFailure(str(error), advice="see --key and --checkpoint", exit_status=EXIT_USAGE) from error
    except OSError as error:
        raise CommandFailure(f"{checkpoint} cannot be read: {error.strerror}", exit_status=EXIT_USAGE) from error
    if file is None:
        return _show_audit(run(_audit, settings_of(data_dir, nats_url, config), verifier, kept), verifier)
    return _verify_file(file, verifier, kept)


# --- an export


def _verify_file(file: Path, key: Verifier | None, kept: str | None) -> int:
    from arc_es.proof.verify import verify_export

    try:
        with file.open("rb") as raw:
            report = verify_export(watched(raw, file), key=None if key is None else str(key), witnessed=kept)
    except OSError as error:
        raise CommandFailure(f"{file} cannot be read: {error.strerror}") from error
    return show(report, str(file))


def watched(lines: BinaryIO, file: Path) -> Iterator[bytes]:
    """The lines of a file, with a bar of how far they were read."""
    bar, total, done = Bar("verify", "lines"), file.stat().st_size, 0
    for number, line in enumerate(lines, start=1):
        done += len(line)
        bar.show(done, total, number)
        yield line
    progress_end()


def show(report: Report, name: str) -> int:
    """Say what was found in an export; the exit status."""
    if report.problems:
        for problem in report.problems:
            print(f"WRONG {printable(problem)}")
        complain(f"{name} does not verify: {len(report.problems)} problems")
        return EXIT_FAILED
    assert report.checkpoint is not None, "no problem, so there is a checkpoint"
    print(f"{name} verifies: {report.messages:,} messages, {report.events:,} events, {report.bodies:,} bodies")
    for entry in report.scope:
        print(f"  all of {printable(entry)}, up to the checkpoint over {report.checkpoint.size:,} messages")
    _show_erased(report.erased, report.unproven)
    _show_keys(report.signers, report.unvouched, trusted=report.trusted)
    return 0


def _show_erased(erased: int, unproven: int) -> None:
    if erased:
        print(f"  the private part of {erased:,} messages was erased")
    if unproven:
        print(f"  of {unproven:,} of them only the digest is proven: they are of schema version 1")


def _show_keys(signers: tuple[str, ...], unvouched: tuple[str, ...], *, trusted: bool) -> None:
    for signer in signers:
        print(f"  signed by {printable(signer)}")
    for one in unvouched:
        print(f"  no earlier key vouches for {printable(one)}")
    if not trusted:
        complain("compare the key with the one that you know", advice="or give that with --key")


# --- the whole log


async def _audit(settings: Config, key: Verifier | None, kept: str | None) -> AuditReport:
    import trio

    from arc_es.journal.subjects import event_subject
    from arc_es.proof.apart import AuditApart

    async with journal_of(settings) as journal:
        end = await journal.end()
        done = trio.Event()
        piece: list[tuple[int, str, bytes]] = []
        taken = 0
        started = time.monotonic()
        bar = Bar("verify", "messages")

        def take(position: int, subject_key: Key, payload: bytes) -> None:
            nonlocal taken
            if position > end:
                return
            piece.append((position, event_subject(subject_key), payload))
            if len(piece) >= _PIECE or position == end:
                audit.take(piece)
                taken += len(piece)
                piece.clear()
                bar.show(position, end, taken)
            if position == end:
                done.set()

        with closing(AuditApart(key=key, witnessed=kept)) as audit:
            if end:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(journal.follow, 0, take)
                    await done.wait()
                    nursery.cancel_scope.cancel()
            report = audit.end()
        progress_end()
        print(f"{report.messages / max(time.monotonic() - started, 1e-6):,.0f} messages/s")
    return report


def _show_audit(report: AuditReport, key: Verifier | None) -> int:
    print(f"{report.messages:,} messages in {report.histories:,} histories, {report.checkpoints:,} checkpoints")
    if report.problems:
        for problem in report.problems:
            print(f"WRONG {printable(problem)}")
        complain(f"the log does not verify: {len(report.problems)} problems")
        return EXIT_FAILED
    after = report.messages - report.covered
    print(f"the log verifies; the last checkpoint is over {report.covered:,} messages, {after:,} came after it")
    _show_erased(report.erased, report.unproven)
    _show_keys(report.keys, report.unvouched, trusted=key is not None)
    return 0
