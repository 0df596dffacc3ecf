"""Checking the whole log from its first message: every chain, every checkpoint, every signature.

Messages are taken in pages, so that one node of work is many of them: what a message costs is its three SHA-256, its
share of the tree, and finding `prev` and `private` without reading the rest of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from arc_es.codec import decode, digest_of_public
from arc_es.domain.events import CheckpointKeyAdded, CheckpointSigned
from arc_es.ports import JournalCorrupt
from arc_es.proof.erasures import ERASED, Erasures
from arc_es.proof.notes import NoteError, Verifier, announced_key, parse_checkpoint, parse_note
from arc_es.proof.tiles import Tiles

PROBLEMS_MAX: Final = 100
LOG: Final = "arc.event.log."
"""How the subjects of the log's own histories begin."""
_EVENTS: Final = b',"events":['
_PREV: Final = b',"prev":"'
_PRIVATE: Final = b',"private":"'
_HEX: Final = 64


@dataclass(slots=True)
class AuditReport:
    """What was found; `problems` is empty only if everything holds."""

    messages: int = 0
    histories: int = 0
    checkpoints: int = 0
    covered: int = 0
    """Messages under the last checkpoint."""
    erased: int = 0
    """Messages whose private part was erased."""
    unproven: int = 0
    """Of these, those of which only the digest is proven."""
    origin: str | None = None
    keys: tuple[str, ...] = ()
    unvouched: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)


def digests_in(public: bytes) -> tuple[bytes | None, bytes | None]:
    """`prev` and `private` (hex) in the public part of a message, found without reading all of it.

    Before `events` come only fields of ours, and inside a text no quote stands without a backslash.

    Raises:
        ValueError: it is no decision.
    """
    end = public.find(_EVENTS)
    if end < 0:
        return _digests_read(public)
    prev = public.find(_PREV, 0, end) + len(_PREV)
    private = public.find(_PRIVATE, 0, end) + len(_PRIVATE)
    return (
        None if prev < len(_PREV) else public[prev : prev + _HEX],
        None if private < len(_PRIVATE) else public[private : private + _HEX],
    )


def _digests_read(public: bytes) -> tuple[bytes | None, bytes | None]:
    found = orjson.loads(public)
    if not isinstance(found, dict):
        return None, None
    prev, private = (None if found.get(name) is None else str(found[name]).encode() for name in ("prev", "private"))
    return prev, private


class Audit:
    """Takes all event messages in order. witnessed: a checkpoint kept elsewhere, which the log must go on from."""

    def __init__(self, tiles: Tiles, *, key: Verifier | None = None, witnessed: str | None = None) -> None:
        self.report = AuditReport()
        self._tiles = tiles
        self._key = key
        self._witnessed = None if witnessed is None else parse_note(witnessed)
        self._last: dict[str, bytes] = {}
        self._erasures = Erasures()
        self._verifiers: list[Verifier] = []
        self._trusted: set[Verifier] = set() if key is None else {key}

    def take(self, messages: Sequence[tuple[int, str, bytes]]) -> None:
        """The next messages: position, subject, payload."""
        leaves: list[tuple[int, bytes]] = []
        last, sha256 = self._last, hashlib.sha256
        for position, subject, payload in messages:
            public, has_private, private = payload.partition(b"\n")
            own = digest_of_public(public).encode()
            leaves.append((position, sha256(b"\0%d\n%b\n%b\n" % (position, subject.encode(), own)).digest()))
            before = last.get(subject)
            try:
                prev, named = digests_in(public)
                if prev != before:
                    self._broken(position, subject, before)
                if has_private and named != sha256(private).hexdigest().encode():
                    self._wrong(f"seq {position} of {subject}: its private part is not the one that was stored with it")
                elif named is not None and not has_private:
                    self._erasures.missing(position, subject, public)
            except ValueError:
                self._wrong(f"seq {position} of {subject} is no decision")
            last[subject] = own
        self._tiles.extend(leaves)
        for position, subject, payload in messages:
            if subject.startswith(LOG):
                self._about_the_log(position, payload)
            elif ERASED in payload:
                self._about_an_erasure(position, subject, payload)

    def _broken(self, position: int, subject: str, before: bytes | None) -> None:
        why = "the first messages are missing" if before is None else "the message before it was changed or is missing"
        self._wrong(f"seq {position} of {subject}: the chain is broken: {why}")

    def _wrong(self, problem: str) -> None:
        if len(self.report.problems) < PROBLEMS_MAX:
            self.report.problems.append(problem)

    def _about_an_erasure(self, position: int, subject: str, payload: bytes) -> None:
        try:
            self._erasures.event(subject, decode(payload))
        except JournalCorrupt as error:
            self._wrong(f"seq {position}: {error}")

    # --- keys and checkpoints

    def _about_the_log(self, position: int, payload: bytes) -> None:
        try:
            events = decode(payload).events
            for event in events:
                if isinstance(event, CheckpointKeyAdded):
                    self._add_key(event)
                elif isinstance(event, CheckpointSigned):
                    self._check(event)
        except (JournalCorrupt, NoteError) as error:
            self._wrong(f"seq {position}: {error}")

    def _add_key(self, event: CheckpointKeyAdded) -> None:
        key, by = announced_key(event.note, self._verifiers)
        if str(key) != event.public_key:
            raise NoteError("the key is not the one that its note announces")
        if self._verifiers and not by:
            self.report.unvouched = (*self.report.unvouched, str(key))
        if self._trusted.intersection(by):
            self._trusted.add(key)
        self._verifiers.append(key)
        self.report.origin = key.name
        self.report.keys = (*self.report.keys, str(key))

    def _check(self, event: CheckpointSigned) -> None:
        note = parse_note(event.note)
        signed = parse_checkpoint(note)
        signers = note.signed_by(self._verifiers)
        if not signers:
            raise NoteError("the checkpoint is not signed by a key of this log")
        if self._key is not None and not self._trusted.intersection(signers):
            raise NoteError("the checkpoint is not signed by the key given, nor by one that it vouches for")
        if signed.size != event.size or signed.size > self._tiles.size:
            raise NoteError(f"the checkpoint is over {signed.size} messages, but only {self._tiles.size} are here")
        if self._tiles.root(signed.size) != signed.root:
            raise NoteError(
                f"the checkpoint over {signed.size} messages (to seq {event.position}) was signed over other ones:"
                f" something after the checkpoint over {self.report.covered} was changed, removed or added"
            )
        self.report.checkpoints += 1
        self.report.covered = signed.size

    def end(self) -> AuditReport:
        """All messages were taken."""
        self.report.messages, self.report.histories = self._tiles.size, len(self._last)
        self.report.erased, self.report.unproven = self._erasures.erased, self._erasures.unproven
        for problem in self._erasures.problems():
            self._wrong(problem)
        if self._witnessed is not None:
            self._check_witnessed(parse_checkpoint(self._witnessed).size)
        if self._key is not None and self._key not in self._verifiers:
            self._wrong("the key given is not a key of this log")
        return self.report

    def _check_witnessed(self, size: int) -> None:
        assert self._witnessed is not None, "seen by the caller"
        kept = parse_checkpoint(self._witnessed)
        if not self._witnessed.signed_by([*self._verifiers, *self._trusted]):
            self._wrong("the checkpoint given is not signed by a key of this log")
        elif size > self._tiles.size:
            self._wrong(f"the checkpoint given is over {size} messages, but only {self._tiles.size} are here")
        elif self._tiles.root(size) != kept.root:
            self._wrong(f"the first {size} messages are not those that the checkpoint given was signed over")
