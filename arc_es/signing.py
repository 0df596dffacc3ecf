"""Signatures that let a URL speak for itself: response tokens (`arc.v1` 2.6) and storage URLs (2.10). Pure."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from arc_es.domain.ids import Micros
from arc_es.domain.limits import SECOND

LIFETIME_SECONDS_MIN: Final = 7_200
TOLERANCE_SECONDS: Final = 300
LONG_LEASE_GRACE_SECONDS: Final = 600

Method: TypeAlias = Literal["GET", "PUT"]
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_DIGITS: Final = re.compile(r"-?[0-9]+")
_DIGITS_MAX: Final = 18


def key_from_admin_token(admin_token: str) -> bytes:
    """The signing key of an installation that configured no key of its own (`arc.v1` 2.6)."""
    return hashlib.sha256(f"{admin_token}:commands-response-signing".encode()).digest()


def response_seconds(lease_seconds: int) -> int:
    """How long the response token and the response upload URL of a lease live (`arc.v1` section 0)."""
    return max(LIFETIME_SECONDS_MIN, lease_seconds + TOLERANCE_SECONDS)


@dataclass(frozen=True, slots=True)
class OldKey:
    """A key that was current once. until: when the last URL that it signed has expired; None if nobody said."""

    key: bytes = field(repr=False)
    until: Micros | None = None


class Signer:
    """Signs with the current key; verifies with it and with old ones whose URLs may still be under way."""

    def __init__(self, key: bytes, old: Sequence[OldKey] = ()) -> None:
        """Raises ValueError for an empty key: everybody could sign with it."""
        if not key or not all(one.key for one in old):
            raise ValueError("The signing key is empty")
        self._mac = hmac.new(key, digestmod=hashlib.sha256)
        self._verifying = (OldKey(key), *old)

    def __repr__(self) -> str:
        return "Signer(…)"

    def response_token(self, command_id: str, expires: int) -> str:
        """The token for answering one command until `expires` (Unix seconds)."""
        return self._sign(_response_message(command_id, expires))

    def storage_signature(self, method: Method, path: str, expires: int) -> str:
        """The signature for one method on one object path until `expires` (Unix seconds)."""
        return self._sign(_storage_message(method, path, expires))

    def _sign(self, message: str) -> str:
        mac = self._mac.copy()  # half of the work is done with the key alone
        mac.update(message.encode())
        return mac.hexdigest()

    def token_valid(self, command_id: str, token: str, expires: int, now: Micros, lease_end_max: Micros) -> bool:
        """Whether a response token may be used now.

        `lease_end_max` is the latest lease end ever granted for the command, 0 if none was; it alone lets a token live
        longer than two hours.
        """
        if not _HEX.fullmatch(token):
            return False
        if not self._signed(_response_message(command_id, expires), token, now):
            return False
        now_seconds = now / SECOND
        latest = max(
            now_seconds + LIFETIME_SECONDS_MIN + TOLERANCE_SECONDS,
            lease_end_max / SECOND + LONG_LEASE_GRACE_SECONDS,
        )
        return now_seconds <= expires <= latest

    def storage_valid(self, method: Method, path: str, signature: str, expires: str, *, now: Micros) -> bool:
        """Whether a storage URL may be used now; anything wrong with it is just no (extensions, "Fine print")."""
        until = parse_expires(expires)
        if until is None or not _HEX.fullmatch(signature):
            return False
        return self._signed(_storage_message(method, path, until), signature, now) and now / SECOND <= until

    def _signed(self, message: str, signature: str, now: Micros) -> bool:
        """Whether one of the keys made the signature; always tries all of them, so time does not tell which."""
        found = False
        for one in self._verifying:
            right = hmac.compare_digest(_sign(one.key, message), signature.lower())
            found |= right and (one.until is None or now <= one.until)
        return found


def _sign(key: bytes, message: str) -> str:
    return hmac.new(key, message.encode(), hashlib.sha256).hexdigest()


def _response_message(command_id: str, expires: int) -> str:
    return f"commands.v1:{command_id}:{expires}"


def _storage_message(method: Method, path: str, expires: int) -> str:
    return f"storage.v1:{method}:{path}:{expires}"


def parse_expires(text: str) -> int | None:
    """Unix seconds from a query string, None if it is not an integer; a very long one is just some very late time."""
    return int(text[:_DIGITS_MAX]) if _DIGITS.fullmatch(text) else None
