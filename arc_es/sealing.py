"""Push tokens at rest: encrypted under the signing key, so that events, which are for ever, never hold one in clear."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from arc_es.domain.events import DeclaredTarget

FORM: Final = "siv1"
_KEY_BYTES: Final = 64
"""Of AES-256-SIV: one half authenticates, the other encrypts."""
_KEY_ID_BYTES: Final = 8


class CannotUnseal(Exception):
    """A sealed push token was made with a key that is gone, or for another target, or is damaged: declare it again."""


class Sealer:
    """Seals push tokens with the current key, opens them with this or an old one.

    A sealed token is `siv1.<key id>.<base64url>`. AES-SIV without a nonce is deterministic: the same token of the same
    target gives the same text, so a declaration that is repeated changes nothing. It is bound to deployment and target.
    """

    def __init__(self, key: bytes, old: Sequence[bytes] = ()) -> None:
        self._ciphers = {_key_id(one): AESSIV(_derived(one, b"arc_es push token", _KEY_BYTES)) for one in (key, *old)}
        self._current = _key_id(key)

    def __repr__(self) -> str:
        return "Sealer(…)"

    def seal(self, token: str, deployment_id: str, target_id: str) -> str:
        """The text to store for the push token of one target."""
        raw = self._ciphers[self._current].encrypt(token.encode(), _bound_to(deployment_id, target_id))
        return f"{FORM}.{self._current}.{base64.urlsafe_b64encode(raw).decode().rstrip('=')}"

    def open(self, sealed: str, deployment_id: str, target_id: str) -> str:
        """The push token. Raises CannotUnseal."""
        form, _, rest = sealed.partition(".")
        key_id, _, text = rest.partition(".")
        cipher = self._ciphers.get(key_id)
        where = f"The push token of target {target_id!r} of deployment {deployment_id!r}"
        if form != FORM or cipher is None:
            raise CannotUnseal(f"{where} was sealed with a signing key that is gone: declare the deployment again")
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            return cipher.decrypt(raw, _bound_to(deployment_id, target_id)).decode()
        except (binascii.Error, InvalidTag, ValueError) as error:
            raise CannotUnseal(f"{where} is damaged, or belongs to another target") from error

    def is_current(self, sealed: str) -> bool:
        """Whether it was sealed with the current key."""
        return sealed.startswith(f"{FORM}.{self._current}.")

    def token_of(self, deployment_id: str, target: DeclaredTarget) -> str | None:
        """The push token of a declared target, None if it has none; also as the first versions stored it.

        Raises:
            CannotUnseal: no key opens it.
        """
        push = target.push
        if push is None or push.token_sealed is None:
            return None if push is None else push.token
        return self.open(push.token_sealed, deployment_id, target.resource_id)


def _bound_to(deployment_id: str, target_id: str) -> list[bytes]:
    """Associated data: AES-SIV takes a list, so parts need no separator."""
    return [FORM.encode(), deployment_id.encode(), target_id.encode()]


def _key_id(key: bytes) -> str:
    """Names a key without telling anything of it."""
    return _derived(key, b"arc_es key id", _KEY_ID_BYTES).hex()


def _derived(key: bytes, purpose: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt=None, info=purpose).derive(key)
