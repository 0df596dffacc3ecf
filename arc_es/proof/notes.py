"""Signed notes and checkpoints, byte for byte as https://c2sp.org/signed-note and https://c2sp.org/tlog-checkpoint say.

A note is text, an empty line, and one line for each signature: `— <key name> base64(4 bytes key id || signature)`.
Only Ed25519 (type 0x01). Reading is strict: there is one way to write each note.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from arc_es.domain.merkle import HASH_BYTES

ED25519: Final = b"\x01"
SEED_BYTES: Final = 32
KEY_ID_BYTES: Final = 4
SIGNATURES_MAX: Final = 64
_DASH: Final = "\u2014 "
_NAME: Final = re.compile(r"[^\s+]+")
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_CHECKPOINT_LINES: Final = 3


class NoteError(Exception):
    """This is not a note, key or checkpoint, or no known key has signed it; the message says which."""


def to_base64(raw: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(raw).decode()


def from_base64(text: str) -> bytes:
    """The bytes of canonical base64. Raises NoteError."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoteError("This is not base64") from error
    if to_base64(raw) != text:
        raise NoteError("This is not base64 in its one form")
    return raw


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key with its name, written `<name>+<key id in hex>+<base64 of 0x01 and the key>`."""

    name: str
    key: bytes

    @property
    def key_id(self) -> bytes:
        """What a signature names the key by; not unique, no secret."""
        return hashlib.sha256(self.name.encode() + b"\n" + ED25519 + self.key).digest()[:KEY_ID_BYTES]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{to_base64(ED25519 + self.key)}"

    def verifies(self, text: str, signature: bytes) -> bool:
        """Whether this key made this signature over this text."""
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(signature, text.encode())
        except InvalidSignature:
            return False
        return True


def parse_verifier(text: str) -> Verifier:
    """A public key from its text form. Raises NoteError."""
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    raw = from_base64(encoded)
    if not _NAME.fullmatch(name) or raw[:1] != ED25519 or len(raw) != 1 + SEED_BYTES:
        raise NoteError(f"{text!r} is not an Ed25519 verifier key")
    found = Verifier(name, raw[1:])
    if found.key_id.hex() != key_id:
        raise NoteError(f"The key id in {text!r} is not that of the key")
    return found


@dataclass(frozen=True, slots=True)
class NoteSigner:
    """A private key with its name. seed: 32 bytes (RFC 8032)."""

    name: str
    seed: bytes = field(repr=False)

    @property
    def verifier(self) -> Verifier:
        """The public half."""
        return Verifier(self.name, self._key().public_key().public_bytes_raw())

    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    def line(self, text: str) -> str:
        """The signature line over a text."""
        return f"{_DASH}{self.name} {to_base64(self.verifier.key_id + self._key().sign(text.encode()))}\n"


def sign(text: str, *signers: NoteSigner) -> str:
    """The note with this text, which ends with a newline."""
    return text + "\n" + "".join(signer.line(text) for signer in signers)


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A note that was read; nothing about its signatures has been checked."""

    text: str
    signatures: tuple[Signature, ...]

    def signed_by(self, verifiers: Sequence[Verifier]) -> list[Verifier]:
        """Those of the keys that have signed; signatures of unknown keys are ignored.

        Raises:
            NoteError: a signature that names one of the keys is wrong.
        """
        found: list[Verifier] = []
        for one in self.signatures:
            for verifier in verifiers:
                if (verifier.name, verifier.key_id) == (one.name, one.key_id):
                    if not verifier.verifies(self.text, one.signature):
                        raise NoteError(f"The signature of {verifier.name}+{verifier.key_id.hex()} is wrong")
                    found.append(verifier)
        return found


def parse_note(note: str) -> Note:
    """Text and signatures of a note. Raises NoteError."""
    text, separator, lines = note.rpartition("\n\n")
    if not separator or not text or not lines.endswith("\n"):
        raise NoteError("This is not a signed note")
    if any(char < " " and char != "\n" for char in note):
        raise NoteError("A note has no control characters")
    signatures = tuple(_signature(line) for line in lines[:-1].split("\n"))
    if len(signatures) > SIGNATURES_MAX:
        raise NoteError("This note has too many signatures")
    return Note(text + "\n", signatures)


def _signature(line: str) -> Signature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not _NAME.fullmatch(name):
        raise NoteError("A signature line of this note has another form")
    raw = from_base64(encoded)
    if len(raw) <= KEY_ID_BYTES:
        raise NoteError("A signature of this note is too short")
    return Signature(name, raw[:KEY_ID_BYTES], raw[KEY_ID_BYTES:])


# --- checkpoints


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint says. origin: which log. size: leaves of its tree. root: the root over them."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The note text. Extension lines are not written: witnesses cannot check them."""
        return f"{self.origin}\n{self.size}\n{to_base64(self.root)}\n"


def parse_checkpoint(note: Note) -> Checkpoint:
    """What the text of a checkpoint says; extension lines are ignored. Raises NoteError."""
    lines = note.text.removesuffix("\n").split("\n")
    if len(lines) < _CHECKPOINT_LINES or not all(lines) or not _SIZE.fullmatch(lines[1]):
        raise NoteError("This note is not a checkpoint")
    root = from_base64(lines[2])
    if len(root) != HASH_BYTES:
        raise NoteError("The root of this checkpoint is not a SHA-256")
    return Checkpoint(lines[0], int(lines[1]), root)


# --- keys that vouch for keys

_KEY_LINES: Final = 2


def key_note(new: NoteSigner, old: NoteSigner | None) -> str:
    """The announcement of a key: signed by itself, and by the one before it if that is at hand."""
    text = f"{new.name}/key\n{new.verifier}\n"
    return sign(text, *([old] if old is not None else []), new)


def announced_key(note: str, known: Sequence[Verifier]) -> tuple[Verifier, list[Verifier]]:
    """The key that a note announces, and those of the known keys that vouch for it.

    Raises:
        NoteError: it announces none, or one of its signatures is wrong or of a key that is not known.
    """
    parsed = parse_note(note)
    lines = parsed.text.removesuffix("\n").split("\n")
    if len(lines) != _KEY_LINES:
        raise NoteError("This note announces no key")
    key = parse_verifier(lines[1])
    if lines[0] != f"{key.name}/key":
        raise NoteError("This note announces the key of another log")
    signers = parsed.signed_by([*known, key])
    if key not in signers or len(signers) != len(parsed.signatures):
        raise NoteError("A signature under the announcement of a key is wrong")
    return key, [signer for signer in signers if signer != key]
