"""An `Audit` in a process of its own: one core receives the log, another one checks it.

The process reads frames from its stdin, each four bytes of length and that many of marshalled plain data: what to
trust, then messages, then an empty frame; and answers that with the report. It ends with us, when its stdin does.
"""

from __future__ import annotations

import marshal
import subprocess
import sys
from dataclasses import astuple
from typing import BinaryIO, Final, TypeAlias

from arc_es.proof.audit import Audit, AuditReport
from arc_es.proof.notes import Verifier, parse_verifier
from arc_es.proof.tiles import Tiles

LENGTH_BYTES: Final = 4

Messages: TypeAlias = list[tuple[int, str, bytes]]


class AuditApart:
    """Does what `Audit` does. Each call may wait until the process has room for more."""

    def __init__(self, *, key: Verifier | None = None, witnessed: str | None = None) -> None:
        command = [sys.executable, "-m", "arc_es.proof.apart"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._send(marshal.dumps((None if key is None else str(key), witnessed)))

    def take(self, messages: Messages) -> None:
        """As `Audit.take`. Raises ChildProcessError: it has ended."""
        self._send(marshal.dumps(messages))

    def end(self) -> AuditReport:
        """As `Audit.end`. Raises ChildProcessError."""
        assert self._process.stdout is not None, "a pipe was asked for"
        self._send(b"")
        said = self._process.stdout.read()
        if not said:
            raise self._ended()
        return AuditReport(*marshal.loads(said))  # noqa: S302 - what we wrote

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def _send(self, data: bytes) -> None:
        stdin = self._process.stdin
        assert stdin is not None, "a pipe was asked for"
        try:
            stdin.write(len(data).to_bytes(LENGTH_BYTES, "big") + data)
            stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _ended(self) -> ChildProcessError:
        return ChildProcessError(f"the process that checks the log ended with status {self._process.wait()}")


def _received(stdin: BinaryIO) -> bytes:
    return stdin.read(int.from_bytes(stdin.read(LENGTH_BYTES), "big"))


def main() -> None:
    """Check what comes."""
    key, witnessed = marshal.loads(_received(sys.stdin.buffer))  # noqa: S302 - from our own process
    audit = Audit(Tiles(), key=None if key is None else parse_verifier(key), witnessed=witnessed)
    while data := _received(sys.stdin.buffer):
        audit.take(marshal.loads(data))  # noqa: S302 - from our own process
    sys.stdout.buffer.write(marshal.dumps(astuple(audit.end())))


if __name__ == "__main__":
    import gc

    gc.disable()
    main()
