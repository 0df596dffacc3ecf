"""Where the params of a call come from and where its result goes: arguments, pipes, files, the terminal."""

from __future__ import annotations

import json
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, cast

from arc_es.cli.options import EXIT_USAGE, CommandFailure


@contextmanager
def params_file(text: str) -> Iterator[BinaryIO]:
    """What an argument names, as a file that can be read again: JSON text, - for standard input, @FILE.

    What comes through a pipe is kept in a temporary file: it is needed again when its upload is broken off.

    Raises:
        CommandFailure: it cannot be read, or the text is not JSON.
    """
    with ExitStack() as opened:
        try:
            if text == "-":
                file = _rereadable(sys.stdin.buffer, opened)
            elif text.startswith("@"):
                file = _rereadable(opened.enter_context(Path(text[1:]).open("rb")), opened)
            else:
                file = BytesIO(_json(text))
        except OSError as error:
            raise CommandFailure(f"{text}: cannot be read: {error.strerror}", exit_status=EXIT_USAGE) from error
        yield file


def _json(text: str) -> bytes:
    try:
        json.loads(text)
    except ValueError as error:
        advice = "quote it for the shell, or give bytes of any kind with - or @FILE"
        raise CommandFailure(f"params are not JSON: {error}", advice=advice, exit_status=EXIT_USAGE) from error
    return text.encode()


def _rereadable(file: BinaryIO, opened: ExitStack) -> BinaryIO:
    if file.seekable():
        return file
    kept = opened.enter_context(TemporaryFile())  # noqa: SIM115 - the stack closes it
    shutil.copyfileobj(file, kept)
    kept.seek(0)
    return cast("BinaryIO", kept)


@contextmanager
def result_file(path: Path | None) -> Iterator[BinaryIO]:
    """Where a result is written: a file, which is there only once the block has ended well, or standard output.

    Devices and pipes are written to as they are.

    Raises:
        CommandFailure: the file cannot be written.
    """
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    special = path.exists() and not path.is_file()
    part = path if special else path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            yield file
        if not special:
            part.replace(path)
    except OSError as error:
        raise CommandFailure(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        if not special:
            part.unlink(missing_ok=True)
