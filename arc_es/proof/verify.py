"""Checking an export without any server: is each message what was signed, is anything missing, who signed it.

Nothing in the file is believed before it is checked against the checkpoint, and nothing in it may go unchecked: each
line has one form, so no byte can be changed without being noticed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import orjson

from arc_es.codec import decode, digest
from arc_es.domain.events import Body
from arc_es.domain.merkle import includes, is_consistent, leaf_data, leaf_hash
from arc_es.domain.recorded import Decision
from arc_es.ports import JournalCorrupt
from arc_es.proof.erasures import Erasures
from arc_es.proof.format import BODY_FIELDS, FORMAT, Tally, line
from arc_es.proof.notes import (
    Checkpoint,
    NoteError,
    Verifier,
    announced_key,
    from_base64,
    parse_checkpoint,
    parse_note,
    parse_verifier,
)

PROBLEMS_MAX: Final = 100
_MESSAGE: Final = {"position", "subject", "index", "payload", "proof"}


@dataclass(slots=True)
class Report:
    """What was found. `problems` is empty only if everything holds."""

    problems: list[str] = field(default_factory=list)
    scope: tuple[str, ...] = ()
    messages: int = 0
    events: int = 0
    bodies: int = 0
    erased: int = 0
    """Messages whose private part was erased."""
    unproven: int = 0
    """Of these, those of which only the digest is proven."""
    checkpoint: Checkpoint | None = None
    signers: tuple[str, ...] = ()
    unvouched: tuple[str, ...] = ()
    """Keys that no earlier key of the log has vouched for, other than the first."""
    trusted: bool = False
    """Whether the checkpoint is signed by the key that was given, or by one that it vouches for."""

    def wrong(self, problem: str) -> None:
        """Add a problem."""
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)


class _Stop(Exception):
    """What follows cannot be checked; the problem is in the report."""


def verify_export(lines: Iterable[bytes], *, key: str | None = None, witnessed: str | None = None) -> Report:
    """Check an export.

    Args:
        lines: of the file, each with its newline.
        key: the public key that is trusted (`<name>+<id>+<base64>`).
        witnessed: a checkpoint that was kept elsewhere: the log must be that log, gone on.
    """
    check = _Check(key, witnessed)
    try:
        for number, raw in enumerate(lines, start=1):
            check.line(number, raw)
        check.end()
    except _Stop:
        pass
    except NoteError as error:
        check.report.wrong(f"line {check.number}: {error}")
    return check.report


@dataclass(slots=True)
class _BodyCheck:
    """A body whose parts are coming."""

    body: Body
    name: str
    sha256: Any = field(default_factory=hashlib.sha256)
    size: int = 0


class _Check:
    """One pass over the lines."""

    def __init__(self, key: str | None, witnessed: str | None) -> None:
        self.report = Report()
        self.number = 0
        self._key = None if key is None else parse_verifier(key)
        self._witnessed = None if witnessed is None else parse_note(witnessed)
        self._verifiers: list[Verifier] = []
        self._good: set[Verifier] = set()
        self._signed: Checkpoint | None = None
        self._tally = Tally()
        self._chains: dict[str, str] = {}
        self._erasures = Erasures()
        self._indexes: list[int] = []
        self._digests: dict[str, str] = {}
        self._places: dict[str, int] = {}
        self._last: tuple[int, str, Decision | None] | None = None
        self._body: tuple[tuple[int, int, str], _BodyCheck] | None = None
        self._consistent_with: Checkpoint | None = None
        self._manifest: str | None = None

    # --- lines

    def line(self, number: int, raw: bytes) -> None:
        self.number = number
        record = self._record(raw)
        if self._manifest is not None:
            self._stop("nothing may follow the manifest")
        if self._signed is None:
            self._header(record)
            return
        kind = next(iter(record))
        if kind != "body":
            self._end_body()
        match kind:
            case "position" if set(record) == _MESSAGE:
                self._message(record)
            case "body" if len(record) == 1:
                self._body_part(record["body"])
            case "consistency" if len(record) == 1 and not self._indexes and self._consistent_with is None:
                self._consistency(record["consistency"])
            case "manifest" if len(record) == 1:
                self._manifest = record["manifest"]
            case _:
                self._stop("this is no line of an export")

    def _record(self, raw: bytes) -> dict[str, Any]:
        try:
            record = orjson.loads(raw)
            canonical = line(record)
        except (orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
            where = f" at byte {error.pos + 1}" if isinstance(error, orjson.JSONDecodeError) else ""
            self._stop(f"this is not JSON{where}; the file is damaged here")
        if not isinstance(record, dict) or not record or canonical != raw:
            self._stop("this is not JSON in its one form; the file is damaged here")
        found: dict[str, Any] = record
        return found

    def _stop(self, problem: str) -> NoReturn:
        last = "" if self._last is None else f" (after {self._last[1]})"
        self.report.wrong(f"line {self.number}{last}: {problem}")
        raise _Stop

    # --- the header: who signed what

    def _header(self, record: Mapping[str, Any]) -> None:
        if list(record) != ["format", "scope", "keys", "checkpoint"] or record["format"] != FORMAT:
            self._stop(f"this is no {FORMAT}")
        if not _texts(record["scope"]) or not _texts(record["keys"]) or not isinstance(record["checkpoint"], str):
            self._stop("the header has another form")
        unvouched: list[str] = []
        vouched: dict[Verifier, list[Verifier]] = {}
        for note in record["keys"]:
            found, by = announced_key(note, self._verifiers)
            if self._verifiers and not by:
                unvouched.append(str(found))
            vouched[found] = by
            self._verifiers.append(found)
        note = parse_note(record["checkpoint"])
        signed = parse_checkpoint(note)
        signers = note.signed_by(self._verifiers)
        if not signers or len(signers) != len(note.signatures) or signed.text != note.text:
            self._stop("the checkpoint is not signed by a key of this log")
        if any(one.name != signed.origin for one in self._verifiers):
            self._stop("a key is that of another log")
        self._signed = self.report.checkpoint = signed
        self.report.scope, self.report.unvouched = tuple(record["scope"]), tuple(unvouched)
        self.report.signers = tuple(map(str, signers))
        self._trust(signers, vouched)

    def _trust(self, signers: Sequence[Verifier], vouched: Mapping[Verifier, Sequence[Verifier]]) -> None:
        """The key that was given, else those of the checkpoint, and whatever they vouch for, one after the other.

        Anybody can put a key of his own into the file; it is worth what the keys before it say.
        """
        self._good = set(signers) if self._key is None else {self._key}
        for found, by in vouched.items():
            if self._good.intersection(by):
                self._good.add(found)
        self.report.trusted = self._key is not None and bool(self._good.intersection(signers))
        if self._key is not None and not self.report.trusted:
            self.report.wrong(f"the checkpoint is signed by {', '.join(map(str, signers))}, not by the key given")

    # --- messages

    def _message(self, record: Mapping[str, Any]) -> None:
        assert self._signed is not None, "the header comes first"
        position, subject, index, proof = (record[name] for name in ("position", "subject", "index", "proof"))
        right = isinstance(position, int) and isinstance(subject, str) and isinstance(index, int) and _texts(proof)
        if not right or not isinstance(record["payload"], str):
            self._stop("a message line has another form")
        name = f"seq {position} of {subject}"
        payload, path = from_base64(record["payload"]), [from_base64(step) for step in proof]
        decision = self._decision(name, payload)
        types = "" if decision is None else f" ({', '.join(type(event).__name__ for event in decision.events)})"
        number = self._places[subject] = self._places.get(subject, 0) + 1
        self._last = position, f"{name}, message {number} of its history{types}", decision
        own = digest(payload)
        leaf = leaf_hash(leaf_data(position, subject, own))
        if not includes(leaf, index, self._signed.size, self._signed.root, path):
            self.report.wrong(f"line {self.number}: {self._last[1]}: {self._suspect(payload, decision)}")
        self._chain(subject, decision, own)
        self._erasure(position, subject, payload, decision)
        self._tally.message(leaf)
        self._indexes.append(index)
        self.report.messages += 1

    def _erasure(self, position: int, subject: str, payload: bytes, decision: Decision | None) -> None:
        if decision is None:
            return
        if decision.is_erased:
            self._erasures.missing(position, subject, payload)
        self._erasures.event(subject, decision)

    def _decision(self, name: str, payload: bytes) -> Decision | None:
        try:
            decision = decode(payload)
        except JournalCorrupt as error:
            self.report.wrong(f"line {self.number}: {name}: the payload cannot be read: {error}")
            return None
        self.report.events += len(decision.events)
        return decision

    def _suspect(self, payload: bytes, decision: Decision | None) -> str:
        """What may be wrong about a message that is not the one that was signed."""
        told = "is not what was signed: its payload, position, subject, index or proof was changed"
        if decision is not None:
            for number, event in enumerate(decision.events):
                for name in BODY_FIELDS:
                    body = getattr(event, name, None)
                    if isinstance(body, Body) and body.place == "event" and not _inline_right(body):
                        told += f"; the bytes of event {number}, field {name}, are not those of its digest"
        return told

    def _chain(self, subject: str, decision: Decision | None, own: str) -> None:
        """Each message names the digest of the one before it in its history; the first one names none."""
        before = self._chains.get(subject)
        is_partial = self.report.scope[0].startswith("range ")
        if decision is not None and decision.prev != before and not (before is None and is_partial):
            missing = (
                "the message before it is missing"
                if before is None
                else "the one before it was changed, or one is missing between"
            )
            self.report.wrong(
                f"line {self.number}: seq {self._last and self._last[0]} of {subject}: the chain is broken: {missing}"
            )
        self._chains[subject] = own

    # --- bodies

    def _body_part(self, record: object) -> None:
        if not isinstance(record, dict) or list(record) != ["position", "event", "field", "base64"]:
            self._stop("a body line has another form")
        where = record["position"], record["event"], record["field"]
        if self._body is None or self._body[0] != where:
            self._end_body()
            self._body = where, self._announced(*where)
        raw = from_base64(record["base64"])
        self._body[1].sha256.update(raw)
        self._body[1].size += len(raw)

    def _announced(self, position: object, number: object, name: object) -> _BodyCheck:
        decision = None if self._last is None or self._last[0] != position else self._last[2]
        events = () if decision is None else decision.events
        is_field = isinstance(number, int) and 0 <= number < len(events) and name in BODY_FIELDS
        body = getattr(events[int(str(number))], str(name), None) if is_field else None
        if not isinstance(body, Body):
            self._stop("this body belongs to no event")
        return _BodyCheck(body, f"event {number}, field {name}")

    def _end_body(self) -> None:
        """See that the body that was coming is the one that its event names."""
        if self._body is None:
            return
        found = self._body[1]
        if found.size != found.body.size or found.sha256.hexdigest() != found.body.sha256:
            assert self._last is not None, "a body follows its message"
            self.report.wrong(f"{self._last[1]}: the body of {found.name} is not the one that was stored")
        self._tally.bodies += 1
        self.report.bodies += 1
        self._body = None

    # --- the log as a whole

    def _consistency(self, record: object) -> None:
        if not isinstance(record, dict) or list(record) != ["size", "root", "proof"] or not _texts(record["proof"]):
            self._stop("the consistency proof has another form")
        assert self._signed is not None, "the header comes first"
        size, root = record["size"], from_base64(str(record["root"]))
        path = [from_base64(step) for step in record["proof"]]
        if not isinstance(size, int) or not is_consistent(size, root, self._signed.size, self._signed.root, path):
            self._stop("the consistency proof does not hold")
        self._consistent_with = Checkpoint(self._signed.origin, size, root)

    def end(self) -> None:
        """All lines were read."""
        self._end_body()
        if self._signed is None:
            self._stop("the file is empty")
        if self._manifest is None:
            self._stop("the file ends before its manifest: something was cut off")
        self._check_manifest(self._signed, self._manifest)
        self._check_scope()
        self._check_erasures()
        self._check_witnessed(self._signed)

    def _check_manifest(self, signed: Checkpoint, manifest: object) -> None:
        if not isinstance(manifest, str):
            self._stop("the manifest has another form")
        note = parse_note(manifest)
        signers = note.signed_by(self._verifiers)
        if not signers or len(signers) != len(note.signatures):
            self._stop("the manifest is not signed by a key of this log")
        if not self._good.intersection(signers):
            self._stop("the manifest is signed by a key that nobody vouches for: something may have been left out")
        texts = [
            self._tally.manifest(signed.origin, signed.size, self.report.scope, with_bodies=with_bodies)
            for with_bodies in (True, False)
        ]
        if note.text not in texts and not self.report.problems:
            self.report.wrong(
                f"something is missing or was moved: {_difference(note.text, texts[self.report.bodies == 0])}"
            )

    def _check_scope(self) -> None:
        """What the export says that it holds all of must be there."""
        for entry in self.report.scope:
            kind, _, rest = entry.partition(" ")
            if kind == "history" and rest not in self._chains:
                self.report.wrong(f"the history {rest} is missing")
            if kind == "range" and [str(number) for number in self._span()] != rest.split():
                self.report.wrong(f"messages of the range {rest} are missing")
        histories = {entry.partition(" ")[2] for entry in self.report.scope if entry.startswith("history ")}
        if histories and not histories >= self._chains.keys():
            self.report.wrong("there are messages of other histories")

    def _check_erasures(self) -> None:
        """In a part of the log the event that says why something is missing may come later."""
        self.report.erased, self.report.unproven = self._erasures.erased, self._erasures.unproven
        if not self.report.scope[0].startswith("range "):
            for problem in self._erasures.problems():
                self.report.wrong(problem)

    def _span(self) -> tuple[int, int]:
        """First index and end, if the indexes are without a gap."""
        found = self._indexes
        if not found:
            return tuple(map(int, self.report.scope[0].split()[1:]))[:1] * 2  # type: ignore[return-value]
        return (found[0], found[-1] + 1) if found == list(range(found[0], found[-1] + 1)) else (-1, -1)

    def _check_witnessed(self, signed: Checkpoint) -> None:
        """The log must be the one that a checkpoint kept elsewhere was of."""
        if self._witnessed is None:
            return
        kept = parse_checkpoint(self._witnessed)
        if not self._witnessed.signed_by([*self._verifiers, *([self._key] if self._key else [])]):
            self.report.wrong("the checkpoint given is not signed by a key of this log")
        elif kept.size == signed.size or self._consistent_with is not None:
            same = signed if kept.size == signed.size else self._consistent_with
            if same is None or (kept.size, kept.root) != (same.size, same.root):
                self.report.wrong(f"the log is not the one that the checkpoint over {kept.size} messages was of")
        else:
            self.report.wrong("the checkpoint given has another size: export again with --checkpoint")


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _inline_right(body: Body) -> bool:
    try:
        raw = base64.b64decode(body.base64 or "", validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(raw) == body.size and hashlib.sha256(raw).hexdigest() == body.sha256


def _difference(signed: str, found: str) -> str:
    pairs = zip(signed.splitlines(), found.splitlines(), strict=False)
    wanted, have = next(((one, other) for one, other in pairs if one != other), (signed, found))
    return f"the manifest says {wanted!r}, the file has {have!r}"
